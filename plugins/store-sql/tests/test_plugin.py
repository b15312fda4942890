"""The addon on exchanges: its snapshot, how a change reaches it, and a store that is gone."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import event, select
from tidegate_store_sql import StoreSql, tables
from tidegate_store_sql.applying import apply
from tidegate_store_sql.crypto import new_key
from tidegate_store_sql.document import Document, TeamTable
from tidegate_store_sql.errors import StoreError
from tidegate_store_sql.kinds import KEY, PLATFORM, SERVICE
from tidegate_store_sql.specs import KeyRequest, ServiceSpec, TeamSpec

from tidegate.api import Principal
from tidegate.api.platform import SERVICE as ON_EXCHANGE
from tidegate.api.platform import SNAPSHOT, Snapshot
from tidegate.testing import Harness, Use, make_exchange
from tidegate.testing.contracts import PluginContract

from .conftest import ADA, Postgres, make_plugin


class TestContract(PluginContract):
    name = "store-sql"

    def options(self):
        return {}

    def good_exchange(self):
        return make_exchange()


@asynccontextmanager
async def running(plugin: StoreSql):
    await plugin.startup(None)
    try:
        yield plugin
    finally:
        await plugin.shutdown()


async def soon(condition) -> None:
    """Wait until it holds; how long a change takes to arrive is a matter of `poll`."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


async def test_an_exchange_gets_the_snapshot_and_its_service(plugin, store, shop):
    async with running(plugin):
        exchange = make_exchange(url="http://api.test/orders/7")
        assert plugin.authenticate(exchange) is None
        snapshot: Snapshot = exchange.stash[SNAPSHOT]
        assert snapshot.revision == store.revision()
        service = exchange.stash[ON_EXCHANGE]
        assert (service.id, service.ref, service.team.name) == (shop.orders, "red/orders", "red")
        other = make_exchange(url="http://api.test/nothing")
        plugin.authenticate(other)
        assert ON_EXCHANGE not in other.stash
        assert plugin.explain("authenticate", other) == "no service is at this host and path"


async def test_a_key_stands_for_its_application(plugin, store, shop):
    limits = KeyRequest(
        name="narrow", expires=2e9, services=("red/orders", "red/gone"), models=("openai/*",),
        networks=("192.0.2.0/24",),
    )  # fmt: skip
    row, key = store.issue_key(ADA, PLATFORM, shop.app, limits)
    async with running(plugin):
        consumer = plugin.snapshot.consumer(key)
        assert consumer.principal == Principal("web", "blue")
        assert consumer.principal.attributes == {"key": key[:8]}
        assert (consumer.key, consumer.application.id) == (row["id"], shop.app)
        assert consumer.services == {shop.orders}
        assert consumer.models == ("openai/*",)
        assert str(consumer.networks[0]) == "192.0.2.0/24"
        assert consumer.expires == 2e9
        for wrong in (key[:-1], key + "x", "", "\x00", "' OR 1=1 --", "x" * 10_240, "\udcff"):
            assert plugin.snapshot.consumer(wrong) is None


async def test_only_an_approved_subscription_is_a_grant(plugin, store, shop):
    wish = store.subscribe(ADA, PLATFORM, shop.app, shop.orders)
    async with running(plugin):
        for status, granted in (("requested", False), ("approved", True), ("revoked", False)):
            if status != "requested":
                store.decide(ADA, PLATFORM, wish["id"], status)
                revision = store.revision()
                await soon(lambda revision=revision: plugin.snapshot.revision == revision)
            found = plugin.snapshot.grant(shop.app, shop.orders)
            assert (found is not None) is granted


async def test_a_change_reaches_a_worker_and_exchanges_under_way_keep_theirs(plugin, store, shop):
    async with running(plugin):
        before = plugin.snapshot
        store.revoke_key(ADA, PLATFORM, shop.key)
        await soon(lambda: plugin.snapshot is not before)
        assert before.consumer(shop.secret_key).revoked is None
        assert plugin.snapshot.consumer(shop.secret_key).revoked is not None
        assert plugin.context.counters.values["snapshots_total"] == 1


