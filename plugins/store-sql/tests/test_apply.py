"""The platform as a file: apply, diff, export."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from tidegate_store_sql import tables
from tidegate_store_sql.applying import Options, apply, export
from tidegate_store_sql.crypto import Keyring, new_key
from tidegate_store_sql.document import Document, parse, render
from tidegate_store_sql.errors import StoreError
from tidegate_store_sql.kinds import (
    APPLICATION,
    KEY,
    PLATFORM,
    PROVIDER_KEY,
    SERVICE,
    SUBSCRIPTION,
    TEAM,
)

from .conftest import ADA, make_plugin


def parsed(text: str) -> Document:
    return parse(text, os.environ)


PLATFORM_TOML = """\
admins = ["root"]

[[team]]
name = "blue"
title = "Blue"

[[team.member]]
user = "eve@example.com"
role = "owner"

[[team.application]]
name = "web"

[[team.application.key]]
name = "ci"
expires = 2027-01-31T12:00:00Z
services = ["red/orders"]
networks = ["192.0.2.0/24"]
prefix = "tg_abcde"
hash = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

[[team.application.subscription]]
service = "red/orders"
reason = "for the shop"

[[team]]
name = "red"

[[team.service]]
name = "orders"
hosts = ["api.example.com"]
path = "/orders"
upstream = "https://orders.example.com"
visibility = "public"
approval = "auto"
operations = ["GET /", "GET /{id}"]
policy = \"\"\"now.getHours() > 8
\"\"\"

[[team.provider]]
name = "main"
kind = "openai"
url = "https://api.openai.com/v1"

[[team.provider.key]]
name = "first"

