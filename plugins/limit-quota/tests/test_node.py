"""A real node of two workers and a broker: exact, and nothing is lost or counted twice."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tidegate_limit_quota.protocol import SOCKET, call

from tidegate.testing import Gateway, ScriptedUpstream
from tidegate.testing import script as scripts
from tidegate.testing.load import calls, until_answered


@asynccontextmanager
async def running(
    folder: Path, limits: str, carrier: str = "lane"
) -> AsyncIterator[tuple[Gateway, ScriptedUpstream]]:
    async with (
        ScriptedUpstream() as upstream,
        Gateway(folder, config(upstream.url, limits, carrier)) as gateway,
    ):
        yield gateway, upstream


CONFIG = """
[gateway]
carrier = "{carrier}"
workers = 2

[[addon]]
use = "limit-quota"
limits = [{limits}]

[[addon]]
use = "route-static"
routes = [{{ path = "/", upstream = "{url}" }}]
"""
TEN = '{ name = "ten", unit = "requests", amount = 10, window = "month", per = "gateway" }'
MANY = '{ name = "many", unit = "requests", amount = 100_000, window = "month", per = "gateway" }'


@pytest.fixture(params=["lane", "engine"])
def carrier(request):
    return request.param


def config(url: str, limits: str, carrier: str = "lane") -> str:
    return CONFIG.format(url=url, limits=limits, carrier=carrier)


async def asked(gateway: Gateway, message: dict[str, Any]) -> Any:
    """What the broker answers; asked again while it starts anew."""
    path = gateway.folder / "state" / "addons" / "limit-quota" / SOCKET
    async with asyncio.timeout(30):
        while True:
            try:
                return await asyncio.to_thread(call, path, message)
            except (OSError, ValueError):
                await asyncio.sleep(0.1)


async def account(gateway: Gateway) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while not (found := (await asked(gateway, {"status": True}))["accounts"]):
            await asyncio.sleep(0.1)
    (one,) = found
    return one


async def quota(gateway: Gateway, *arguments: str) -> Any:
    """`tidegate quota …` in JSON."""
    command = [sys.executable, "-m", "tidegate.cli.main", "quota", *arguments, "--json"]
    env = {**os.environ, "TIDEGATE_STATE": str(gateway.folder / "state")}
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, cwd=gateway.folder, env=env
    )
    out, _ = await process.communicate()
    return json.loads(out)


async def settled(gateway: Gateway, seconds: float = 20.0) -> dict[str, Any]:
    """The account when workers hold nothing of it any more."""
    async with asyncio.timeout(seconds):
        while (found := await account(gateway))["lent"]:
            await asyncio.sleep(0.3)
    return found


async def broker_of(gateway: Gateway) -> int:
    """The broker's process id."""
    pid: int = (await asked(gateway, {"status": True}))["pid"]
    return pid


async def test_of_200_parallel_calls_a_limit_of_10_lets_10_through(tmp_path, carrier):
    limits = TEN.replace("}", ', on_outage = "deny" }')
    async with running(tmp_path, limits, carrier) as (gateway, _):
        found = await calls(gateway.url, 200, parallel=200)
        assert found[200] <= 10
        assert set(found) <= {200, 429, 503}  # 503: the machine was too busy for the broker
        await settled(gateway)
        assert found[200] + (await calls(gateway.url, 20, parallel=1))[200] == 10
        assert (await settled(gateway))["used"] == 10


async def test_a_restart_keeps_what_is_spent_and_a_reset_does_not(tmp_path):
    async with running(tmp_path, TEN) as (gateway, _):
        assert (await calls(gateway.url, 12))[200] == 10
        await gateway.stop()
    async with running(tmp_path, TEN) as (gateway, _):
        assert (await calls(gateway.url, 3)) == {429: 3}
        (one,) = (await quota(gateway, "status"))["accounts"]
        assert (one["used"], one["lent"], one["amount"]) == (10, 0, 10)
        assert await quota(gateway, "reset", "ten") == {"reset": 1}
        assert (await calls(gateway.url, 12))[200] == 10


