"""A snapshot made from the one before is the one that would be made from nothing."""

from __future__ import annotations

from random import Random

import pytest
from sqlalchemy import update
from tidegate_store_sql import tables
from tidegate_store_sql.applying import Options, apply
from tidegate_store_sql.backup import backup
from tidegate_store_sql.commands import restored
from tidegate_store_sql.compiling import compile_snapshot
from tidegate_store_sql.document import Document
from tidegate_store_sql.kinds import PLATFORM, POLICY, PROVIDER
from tidegate_store_sql.schema import OWN
from tidegate_store_sql.snapshot import EMPTY, Compiled
from tidegate_store_sql.specs import PolicySpec, ProviderKeySpec, ProviderSpec

from tidegate.api.platform import Policy

from .conftest import ADA


def compiled(store, previous: Compiled = EMPTY) -> Compiled:
    with store.database.read() as connection:
        return compile_snapshot(connection, store.vault, previous)


def told(snapshot: Compiled) -> dict[str, object]:
    """All that a snapshot knows, comparable."""
    parts = snapshot.parts
    return {
        "services": {id: repr(service) for id, service in parts.services.items()},
        "keys": {id: (hashed, repr(consumer)) for id, (hashed, consumer) in parts.keys.items()},
        "grants": dict(parts.grants),
        "providers": dict(snapshot.providers),
        "revision": snapshot.revision,
        "routes": {
            service.id: getattr(snapshot.service("a.test", f"{service.path}/x", "GET"), "id", None)
            for service in parts.services.values()
        },
    }


def platform(random: Random) -> Document:
    """Some platform: of two of them, parts are the same and others differ or are missing."""

    def some(kind: str, number: int) -> list[str]:
        return [f"{kind}{n}" for n in range(number) if random.random() < 0.8]

    teams = []
    for team in some("team", 3):
        services = [
            {"name": name, "path": f"/{team}/{name}", "strip": random.random() < 0.3}
            for name in some("s", 3)
        ]
        secrets = [None, f"sk-{team}", "sk-new"]
        providers = [
            {
                "name": name,
                "kind": random.choice(["openai", "anthropic"]),
                "url": "https://api.test",
                "key": [{"name": key, "secret": random.choice(secrets)} for key in some("k", 2)],
            }
            for name in some("p", 2)
        ]
        table = {"name": team, "title": random.choice(["", "T"]), "service": services}
        policies = [
            {
                "name": name,
                "text": random.choice(["true", "anonymous"]),
                "services": random.choice([None, ["s0"], ["s*", "x"]]),
            }
            for name in some("policy", 2)
        ]
        teams.append(table | {"provider": providers, "policy": policies})
    refs = [f"{team['name']}/{s['name']}" for team in teams for s in team["service"]]
    for team in teams:
        team["application"] = [
            {
                "name": name,
                "key": [
                    {
                        "name": key,
                        "key": f"{team['name']}-{name}-{key}-{random.randrange(2)}-long-enough",
                        "expires": random.choice([None, 2e9]),
                        "services": random.choice([None, ["team0/s0", "team1/s1"]]),
                    }
                    for key in some("k", 3)
                ],
                "subscription": [
                    {"service": ref, "status": random.choice(["approved", "revoked"])}
                    for ref in refs
                    if random.random() < 0.5
                ],
            }
            for name in some("a", 2)
        ]
    return Document.model_validate({"team": teams})


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_same_from_the_one_before_as_from_nothing(store, seed):
    random = Random(seed)
    snapshot = compiled(store)
    for _ in range(8):
        apply(store, ADA, platform(random), Options(prune=True))
        snapshot = compiled(store, snapshot)
        assert told(snapshot) == told(compiled(store))


def test_what_did_not_change_is_taken_over(store, shop):
    before = compiled(store)
    store.revoke_key(ADA, PLATFORM, shop.key)
    after = compiled(store, before)
    assert after.parts.services is before.parts.services
    assert after.parts.keys[shop.key][1].revoked is not None
    assert before.parts.keys[shop.key][1].revoked is None


def test_a_restored_store_is_compiled_anew(store, shop, tmp_path):
    with store.database.read() as connection:
        backup(connection, tmp_path / "b.gz")
    old = told(compiled(store))
    store.revoke_key(ADA, PLATFORM, shop.key)
    snapshot = compiled(store, compiled(store))
    assert told(snapshot)["keys"] != old["keys"]
    restored(store, tmp_path / "b.gz", [OWN])
    assert told(compiled(store, snapshot))["keys"] == old["keys"]