[[team.policy]]
name = "hours"
text = "true"
services = ["orders", "a-*"]
"""


def test_export_gives_back_the_same_file(store):
    apply(store, ADA, parsed(PLATFORM_TOML))
    assert render(export(store)) == PLATFORM_TOML


def test_a_file_that_is_applied_already_changes_nothing(store):
    assert len(apply(store, ADA, parsed(PLATFORM_TOML))) == 11
    revision = store.revision()
    assert apply(store, ADA, parsed(PLATFORM_TOML), Options(prune=True)) == []
    assert store.revision() == revision
    assert store.verify().bad is None


def test_a_dry_run_tells_what_an_apply_does_and_does_nothing(store):
    document = parsed(PLATFORM_TOML)
    told = apply(store, ADA, document, Options(dry_run=True))
    assert store.revision() == 0
    assert store.page(PLATFORM, TEAM).items == []
    assert [(c.action, c.target) for c in told] == [
        (c.action, c.target) for c in apply(store, ADA, document)
    ]


def test_only_what_differs_is_changed(store):
    apply(store, ADA, parsed(PLATFORM_TOML))
    changes = apply(store, ADA, parsed(PLATFORM_TOML.replace('path = "/orders"', 'path = "/o"')))
    assert [(c.action, c.target, c.before, c.after) for c in changes] == [
        ("update service", "red/orders", {"path": "/orders"}, {"path": "/o"})
    ]


def test_a_section_left_out_stays_and_an_empty_one_is_emptied(store):
    apply(store, ADA, parsed(PLATFORM_TOML))
    assert apply(store, ADA, parsed('[[team]]\nname = "blue"\ntitle = "Blue"')) == []
    apply(store, ADA, parsed('[[team]]\nname = "blue"\ntitle = "Blue"\napplication = []'))
    assert store.page(PLATFORM, APPLICATION).items == []
    assert store.page(PLATFORM, SERVICE).items != []


def test_prune_removes_what_the_file_says_nothing_of(store):
    apply(store, ADA, parsed(PLATFORM_TOML))
    apply(store, ADA, parsed('[[team]]\nname = "red"'), Options(prune=True))
    assert render(export(store)) == '[[team]]\nname = "red"\n'


def test_two_services_may_swap_their_paths(store):
    text = '[[team]]\nname="a"\nservice=[{name="x", path="/1"}, {name="y", path="/2"}]'
    apply(store, ADA, parsed(text))
    swapped = text.replace("/1", "/0").replace("/2", "/1").replace("/0", "/2")
    assert len(apply(store, ADA, parsed(swapped))) == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[team]", "not TOML"),
        ('[[team]]\nname = "A"', "team.0.name"),
        ('[[team]]\nname = "a"\nservices = []', "team.0.services"),
        ('[[team]]\nname = "a"\n[[team]]\nname = "a"', "stands there twice"),
        ('[[team]]\nname="a"\nservice=[{name="x"}, {name="x", path="/2"}]', "x stands there twice"),
        ('[[team]]\nname="a"\nservice=[{name="x"}, {name="y"}]', "another service's"),
        ('[[team]]\nname="a"\napplication=[{name="x", subscription=[{service="b/c"}]}]',
         "no service b/c"),
        ('[[team]]\nname="a"\napplication=[{name="x", key=[{name="k"}]}]', "hash"),
        ('[[team]]\nname="a"\nservice=[{name="x", policy="nme == 1"}]', "do you mean `name`"),
        ('[[team]]\nname="a"\nservice=[{name="x", policy="name =="}]', "policy: column"),
        ('[[team]]\nname="a"\npolicy=[{name="x"}]', "policy.0.text: Field required"),
        ('[[team]]\nname="a"\npolicy=[{name="x", text=""}]', "at least 1 character"),
        ('[[team]]\nname="a"\npolicy=[{name="x", text=" "}]', "text: Value error, column"),
        ('[[team]]\nname="a"\npolicy=[{name="x", text="nme == 1"}]', "do you mean `name`"),
        ('[[team]]\nname="a"\npolicy=[{name="x", text="true", services=["[a]"]}]',
         "services.0: String should match"),
        ('[[team]]\nname="a"\nservice=[{name="x", path="/{t}", strip=true}]', "`strip` needs"),
        ('[[team]]\nname="a"\nservice=[{name="x", operations=["GET /{a}", "GET /{b}"]}]',
         "in conflict"),
        ('[[team]]\nname="a"\nprovider=[{name="p", kind="x", url="http://x", '
         'key=[{name="k", secret="${NOT_SET_HERE}"}]}]', "NOT_SET_HERE is not set"),
    ],
)  # fmt: skip
def test_a_bad_file_changes_nothing_and_says_where(store, text, says):
    with pytest.raises(StoreError, match=says.replace(".", r"\.")):
        apply(store, ADA, parsed('admins = ["root"]\n' + text))
    assert store.revision() == 0


def test_errors_never_tell_a_secret():
    key = '{name="K", secret="canary"}'
    text = f'[[team]]\nname="a"\nprovider=[{{name="p", kind="x", url="bad", key=[{key}]}}]'
    with pytest.raises(StoreError) as error:
        parsed(text)
    assert "canary" not in str(error.value)


# -- secrets ----------------------------------------------------------------------------------

WITH_SECRET = """
[[team]]
name = "red"
provider = [
  { name = "main", kind = "openai", url = "https://a.test", key = [
      { name = "k", secret = "${PROVIDER_SECRET}" },
  ] },
]
application = [{ name = "web", key = [{ name = "ci", key = "${PROVIDER_KEY}" }] }]
"""


@pytest.fixture
def secrets(monkeypatch):
    monkeypatch.setenv("PROVIDER_SECRET", "sk-canary")
    monkeypatch.setenv("PROVIDER_KEY", "tg_long-canary-of-sixteen")


def test_secrets_come_from_the_environment_and_are_left_out_of_exports(store, secrets):
    changes = apply(store, ADA, parsed(WITH_SECRET))
    assert apply(store, ADA, parsed(WITH_SECRET)) == []
    key = store.page(PLATFORM, PROVIDER_KEY).items[0]
    assert store.secret(PLATFORM, key["id"]) == "sk-canary"
    text = render(export(store))
    assert "canary" not in text + repr(changes) + repr(store.audit(PLATFORM))
    assert apply(store, ADA, parsed(text), Options(prune=True)) == []
    assert store.secret(PLATFORM, key["id"]) == "sk-canary"


def test_an_export_with_secrets_opens_with_its_key_alone(store, secrets, tmp_path):
    apply(store, ADA, parsed(WITH_SECRET))
    keyring = Keyring.parse(new_key())
    text = render(export(store, keyring))
    assert "canary" not in text
    other = make_plugin(f"sqlite:///{tmp_path}/other.db", tmp_path / "other").open()
    for wrong in (None, Keyring.parse(new_key())):
        with pytest.raises(StoreError):
            apply(other, ADA, parsed(text), Options(keyring=wrong))
    assert other.revision() == 0
    apply(other, ADA, parsed(text), Options(keyring=keyring))
    key = other.page(PLATFORM, PROVIDER_KEY).items[0]
    assert other.secret(PLATFORM, key["id"]) == "sk-canary"
    other.database.close()


def test_a_provider_moves_to_another_host_only_with_its_secrets(store, secrets):
    apply(store, ADA, parsed(WITH_SECRET))
    moved = WITH_SECRET.replace("https://a.test", "https://b.test")
    with pytest.raises(StoreError) as error:
        apply(store, ADA, parsed(moved.replace(', secret = "${PROVIDER_SECRET}"', "")))
    assert error.value.code == "secret_origin_changed"
    apply(store, ADA, parsed(moved))


# -- many at once, and stopped in the middle --------------------------------------------------


def test_ten_applies_at_once_come_one_after_the_other(store, url, tmp_path):
    """Each has the store opened for itself, as ten processes have."""

    def one(number: int) -> None:
        own = make_plugin(url, tmp_path).open()
        services = ", ".join(f'{{name="s{n}", path="/{number}/{n}"}}' for n in range(5))
        apply(own, ADA, parsed(f'[[team]]\nname="a"\ntitle="{number}"\nservice=[{services}]'))
        own.database.close()

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(one, range(10)))
    assert store.revision() == 10
    title = store.page(PLATFORM, TEAM).items[0]["title"]
    paths = {row["path"] for row in store.page(PLATFORM, SERVICE).items}
    assert paths == {f"/{title}/{n}" for n in range(5)}
    assert store.verify().bad is None


KILLED = """
import sys
from pathlib import Path
from tidegate.api import AddonContext
from tidegate_store_sql.applying import _Apply, Options
from tidegate_store_sql.audit import Actor
from tidegate_store_sql.document import parse
from tidegate_store_sql.plugin import StoreSql, StoreSqlConfig
url, state = sys.argv[1:]
config = StoreSqlConfig.model_validate({"url": url})
store = StoreSql(config, AddonContext("store-sql", Path(state))).open()
services = ", ".join(f'{{name="s{n}", path="/{n}"}}' for n in range(50))
with store.change(Actor("killed")) as change:
    text = f'[[team]]\\nname="b"\\nservice=[{services}]'
    _Apply(change, Options()).document(parse(text, {}))
    print("written", flush=True)
    sys.stdin.read()
