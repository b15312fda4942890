"""Redis that dies, hangs, is full, fails over, loses its data; clocks that differ."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from tidegate_limit_redis.store import EXACT, RedisStore

from tidegate.testing.lending import IN_PROGRESS, PATIENCE, Limit, Worker


def store(server, *terms) -> RedisStore:
    return RedisStore(server.url, "t", terms or (Limit(),))


@asynccontextmanager
async def workers(server, count=1, *terms):
    made = [Worker(store(server, *terms).backend(f"w{n}"), f"w{n}") for n in range(count)]
    for worker in made:
        worker.backend.start(worker)
    try:
        for worker in made:
            await connected(worker)
        yield made
    finally:
        for worker in made:
            await worker.backend.stop()


async def connected(worker: Worker, times: int = 1) -> None:
    await worker.until(lambda: worker.connections >= times)


async def used(server) -> int:
    (one,) = (await asyncio.to_thread(store(server).status))["accounts"]
    return one["used"]


async def test_a_redis_that_was_killed_goes_on_where_it_was(own_server):
    async with workers(own_server) as (ada,):
        assert await ada.take(30, extra=10)
        await ada.say(ada.lease())
        own_server.kill()
        assert await ada.take(5), "what a worker holds is spent without asking"
        await asyncio.to_thread(own_server.start)
        await connected(ada, 2)
        await ada.say(ada.lease())
        assert await used(own_server) == 35
        await ada.close(ada.lease())
        assert await ada.take(65)
        assert not await ada.take(1)


async def test_with_no_redis_there_is_nobody_to_ask_and_then_there_is(own_server):
    own_server.kill()
    ada = Worker(store(own_server).backend("w"), "w")
    ada.backend.start(ada)
    await asyncio.sleep(0.05)
    assert not ada.backend.up
    await asyncio.to_thread(own_server.start)
    await connected(ada)
    assert ada.backend.up
    assert await ada.take(1)
    await ada.backend.stop()


async def test_a_redis_that_hangs_is_taken_for_lost_and_comes_back(own_server):
    async with workers(own_server) as (ada,):
        assert await ada.take(1)
        os.kill(own_server.process.pid, signal.SIGSTOP)
        try:
            ada.lease().number += 1
            ada.backend.ask([ada.lease()])
            async with asyncio.timeout(PATIENCE):
                while ada.backend.up:
                    await asyncio.sleep(0.05)
        finally:
            os.kill(own_server.process.pid, signal.SIGCONT)
        await connected(ada, 2)
        assert await ada.take(99)


async def test_a_redis_that_is_full_lends_nothing_and_then_goes_on(server, caplog):
    with server.client() as client:
        async with workers(server) as (ada,):
            assert await ada.take(10)
            client.config_set("maxmemory", 1)
            try:
                assert await ada.say(ada.lease(), need=10) is None
                assert ada.failures
            finally:
                client.config_set("maxmemory", 0)
            assert "Redis takes nothing" in caplog.text
            assert await ada.take(90)


async def test_a_redis_that_may_drop_what_is_spent_is_told_of(server, caplog):
    with server.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            async with workers(server):
                assert "its maxmemory-policy is allkeys-lru" in caplog.text
        finally:
            client.config_set("maxmemory-policy", "noeviction")


async def test_a_primary_that_becomes_a_replica_is_left_until_there_is_one_again(server):
    with server.client() as client:
        async with workers(server) as (ada,):
            assert await ada.take(10)
            client.replicaof("127.0.0.1", 1)
            try:
                ada.lease().number += 1
                ada.backend.ask([ada.lease()])
                await connected(ada, 2)
            finally:
                client.replicaof("NO", "ONE")
            assert await ada.take(90)
            assert not await ada.take(1)


async def test_scripts_that_were_flushed_are_loaded_again(server):
    with server.client() as client:
        async with workers(server) as (ada,):
            client.script_flush()
            ada.backend.ask([ada.lease()])
            await connected(ada, 2)
            assert await ada.take(100)


async def test_a_redis_that_lost_its_data_is_told_again_what_workers_know(server, caplog):
    with server.client() as client:
        async with workers(server, 3) as (ada, bob, eve):
            assert await ada.take(30)
            await ada.close(ada.lease())
            assert await bob.take(20)
            await bob.say(bob.lease(), need=5)
            client.flushall()
            assert await eve.take(3), "who knows nothing is lent what seems to be there"
            await ada.say(ada.lease())
            await bob.say(bob.lease())
            assert await used(server) == 50, "30 closed, 20 of bob; eve has not told yet"
            assert "had lost what is spent" in caplog.text
            for worker in (ada, bob, eve):
                await worker.say(worker.lease())
                await worker.close(worker.lease())
            assert await used(server) == 53
            assert not await ada.take(48)
            assert await ada.take(47)


async def test_a_reset_is_not_undone_by_what_workers_remember(server):
    async with workers(server, 2) as (ada, bob):
        assert await ada.take(60)
        await ada.close(ada.lease())
        assert await asyncio.to_thread(store(server).reset, "calls", "ada") == 1
        assert await bob.take(50)
        assert await ada.take(50)
        assert not await ada.take(1)


async def test_clocks_of_nodes_do_not_matter(server):
    async with workers(server, 2) as (ada, bob):
        assert await ada.take(10)
        bob.backend._clock = (0.0, time.monotonic())  # as if its own clock were that of 1970
        assert await bob.take(90)
        assert not await ada.take(1)


async def test_the_clock_of_an_account_never_goes_back(server):
    """As after a failover to a machine whose clock is a day behind."""
    with server.client() as client:
        async with workers(server) as (ada,):
            assert await ada.take(10)
            (name,) = client.keys("t:*")
            ahead = float(client.hget(name, "now")) + 86_400
            client.hset(name, mapping={"now": ahead, "wall": ahead})
            seen = []
            for _ in range(3):
                await ada.say(ada.lease(limit=0))
                seen.append(float(client.hget(name, "now")))
            assert ahead <= seen[0] <= seen[1] <= seen[2] < ahead + 60


async def test_the_rights_of_the_readme_are_enough(server):
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    rights = re.search(r"The rights `([^`]+)`", readme, re.DOTALL)[1].split()
    with server.client() as client:
        names = ["~t:*", "&t:*"]
        client.execute_command("ACL", "SETUSER", "gate", "on", ">secret", *names, *rights)
        try:
            url = server.url.replace("//", "//gate:secret@")
            own = RedisStore(url, "t", [Limit()])
            async with workers(SimpleNamespace(url=url)) as (ada,):
                assert await ada.take(10)
                await ada.say(ada.lease())
                assert (await asyncio.to_thread(own.status))["accounts"][0]["used"] == 10
                assert await asyncio.to_thread(own.reset, "calls", None) == 1
        finally:
            client.execute_command("ACL", "DELUSER", "gate")


async def test_accounts_end_with_their_window(server):
    with server.client() as client:
        async with workers(server) as (ada,):
            assert await ada.take(10)
            (name,) = client.keys("t:*")
            assert 0 < client.ttl(name) <= 86_400 + 3600
        async with workers(server, 1, IN_PROGRESS) as (bob,):
            assert await bob.take(10)
            assert all(client.ttl(name) > 0 for name in client.keys("t:*"))


@pytest.mark.parametrize(
    ("url", "amount", "told"),
    [
        ("redis://:pa/ss@host", 1, "no URL of redis"),
        ("valkey://host:port", 1, "no URL of valkey"),
        ("redis://host", EXACT, "2\\^53"),
    ],
)
def test_what_it_can_not_keep_is_refused_and_no_secret_is_told(url, amount, told):
    with pytest.raises(ValueError, match=told) as caught:
        RedisStore(url, "t", [Limit(amount=amount)])
    assert "pa" not in str(caught.value).replace("package", "")