async def test_a_worker_killed_amid_1000_spends_loses_at_most_its_lease(tmp_path):
    async with running(tmp_path, MANY) as (gateway, _):
        victim = (await gateway.status())["workers"][0]["pid"]
        answered: Counter[int] = Counter()
        spending = asyncio.create_task(calls(gateway.url, 1000, found=answered))
        await until_answered(answered, 300)
        os.kill(victim, signal.SIGSTOP)  # so that what it holds is known
        lent = (await account(gateway))["lent"]
        os.kill(victim, signal.SIGKILL)
        await spending
        found = await settled(gateway)
        # Nothing that was answered is forgotten; beyond that only what was lent is counted.
        assert answered[200] <= found["used"] <= answered[200] + answered[0] + lent
        assert await calls(gateway.url, 100) == {200: 100}
        assert (await settled(gateway))["used"] == found["used"] + 100


async def test_a_broker_killed_amid_1000_spends_goes_on_where_it_was(tmp_path):
    limits = MANY.replace("}", ', on_outage = "allow" }')
    async with running(tmp_path, limits) as (gateway, _):
        answered: Counter[int] = Counter()
        spending = asyncio.create_task(calls(gateway.url, 1000, found=answered))
        for count in (200, 500):
            await until_answered(answered, count)
            os.kill(await broker_of(gateway), signal.SIGKILL)
        assert await spending == {200: 1000}
        async with asyncio.timeout(20):
            while (await account(gateway))["used"] < 1000:
                await asyncio.sleep(0.2)
        assert (await settled(gateway))["used"] == 1000


async def test_without_a_broker_nothing_is_spent_and_no_one_waits(tmp_path, carrier):
    limits = TEN.replace("}", ', on_outage = "deny" }')
    async with running(tmp_path, limits, carrier) as (gateway, _):
        broker = await broker_of(gateway)
        os.kill(broker, signal.SIGSTOP)
        async with httpx.AsyncClient() as client:
            answer = await client.get(gateway.url)
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "budget_store_unavailable"
            assert answer.elapsed.total_seconds() < 5
            os.kill(broker, signal.SIGCONT)
            async with asyncio.timeout(20):
                while (await client.get(gateway.url)).status_code != 200:
                    await asyncio.sleep(0.05)


async def test_a_disk_that_is_full_lends_nothing_and_then_goes_on(tmp_path):
    limits = TEN.replace("}", ', on_outage = "deny" }')
    async with running(tmp_path, limits) as (gateway, _):
        assert await calls(gateway.url, 1) == {200: 1}
        await settled(gateway)
        broker = await broker_of(gateway)
        resource.prlimit(broker, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        assert await calls(gateway.url, 3) == {503: 3}
        resource.prlimit(broker, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        async with asyncio.timeout(20):
            while await calls(gateway.url, 1) != {200: 1}:
                await asyncio.sleep(0.2)
        assert "the journal can't be written" in gateway.logs
        await settled(gateway)
        assert (await calls(gateway.url, 20, parallel=1))[200] == 8
        assert (await settled(gateway))["used"] == 10


async def test_a_reload_keeps_what_is_spent(tmp_path):
    async with running(tmp_path, TEN) as (gateway, upstream):
        assert (await calls(gateway.url, 6, parallel=2))[200] == 6
        await gateway.reload(config(upstream.url, TEN.replace("amount = 10", "amount = 8")))
        assert (await calls(gateway.url, 6))[200] == 2


async def test_who_leaves_early_gives_back_what_was_reserved(tmp_path, carrier):
    limits = '{ name = "open", unit = "concurrency", amount = 1, per = "gateway" }'
    async with running(tmp_path, limits, carrier) as (gateway, upstream):
        upstream.answer(scripts.silence())
        async with httpx.AsyncClient(timeout=1) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.get(gateway.url)
        upstream.answer(*scripts.body(b"ok"))
        async with asyncio.timeout(20):
            while await calls(gateway.url, 1) != {200: 1}:
                await asyncio.sleep(0.1)
