"""Commands and queries, on SQLite and on PostgreSQL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import ValidationError
from sqlalchemy import delete, insert, select, update
from tidegate_store_sql import tables
from tidegate_store_sql.errors import StoreError
from tidegate_store_sql.kinds import (
    APPLICATION,
    KEY,
    PLATFORM,
    PROVIDER,
    PROVIDER_KEY,
    SERVICE,
    SUBSCRIPTION,
    TEAM,
    Scope,
)
from tidegate_store_sql.specs import (
    AdminSpec,
    ApplicationSpec,
    KeyRequest,
    KeySpec,
    MemberSpec,
    ProviderKeySpec,
    ProviderSpec,
    ServiceSpec,
    TeamSpec,
)

from tidegate.api.store import Roles

from .conftest import ADA


def code(error: pytest.ExceptionInfo[StoreError]) -> str:
    return error.value.code


def test_what_was_made_is_found_again(store, shop):
    row = store.get(PLATFORM, SERVICE, shop.orders)
    assert (row["name"], row["team_id"], row["hosts"], row["methods"]) == (
        "orders", shop.red, [], None,
    )  # fmt: skip
    assert store.find(PLATFORM, APPLICATION, name="web")["id"] == shop.app


def test_each_change_is_one_step_of_the_revision_and_no_change_is_none(store, shop):
    before = store.revision()
    spec = ServiceSpec(name="orders", path="/orders", visibility="internal", title="Orders")
    row = store.update(ADA, PLATFORM, shop.orders, spec)
    assert row["revision"] == store.revision() == before + 1
    store.update(ADA, PLATFORM, shop.orders, spec)
    assert store.revision() == before + 1


def test_a_stale_revision_is_refused(store, shop):
    seen = store.get(PLATFORM, SERVICE, shop.orders)["revision"]
    spec = ServiceSpec(name="orders", path="/orders", title="first")
    store.update(ADA, PLATFORM, shop.orders, spec, revision=seen)
    for command in (
        lambda: store.update(ADA, PLATFORM, shop.orders, spec, revision=seen),
        lambda: store.delete(ADA, PLATFORM, SERVICE, shop.orders, revision=seen),
    ):
        with pytest.raises(StoreError) as error:
            command()
        assert code(error) == "revision_conflict"


def test_of_ten_that_change_the_same_revision_one_wins(store, shop):
    seen = store.get(PLATFORM, SERVICE, shop.orders)["revision"]

    def change(number: int) -> str:
        spec = ServiceSpec(name="orders", path="/orders", title=f"by {number}")
        try:
            store.update(ADA, PLATFORM, shop.orders, spec, revision=seen)
        except StoreError as error:
            return error.code
        return "done"

    with ThreadPoolExecutor(10) as pool:
        ends = sorted(pool.map(change, range(10)))
    assert ends == ["done"] + ["revision_conflict"] * 9


def test_a_name_is_taken_once_in_a_team(store, shop):
    with pytest.raises(StoreError) as error:
        store.create(ADA, PLATFORM, ServiceSpec(name="orders", path="/x"), shop.red)
    assert code(error) == "already_exists"
    store.create(ADA, PLATFORM, ServiceSpec(name="orders", path="/x"), shop.blue)


@pytest.mark.parametrize(
    ("path", "hosts", "methods", "free"),
    [
        ("/orders", (), None, False),
        ("/orders/", (), None, False),
        ("/orders/*", ("*",), None, False),
        ("/orders", ("api.test",), None, True),
        ("/orders", (), ("GET",), True),
        ("/orders/x", (), None, True),
    ],
)
def test_two_services_never_take_the_same_requests(store, shop, path, hosts, methods, free):
    spec = ServiceSpec(name="other", path=path, hosts=hosts, methods=methods)
    if free:
        store.create(ADA, PLATFORM, spec, shop.blue)
        return
    before = store.revision()
    with pytest.raises(StoreError) as error:
        store.create(ADA, PLATFORM, spec, shop.blue)
    assert code(error) == "route_taken"
    assert store.revision() == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Not A Name"},
        {"name": "x", "path": "no-slash"},
        {"name": "x", "path": "/a/{b}/{b}"},
        {"name": "x", "hosts": ["bad host"]},
        {"name": "x", "hosts": ["a.test", "A.test"]},
        {"name": "x", "upstream": "ftp://x"},
        {"name": "x", "upstream": "http://user:pass@x"},
        {"name": "x", "operations": ["GET"]},
        {"name": "x", "title": "nul \x00"},
        {"name": "x", "unknown": 1},
    ],
)
def test_what_makes_no_sense_is_refused_before_the_database(wrong):
    with pytest.raises(ValidationError):
        ServiceSpec.model_validate(wrong)


def test_a_deleted_team_takes_all_that_is_its_own_and_no_more(store, shop):
    store.subscribe(ADA, PLATFORM, shop.app, shop.orders)
    store.delete(ADA, PLATFORM, TEAM, shop.red)
    assert [row["name"] for row in store.page(PLATFORM, TEAM).items] == ["blue"]
    for kind in (SERVICE, PROVIDER, PROVIDER_KEY, SUBSCRIPTION):
        assert store.page(PLATFORM, kind).items == []
    assert store.get(PLATFORM, KEY, shop.key)["name"] == "ci"
    assert store.verify().bad is None


def test_pages_give_every_row_once_in_order(store, shop):
    for number in range(25):
        store.create(ADA, PLATFORM, ApplicationSpec(name=f"app-{number:02}"), shop.red)
    names, after = [], ""
    while True:
        page = store.page(Scope.of(shop.red), APPLICATION, limit=7, after=after)
        names += [row["name"] for row in page.items]
        if not (after := page.next):
            break
    assert names == [f"app-{number:02}" for number in range(25)]
    found = store.page(PLATFORM, APPLICATION, search="APP-1", limit=100).items
    assert len(found) == 10
    assert store.page(PLATFORM, APPLICATION, search="app_1").items == []
    assert [r["name"] for r in store.page(PLATFORM, APPLICATION, name="web").items] == ["web"]


@pytest.mark.parametrize(
    "arguments", [{"after": "x"}, {"after": "bnVsbA=="}, {"limit": 0}, {"nope": 1}, {"hash": "x"}]
)
def test_a_list_with_wrong_parameters_is_refused(store, arguments):
    with pytest.raises(StoreError) as error:
        store.page(PLATFORM, KEY, **arguments)
    assert code(error) == "invalid"


def test_roles_of_a_user_in_all_teams(store, shop):
    store.create(ADA, PLATFORM, MemberSpec(user="eve", role="owner"), shop.red)
    store.create(ADA, PLATFORM, MemberSpec(user="eve", role="viewer"), shop.blue)
    store.create(ADA, PLATFORM, AdminSpec(user="root"))
    assert store.roles("eve") == Roles(False, {shop.red: "owner", shop.blue: "viewer"})
    assert store.roles("root") == Roles(True)
    assert store.roles("nobody") == Roles()


# -- keys -------------------------------------------------------------------------------------


def test_a_key_is_shown_once_and_stored_as_a_hash(store, shop):
    row, key = store.issue_key(ADA, PLATFORM, shop.app, KeyRequest(name="second"))
    assert key.startswith("tg_")
    assert row["prefix"] == key[:8]
    assert "hash" not in row
    with store.database.read() as connection:
        for table in tables.metadata.sorted_tables:
            assert key not in repr(connection.execute(select(table)).all())


def test_a_rotated_key_overlaps_with_its_successor(store, shop):
    fresh, key = store.rotate_key(ADA, PLATFORM, shop.key, "ci-2", overlap=60.0)
    old = store.get(PLATFORM, KEY, shop.key)
    assert old["expires"] == pytest.approx(fresh["created"] + 60.0)
    assert fresh["expires"] is None
    assert key != shop.secret_key


def test_a_revoked_key_stays_as_a_row_and_an_edit_does_not_bring_it_back(store, shop):
    revoked = store.revoke_key(ADA, PLATFORM, shop.key)["revoked"]
    assert revoked is not None
    assert store.revoke_key(ADA, PLATFORM, shop.key)["revoked"] == revoked
    edit = KeySpec(name="renamed", hash="0" * 64)
    row = store.update(ADA, PLATFORM, shop.key, edit)
    assert (row["name"], row["revoked"]) == ("renamed", revoked)
    assert row["prefix"] == shop.secret_key[:8]


# -- subscriptions ----------------------------------------------------------------------------


def test_a_subscription_goes_from_request_to_approval_to_revocation(store, shop):
    blue, red = Scope.of(shop.blue), Scope.of(shop.red)
    row = store.subscribe(ADA, blue, shop.app, shop.orders, "for the web shop")
    assert (row["status"], row["reason"]) == ("requested", "for the web shop")
    with pytest.raises(StoreError) as error:
        store.decide(ADA, blue, row["id"], "approved")
    assert code(error) == "not_found"
    assert store.decide(ADA, red, row["id"], "approved", "welcome")["decided_by"] == "ada"
    with pytest.raises(StoreError) as error:
        store.subscribe(ADA, blue, shop.app, shop.orders)
    assert code(error) == "subscription_state"
    assert store.decide(ADA, red, row["id"], "revoked", "misuse")["status"] == "revoked"
    assert store.subscribe(ADA, blue, shop.app, shop.orders, "again")["status"] == "requested"
    assert [r["id"] for r in store.page(red, SUBSCRIPTION).items] == [row["id"]]


def test_a_service_may_approve_by_itself(store, shop):
    spec = ServiceSpec(name="orders", path="/orders", visibility="public", approval="auto")
    store.update(ADA, PLATFORM, shop.orders, spec)
    row = store.subscribe(ADA, Scope.of(shop.blue), shop.app, shop.orders)
    assert (row["status"], row["decided_by"]) == ("approved", "auto")


# -- teams are isolated -----------------------------------------------------------------------


def test_another_teams_rows_are_not_there(store, shop):
    blue = Scope.of(shop.blue)
    targets = [
        (SERVICE, shop.orders), (PROVIDER, shop.provider), (PROVIDER_KEY, shop.provider_key),
        (TEAM, shop.red),
    ]  # fmt: skip
    for kind, id in targets:
        assert id not in {row["id"] for row in store.page(blue, kind, limit=100).items}
        assert store.page(blue, kind, team_id=shop.red).items == [] if kind is not TEAM else True
        for command in (
            lambda kind=kind, id=id: store.get(blue, kind, id),
            lambda kind=kind, id=id: store.delete(ADA, blue, kind, id),
        ):
            with pytest.raises(StoreError) as error:
                command()
            assert code(error) == "not_found"


def test_commands_on_another_teams_rows_find_nothing(store, shop):
    red, blue = Scope.of(shop.red), Scope.of(shop.blue)
    before = store.revision()
    provider = ProviderSpec(name="mine", kind="openai", url="https://evil.test")
    for command in (
        lambda: store.update(ADA, blue, shop.orders, ServiceSpec(name="orders", path="/mine")),
        lambda: store.update(ADA, blue, shop.provider, provider),
        lambda: store.create(ADA, blue, ServiceSpec(name="new", path="/new"), shop.red),
        lambda: store.create(ADA, blue, MemberSpec(user="eve", role="owner"), shop.red),
        lambda: store.create(ADA, blue, ProviderKeySpec(name="x"), shop.provider),
        lambda: store.create(ADA, blue, TeamSpec(name="green")),
        lambda: store.create(ADA, blue, AdminSpec(user="eve")),
        lambda: store.issue_key(ADA, red, shop.app, KeyRequest(name="stolen")),
        lambda: store.rotate_key(ADA, red, shop.key, "stolen", overlap=0),
        lambda: store.revoke_key(ADA, red, shop.key),
        lambda: store.secret(blue, shop.provider_key),
        lambda: store.subscribe(ADA, red, shop.app, shop.orders),
        lambda: store.subscribe(ADA, blue, shop.app, shop.hidden),
        lambda: store.delete(ADA, blue, TEAM, shop.blue),
    ):
        with pytest.raises(StoreError) as error:
            command()
        assert code(error) == "not_found"
    assert store.revision() == before


def test_the_audit_of_a_team_is_its_own(store, shop):
    assert {row["team_id"] for row in store.audit(Scope.of(shop.blue)).items} == {shop.blue}
    assert {row["team_id"] for row in store.audit(PLATFORM).items} == {shop.red, shop.blue}


def test_the_catalogue_shows_what_is_meant_to_be_found(store, shop):
    names = [row["name"] for row in store.catalogue([shop.blue]).items]
    assert names == ["orders"]
    assert len(store.catalogue([shop.red]).items) == 2


# -- secrets ----------------------------------------------------------------------------------


def test_a_providers_secret_opens_and_stands_nowhere_in_the_clear(store, shop):
    assert store.secret(Scope.of(shop.red), shop.provider_key) == "sk-canary-1"
    row = store.get(PLATFORM, PROVIDER_KEY, shop.provider_key)
    assert row["has_secret"] is True
    assert "sealed" not in row
    with store.database.read() as connection:
        for table in tables.metadata.sorted_tables:
            assert "canary" not in repr(connection.execute(select(table)).all())


def test_a_secret_moved_to_another_provider_does_not_open(store, shop):
    evil = ProviderSpec(name="evil", kind="openai", url="https://evil.test")
    provider = store.create(ADA, PLATFORM, evil, shop.blue)["id"]
    with store.database.write() as connection:
        connection.execute(
            update(tables.provider_key).values(provider_id=provider, team_id=shop.blue)
        )
    with pytest.raises(StoreError) as error:
        store.secret(PLATFORM, shop.provider_key)
    assert code(error) == "master_key_mismatch"


def test_a_provider_that_moves_to_another_host_needs_its_secret_anew(store, shop):
    spec = ProviderSpec(name="main", kind="openai", url="https://api.test/v2")
    store.update(ADA, PLATFORM, shop.provider, spec)
    moved = ProviderSpec(name="main", kind="openai", url="https://evil.test/v1")
    with pytest.raises(StoreError) as error:
        store.update(ADA, PLATFORM, shop.provider, moved)
    assert code(error) == "secret_origin_changed"
    store.delete(ADA, PLATFORM, PROVIDER_KEY, shop.provider_key)
    store.update(ADA, PLATFORM, shop.provider, moved)


# -- the audit --------------------------------------------------------------------------------


def test_the_audit_says_who_did_what_from_where_with_secrets_masked(store, shop):
    newest = store.audit(PLATFORM, limit=1).items[0]
    rows = store.audit(PLATFORM, limit=100).items
    assert [row["seq"] for row in rows] == list(range(len(rows), 0, -1))
    assert (newest["actor"], newest["source"], newest["request_id"]) == (
        "ada", "192.0.2.7", "req-1",
    )  # fmt: skip
    made = next(row for row in rows if row["action"] == "create provider_key")
    assert made["target"] == "red/main/first"
    assert made["after"] == {"name": "first", "sealed": "(new secret)"}
    assert "canary" not in repr(rows)


def test_a_chain_that_nobody_touched_verifies(store, shop):
    verdict = store.verify()
    assert (verdict.good, verdict.bad) == (len(store.audit(PLATFORM, limit=100).items), None)


TAMPERING = {
    "changed": (lambda a: update(a).where(a.c.seq == 3).values(actor="mallory"), 3),
    "backdated": (lambda a: update(a).where(a.c.seq == 4).values(at=1.0), 4),
    "deleted": (lambda a: delete(a).where(a.c.seq == 3), 3),
    "cut off": (lambda a: delete(a).where(a.c.seq >= 6), 6),
    "first gone": (lambda a: delete(a).where(a.c.seq == 1), 1),
    "all gone": (delete, 1),
    "own mac": (lambda a: update(a).where(a.c.seq == 5).values(mac="ab" * 32), 5),
}


@pytest.mark.parametrize("how", TAMPERING)
def test_tampering_shows_at_the_first_bad_entry(store, shop, how):
    statement, bad = TAMPERING[how]
    with store.database.write() as connection:
        connection.execute(statement(tables.audit))
    assert store.verify().bad == bad


def test_swapped_entries_show(store, shop):
    with store.database.write() as connection:
        a = tables.audit
        for old, new in ((3, 999), (4, 3), (999, 4)):
            connection.execute(update(a).where(a.c.seq == old).values(seq=new))
    assert store.verify().bad == 3


def test_a_clock_that_jumps_back_leaves_the_order_and_the_chain_as_they_are(
    store, shop, monkeypatch
):
    before = store.audit(PLATFORM, limit=1).items[0]
    monkeypatch.setattr("tidegate_store_sql.change.time.time", lambda: before["at"] - 86_400)
    revoked = store.revoke_key(ADA, PLATFORM, shop.key)
    assert revoked["revoked"] < before["at"]
    newest, older = store.audit(PLATFORM, limit=2).items
    assert (newest["action"], older["seq"]) == ("update key", before["seq"])
    assert newest["at"] < older["at"]  # what the clock said is what is written
    assert store.verify().bad is None
    assert revoked["revision"] == store.revision()


def test_the_last_use_of_a_key_does_not_go_back(store, shop):
    for at in (200.0, 100.0):
        store.used({shop.key: at})
    assert store.get(PLATFORM, KEY, shop.key)["last_used"] == 200.0


def test_an_entry_that_someone_adds_shows_and_a_tail_that_was_cut_does_not_heal(store, shop):
    last = store.audit(PLATFORM, limit=1).items[0]
    forged = last | {"seq": last["seq"] + 1, "previous": last["mac"], "actor": "mallory"}
    forged |= {"before": None, "after": None}
    with store.database.write() as connection:
        connection.execute(insert(tables.audit).values(forged))
    assert store.verify().bad == forged["seq"]
    with store.database.write() as connection:
        connection.execute(delete(tables.audit).where(tables.audit.c.seq >= last["seq"]))
    store.create(ADA, PLATFORM, TeamSpec(name="green"))
    assert store.verify().bad == last["seq"]
    assert store.move_anchor() is False