def test_a_providers_keys_are_opened_for_its_team_and_shown_nowhere(store, shop):
    snapshot = compiled(store)
    assert list(snapshot.providers) == ["red"]
    (provider,) = snapshot.providers["red"]
    (key,) = provider.keys
    assert (provider.name, provider.url, key.name) == ("main", "https://api.test/v1", "first")
    assert key.secret.get_secret_value() == "sk-canary-1"
    assert "sk-canary-1" not in repr((snapshot, snapshot.parts))


def test_a_teams_providers_are_the_same_object_until_one_of_them_changes(store, shop):
    before = compiled(store)
    store.revoke_key(ADA, PLATFORM, shop.key)
    blue = store.create(
        ADA, PLATFORM, ProviderSpec(name="b", kind="openai", url="https://b.test"), shop.blue
    )
    after = compiled(store, before)
    assert after.providers["red"] is before.providers["red"]
    spec = ProviderKeySpec.model_validate({"name": "first", "secret": "sk-canary-2"})
    store.update(ADA, PLATFORM, shop.provider_key, spec)
    store.delete(ADA, PLATFORM, PROVIDER, blue["id"])
    last = compiled(store, after)
    assert list(last.providers) == ["red"]
    assert last.providers["red"][0].keys[0].secret.get_secret_value() == "sk-canary-2"


def test_a_secret_that_does_not_open_is_none_and_keeps_nothing_else_away(store, shop):
    with store.database.write() as connection:
        connection.execute(update(tables.provider_key).values(sealed="v1.x.y.z"))
    snapshot = compiled(store)
    assert snapshot.providers["red"][0].keys[0].secret is None
    assert snapshot.consumer(shop.secret_key) is not None


def test_it_knows_applications_by_name_and_the_methods_that_a_path_takes(store):
    service = {"name": "s", "path": "/s", "methods": ["GET", "PUT"]}
    team = {"name": "red", "service": [service], "application": [{"name": "web"}]}
    apply(store, ADA, Document.model_validate({"team": [team]}))
    snapshot = compiled(store)
    assert snapshot.application("red", "web").team.name == "red"
    assert snapshot.application("blue", "web") is None
    assert snapshot.service("a.test", "/s/1", "POST") is None
    assert snapshot.methods("a.test", "/s/1", "POST") == ("GET", "PUT")
    assert snapshot.methods("a.test", "/t", "POST") == ()


def test_a_policy_is_asked_of_those_services_of_its_team_that_it_names(store):
    names = ("orders-eu", "orders-us", "status")
    services = [{"name": name, "path": f"/red/{name}"} for name in names]
    rules = [
        {"name": "z-all", "text": "true"},
        {"name": "orders", "text": "anonymous", "title": "T", "services": ["orders-*", "x"]},
        {"name": "nothing", "text": "false", "services": []},
    ]
    teams = [
        {"name": "red", "service": services, "policy": rules},
        {"name": "blue", "service": [{"name": "orders-eu", "path": "/blue"}]},
    ]
    apply(store, ADA, Document.model_validate({"team": teams}))
    found = {s.ref: s.policies for s in compiled(store).parts.services.values()}
    every, orders = Policy("z-all", "true"), Policy("orders", "anonymous", "T")
    assert found == {
        "red/orders-eu": (orders, every), "red/orders-us": (orders, every),
        "red/status": (every,), "blue/orders-eu": (),
    }  # fmt: skip


def test_only_services_whose_policies_change_are_other_objects(store, shop):
    before = compiled(store)
    spec = PolicySpec(name="p", text="true", services=("orders",))
    policy = store.create(ADA, PLATFORM, spec, shop.red)["id"]
    after = compiled(store, before)
    assert after.parts.services[shop.hidden] is before.parts.services[shop.hidden]
    assert after.service("a.test", "/orders", "GET").policies == (Policy("p", "true"),)
    store.revoke_key(ADA, PLATFORM, shop.key)
    last = compiled(store, after)
    assert last.parts.services is after.parts.services
    store.delete(ADA, PLATFORM, POLICY, policy)
    assert compiled(store, last).service("a.test", "/orders", "GET").policies == ()