async def test_the_last_use_of_a_key_is_written_down(plugin, store, shop):
    async with running(plugin):
        revision = store.revision()
        plugin.snapshot.consumer(shop.secret_key)
        await plugin._write_used()
        assert store.get(PLATFORM, KEY, shop.key)["last_used"] is not None
        assert store.revision() == revision
        assert plugin.snapshot.used == set()


async def test_it_runs_in_a_pipeline(tmp_path):
    async with Harness(Use(StoreSql), gateway={"anonymous": True}) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.status == 200
        assert exchange.stash[SNAPSHOT].revision == 0


# -- when the store is gone -------------------------------------------------------------------


async def test_a_postgresql_that_stops_is_served_without_and_found_again(
    postgres: Postgres, tmp_path, caplog
):
    plugin = make_plugin(postgres.new(), tmp_path, poll=0.1)
    store = plugin.open()
    team = store.create(ADA, PLATFORM, TeamSpec(name="red"))["id"]
    store.create(ADA, PLATFORM, ServiceSpec(name="a", path="/a"), team)
    async with running(plugin):
        await asyncio.to_thread(postgres.stop)
        try:
            errors = plugin.context.counters.values
            await soon(lambda: errors.get("store_errors_total", 0) > 2)
            exchange = make_exchange(url="http://x.test/a")
            plugin.authenticate(exchange)
            assert exchange.stash[ON_EXCHANGE].name == "a"
            with pytest.raises(StoreError) as error:
                await asyncio.to_thread(store.create, ADA, PLATFORM, TeamSpec(name="blue"))
            assert error.value.code == "storage_unavailable"
        finally:
            await asyncio.to_thread(postgres.start)
        await asyncio.to_thread(store.create, ADA, PLATFORM, TeamSpec(name="blue"))
        await soon(lambda: plugin.snapshot.revision == 3)
    told = [r.message for r in caplog.records if "store" in r.message]
    assert [text for text in told if "keeps being served" in text] == told[:1]
    assert "the store is back" in told


async def test_a_slow_postgresql_is_told_of_and_served_without(
    postgres: Postgres, tmp_path, monkeypatch, caplog
):
    """Another program holds a lock on the store's tables, as a long maintenance does."""
    monkeypatch.setattr("tidegate_store_sql.plugin.SLOW", 0.1)
    plugin = make_plugin(postgres.new(), tmp_path, poll=0.1)
    store = plugin.open()
    team = store.create(ADA, PLATFORM, TeamSpec(name="red"))["id"]
    store.create(ADA, PLATFORM, ServiceSpec(name="a", path="/a"), team)
    other = make_plugin(plugin.config.url.get_secret_value(), tmp_path).store.database
    async with running(plugin):
        with other.write() as connection:
            connection.exec_driver_sql("LOCK TABLE store_sql_state IN ACCESS EXCLUSIVE MODE")
            await soon(lambda: "it is slow" in caplog.text)
            exchange = make_exchange(url="http://x.test/a")
            plugin.authenticate(exchange)
            assert exchange.stash[ON_EXCHANGE].name == "a"
        await asyncio.to_thread(store.create, ADA, PLATFORM, TeamSpec(name="blue"))
        await soon(lambda: plugin.snapshot.revision == 3)
    other.close()


async def test_a_reload_without_the_store_keeps_the_snapshot_and_a_start_fails(
    postgres: Postgres, tmp_path
):
    url = postgres.new()
    old, new, first = (make_plugin(url, tmp_path, poll=0.1) for _ in range(3))
    async with running(old):
        await asyncio.to_thread(postgres.stop)
        try:
            await new.startup(old)
            assert new.snapshot is old.snapshot
            with pytest.raises(StoreError):
                await first.startup(None)
        finally:
            await asyncio.to_thread(postgres.start)
            await new.shutdown()


async def test_a_locked_sqlite_is_served_from_and_refuses_commands(tmp_path, monkeypatch):
    monkeypatch.setattr("tidegate_store_sql.database.BUSY", 0.2)
    plugin = make_plugin(f"sqlite:///{tmp_path}/store.db", tmp_path, poll=0.1)
    async with running(plugin):
        store = plugin.store
        other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError) as error:
            await asyncio.to_thread(store.create, ADA, PLATFORM, TeamSpec(name="red"))
        assert error.value.code == "storage_unavailable"
        assert "locked" in str(error.value)
        other.close()
        await asyncio.to_thread(store.create, ADA, PLATFORM, TeamSpec(name="red"))
        await soon(lambda: plugin.snapshot.revision == 1)