"""


def test_an_apply_that_is_killed_before_its_end_leaves_nothing(store, url, tmp_path):
    apply(store, ADA, parsed('[[team]]\nname = "a"'))
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, url, str(tmp_path / "store-sql")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        os.kill(process.pid, signal.SIGKILL)
        process.wait(20)
    for _ in range(100):  # PostgreSQL takes a moment to see that its client is gone
        try:
            apply(store, ADA, parsed('[[team]]\nname = "c"'))
            break
        except StoreError:
            time.sleep(0.1)
    assert [row["name"] for row in store.page(PLATFORM, TEAM).items] == ["a", "c"]
    assert store.page(PLATFORM, SERVICE).items == []
    assert (store.revision(), store.verify().bad) == (2, None)


# -- any platform -----------------------------------------------------------------------------

names = st.from_regex(r"[a-z][a-z0-9-]{0,5}[a-z0-9]", fullmatch=True)
text = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=30)
instants = st.none() | st.integers(0, 253402300799000).map(lambda ms: round(ms / 1000, 3))
lists = st.none() | st.lists(text.filter(bool), max_size=3).map(tuple)
numbers = count()


def unique(rows, key="name"):
    return st.lists(rows, max_size=3, unique_by=lambda row: row[key])


members = st.fixed_dictionaries(
    {"user": names, "role": st.sampled_from(["owner", "admin", "developer", "viewer"])}
)
services = st.fixed_dictionaries(
    {"name": names, "title": text, "kind": st.sampled_from(["rest", "ai"]), "models": lists,
     "path": st.builds(lambda: f"/p{next(numbers)}"), "strip": st.booleans(),
     "policy": st.sampled_from(["", "anonymous", "name\n== \"é\""]),
     "hosts": st.sampled_from([(), ("a.test",), ("*.b.test", "c.test")]), "docs": text,
     "methods": st.sampled_from([None, ("GET",), ("GET", "POST")]), "anonymous": st.booleans(),
     "visibility": st.sampled_from(["private", "internal", "public"]),
     "upstream": st.sampled_from(["", "http://x.test", "https://y.test:8443/z"])}
)  # fmt: skip
keys = st.fixed_dictionaries(
    {"name": names, "hash": st.builds(lambda: f"{next(numbers):064x}"), "expires": instants,
     "revoked": instants, "models": lists, "prefix": text,
     "services": st.sampled_from([None, (), ("a/b",)]),
     "networks": st.sampled_from([None, ("10.0.0.0/8", "::1/128")])}
)  # fmt: skip
applications = st.fixed_dictionaries({"name": names, "title": text, "key": unique(keys)})
providers = st.fixed_dictionaries(
    {"name": names, "kind": names, "url": st.just("https://x.test"), "models": lists,
     "key": unique(st.fixed_dictionaries({"name": names}))}
)  # fmt: skip
policies = st.fixed_dictionaries(
    {"name": names, "text": st.sampled_from(["true", "name\n== \"é\""]), "title": text,
     "services": st.sampled_from([None, (), ("a", "b-*")])}
)  # fmt: skip
teams = st.fixed_dictionaries(
    {"name": names, "title": text, "member": unique(members, "user"), "service": unique(services),
     "application": unique(applications), "provider": unique(providers),
     "policy": unique(policies)}
)  # fmt: skip


@st.composite
def documents(draw):
    found = draw(unique(teams))
    refs = sorted(f"{team['name']}/{s['name']}" for team in found for s in team["service"])
    wishes = st.fixed_dictionaries(
        {"service": st.sampled_from(refs or ["x/x"]), "reason": text, "decided": instants,
         "status": st.sampled_from(["requested", "approved", "rejected", "revoked"])}
    )  # fmt: skip
    for team in found:
        for application in team["application"] if refs else ():
            application["subscription"] = draw(unique(wishes, "service"))
    return Document.model_validate({"admins": draw(unique(members, "user").map(
        lambda rows: [row["user"] for row in rows])), "team": found})  # fmt: skip


@settings(
    max_examples=15, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow,
                           HealthCheck.data_too_large],
)  # fmt: skip
@given(document=documents())
def test_whatever_is_applied_is_exported_and_applied_again_without_a_change(store, document):
    apply(store, ADA, document, Options(prune=True))
    text = render(export(store))
    assert apply(store, ADA, parsed(text), Options(prune=True)) == []
    assert render(export(store)) == text
    assert store.verify().bad is None
    kept = {kind: len(store.page(PLATFORM, kind, limit=100).items)
            for kind in (TEAM, SERVICE, KEY, SUBSCRIPTION)}  # fmt: skip
    found = document.team or ()
    assert kept == {
        TEAM: len(found),
        SERVICE: sum(len(t.service or ()) for t in found),
        KEY: sum(len(a.key or ()) for t in found for a in t.application or ()),
        SUBSCRIPTION: sum(len(a.subscription or ()) for t in found for a in t.application or ()),
    }


def test_a_thousand_services_are_applied_in_reasonable_time(store):
    services = ", ".join(f'{{name="s{n}", path="/{n}"}}' for n in range(1000))
    apply(store, ADA, parsed(f'[[team]]\nname="a"\nservice=[{services}]'))
    with store.database.read() as connection:
        assert len(connection.execute(select(tables.service.c.id)).all()) == 1000
