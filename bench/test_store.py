"""The store on the data plane: compiling a snapshot, look-ups, the hook.

uv run pytest bench/test_store.py -n 0 --benchmark-enable --benchmark-columns=min,median,rounds

10,000 services and 100,000 keys: compiled within 2 s of CPU, in a thread; how late the loop is
meanwhile: store_loop.py. A key is found within
2 µs beyond its hash; the hook costs 1 µs.
"""

from __future__ import annotations

import hmac
from itertools import count
from time import process_time

import pytest
from sqlalchemy import insert
from tidegate_store_sql import StoreSql, StoreSqlConfig, tables
from tidegate_store_sql.audit import Actor
from tidegate_store_sql.compiling import compile_snapshot
from tidegate_store_sql.kinds import KEY, PLATFORM

from tidegate.api import AddonContext
from tidegate.api.platform import SERVICE
from tidegate.testing import make_exchange

NUMBERS = count()
SERVICES, KEYS, APPLICATIONS, TEAMS = 10_000, 100_000, 5_000, 100
STAMPS = {"revision": 0, "created": 1.0, "updated": 1.0}


def team(number):
    return {"team_id": f"t{number % TEAMS}", **STAMPS}


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    plugin = filled(tmp_path_factory.mktemp("store"))
    yield plugin
    plugin.store.database.close()


def filled(folder):
    """A store with all that, and its snapshot."""
    plugin = StoreSql(StoreSqlConfig(), AddonContext("store-sql", folder))
    store = plugin.open()
    rows = {
        tables.team: [
            {"id": f"t{n}", "name": f"t{n}", "title": "", **STAMPS} for n in range(TEAMS)
        ],
        tables.service: [
            {"id": f"s{n}", "name": f"s{n}", "title": "", "kind": "rest", "hosts": ["api.test"],
             "path": f"/s/{n}", "route": f"/s/{n}", "methods": None, "upstream": "", "strip": False,
             "visibility": "public", "approval": "auto", "anonymous": False, "models": None,
             "operations": None, "policy": "", "docs": "", **team(n)}
            for n in range(SERVICES)
        ],
        tables.application: [
            {"id": f"a{n}", "name": f"a{n}", "title": "", **team(n)} for n in range(APPLICATIONS)
        ],
        tables.credential: [
            {"id": f"k{n}", "application_id": f"a{n % APPLICATIONS}", "name": f"k{n}",
             "prefix": "tg_abcde", "hash": store.vault.hash(f"key {n}"), "expires": 2e9,
             "services": None, "models": ["openai/*"], "networks": None, **team(n)}
            for n in range(KEYS)
        ],
        tables.subscription: [
            {"id": f"u{n}", "application_id": f"a{n}", "service_id": f"s{n}",
             "service_team_id": f"t{n % TEAMS}", "status": "approved", "reason": "",
             "decision": "", "decided_by": "", "decided": 1.0, **team(n)}
            for n in range(APPLICATIONS)
        ],
    }  # fmt: skip
    with store.database.write() as connection:
        for table, values in rows.items():
            connection.execute(insert(table), values)
    plugin.snapshot = plugin._compile()
    return plugin


@pytest.mark.benchmark(timer=process_time)
def test_compile(benchmark, plugin):
    def compiled():
        with plugin.store.database.read() as connection:
            return compile_snapshot(connection, plugin.store.vault)

    snapshot = benchmark.pedantic(compiled, rounds=3)
    assert snapshot.consumer("key 99999").key == "k99999"
    assert snapshot.service("api.test", "/s/9999/x", "GET").id == "s9999"
    assert snapshot.grant("a4999", "s4999") is not None


@pytest.mark.benchmark(timer=process_time)
def test_compile_after_a_change(benchmark, plugin):
    """One key is revoked: the rest is taken over."""
    store = plugin.store

    def change():
        store.revoke_key(Actor("bench"), PLATFORM, f"k{next(NUMBERS)}")

    def compiled():
        with store.database.read() as connection:
            return compile_snapshot(connection, store.vault, plugin.snapshot)

    snapshot = benchmark.pedantic(compiled, setup=change, rounds=5)
    assert snapshot.consumer("key 0").revoked is not None
    assert snapshot.consumer("key 99999").revoked is None


@pytest.mark.benchmark(timer=process_time)
def test_compile_after_a_removal(benchmark, plugin):
    """One key is removed: all ids are read, and nothing else."""
    store = plugin.store
    numbers = iter(range(90_000, 90_005))

    def remove():
        store.delete(Actor("bench"), PLATFORM, KEY, f"k{next(numbers)}")

    def compiled():
        with store.database.read() as connection:
            return compile_snapshot(connection, store.vault, plugin.snapshot)

    snapshot = benchmark.pedantic(compiled, setup=remove, rounds=5)
    assert snapshot.consumer("key 90000") is None
    assert snapshot.consumer("key 99999") is not None


def test_hash_of_a_key(benchmark, plugin):
    """What a look-up is measured against."""
    pepper = plugin.store.vault.pepper
    benchmark(lambda: hmac.digest(pepper, b"key 77777", "sha256"))


def test_look_up_of_a_key(benchmark, plugin):
    assert benchmark(plugin.snapshot.consumer, "key 77777").key == "k77777"


def test_look_up_of_a_grant(benchmark, plugin):
    assert benchmark(plugin.snapshot.grant, "a77", "s77") is not None


def test_the_hook(benchmark, plugin):
    exchange = make_exchange(url="http://api.test/s/77/orders")
    assert exchange.stash is not None
    benchmark(plugin.authenticate, exchange)
    assert exchange.stash[SERVICE].id == "s77"