def test_a_full_sqlite_refuses_a_command_whole(tmp_path):
    store = make_plugin(f"sqlite:///{tmp_path}/store.db", tmp_path).open()
    database = store.database
    with database.read() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    database.close()

    @event.listens_for(database.engine, "connect")
    def bounded(connection, _record):
        connection.execute(f"PRAGMA max_page_count = {pages}")

    services = tuple(ServiceSpec(name=f"s{n}", path=f"/{n}") for n in range(500))
    with pytest.raises(StoreError) as error:
        apply(store, ADA, Document(team=(TeamTable(name="red", service=services),)))
    assert error.value.code == "storage_unavailable"
    assert "full" in str(error.value)
    assert store.page(PLATFORM, SERVICE).items == []
    assert (store.revision(), store.verify().bad) == (0, None)
    database.close()


def test_a_file_that_is_no_database_is_told(tmp_path):
    (tmp_path / "store.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError) as error:
        make_plugin(f"sqlite:///{tmp_path}/store.db", tmp_path).open()
    assert error.value.code == "storage_unavailable"


# -- the master key ---------------------------------------------------------------------------


def test_files_are_private(tmp_path):
    plugin = make_plugin(f"sqlite:///{tmp_path}/store.db", tmp_path)
    plugin.open().create(ADA, PLATFORM, TeamSpec(name="red"))
    files = [tmp_path / "store.db", *(tmp_path / "store-sql").iterdir()]
    assert {f.name for f in files} >= {"store.db", "master.key", "audit.anchor"}
    assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}


def test_a_wrong_or_lost_master_key_refuses_to_start(url, tmp_path):
    make_plugin(url, tmp_path, master_key=new_key()).open()
    file = tmp_path / "store-sql/master.key"
    for options in ({"master_key": new_key()}, {}):
        with pytest.raises(StoreError) as error:
            make_plugin(url, tmp_path, **options).open()
        assert error.value.code == "master_key_mismatch"
        assert not file.exists()


def test_a_master_key_that_others_may_read_is_refused(tmp_path):
    url = f"sqlite:///{tmp_path}/store.db"
    make_plugin(url, tmp_path).open()
    os.chmod(tmp_path / "store-sql/master.key", 0o644)
    with pytest.raises(StoreError) as error:
        make_plugin(url, tmp_path).open()
    assert error.value.code == "master_key_invalid"


@pytest.mark.parametrize("text", ["short", "é" * 44, "", "A" * 44 + "!"])
def test_a_malformed_master_key_is_refused(tmp_path, text):
    with pytest.raises(StoreError) as error:
        make_plugin(f"sqlite:///{tmp_path}/s.db", tmp_path, master_key=text).open()
    assert error.value.code == "master_key_invalid"


def test_a_rotation_keeps_secrets_keys_and_audit_and_the_old_key_opens_nothing(
    plugin, store, shop, url, tmp_path
):
    folder = tmp_path / "store-sql"
    old = (folder / "master.key").read_text()
    sealed = select(tables.provider_key.c.sealed)
    with store.database.read() as connection:
        before = connection.execute(sealed).scalar()
    other = make_plugin(url, tmp_path).open()  # another process, which loaded the old key
    store.vault.add_key(new_key())
    with store.change(ADA) as change:
        assert store.vault.rewrap(change.connection) == 3
    store.vault.drop_old_keys()
    with store.database.read() as connection:
        assert connection.execute(sealed).scalar() != before
    for one in (store, other, make_plugin(url, tmp_path).open()):
        assert one.secret(PLATFORM, shop.provider_key) == "sk-canary-1"
        assert one.vault.hash("x") == store.vault.hash("x")
        assert one.verify().bad is None
    shutil.copytree(folder, tmp_path / "old/store-sql")
    (tmp_path / "old/store-sql/master.key").write_text(old)
    with pytest.raises(StoreError):
        make_plugin(url, tmp_path / "old").open()
