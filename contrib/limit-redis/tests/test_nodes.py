"""The addon with its limits in Redis: two real nodes of two workers each, and outages."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from contextlib import asynccontextmanager

import pytest
from tidegate_limit_quota import LimitQuota, LimitQuotaConfig

from tidegate.testing import Gateway, Harness, ScriptedUpstream, Use, make_exchange
from tidegate.testing.load import calls, until_answered

AMOUNT = 2000
CONFIG = """
[gateway]
workers = 2

[[addon]]
use = "limit-quota"
backend = "{redis}"
webhook = {{ url = "{upstream}/alerts", secret = "s3cret-of-the-hook" }}

[[addon.limits]]
name = "calls"
unit = "requests"
amount = {amount}
window = "month"
per = "gateway"
alert = [50, 100]
on_outage = "deny"

[[addon]]
use = "route-static"
routes = [{{ path = "/", upstream = "{upstream}" }}]
"""


@asynccontextmanager
async def nodes(folder, server):
    async with ScriptedUpstream() as upstream:
        config = CONFIG.format(redis=server.url, upstream=upstream.url, amount=AMOUNT)
        folders = [folder / "one", folder / "two"]
        for one in folders:
            one.mkdir()
        gateways = [Gateway(one, config) for one in folders]
        try:
            await asyncio.gather(*(gateway.__aenter__() for gateway in gateways))
            yield gateways, upstream
        finally:
            await asyncio.gather(*(gateway.__aexit__(None, None, None) for gateway in gateways))


async def quota(gateway, *arguments):
    """`tidegate quota …` in JSON."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tidegate.cli.main", "quota", *arguments, "--json",
        stdout=asyncio.subprocess.PIPE, cwd=gateway.folder,
    )  # fmt: skip
    out, _ = await process.communicate()
    return json.loads(out)


async def account(server):
    """The account, as a node's configuration finds it."""
    limit = {"name": "calls", "unit": "requests", "amount": 1, "window": "month", "per": "gateway"}
    store = LimitQuotaConfig(limits=[limit], backend=server.url).store("limit-quota")
    (one,) = (await asyncio.to_thread(store.status))["accounts"]
    return one


async def settled(server):
    """The account when workers hold nothing of it any more."""
    async with asyncio.timeout(40):
        while (found := await account(server))["lent"]:
            await asyncio.sleep(0.2)
    return found


async def test_two_nodes_have_one_limit_exactly_though_a_worker_and_redis_are_killed(
    tmp_path, own_server
):
    async with nodes(tmp_path, own_server) as ((one, two), upstream):
        answered: Counter[int] = Counter()
        spending = asyncio.gather(*(calls(g.url, 300, found=answered) for g in (one, two)))
        await until_answered(answered, 200)
        victim = (await one.status())["workers"][0]["pid"]
        os.kill(victim, signal.SIGSTOP)  # so that what it holds is known
        lent = (await account(own_server))["lent"]
        os.kill(victim, signal.SIGKILL)
        await until_answered(answered, 400)
        own_server.kill()
        await asyncio.sleep(0.2)
        await asyncio.to_thread(own_server.start)
        await spending
        assert set(answered) <= {0, 200, 503}, "503: nobody to ask, or the machine too busy"
        async with asyncio.timeout(40):
            while (await account(own_server))["used"] < answered[200]:
                await asyncio.sleep(0.2)
        used = (await settled(own_server))["used"]
        # Nothing that was answered is forgotten; beyond that only what was lent is counted.
        assert answered[200] <= used <= answered[200] + answered[0] + lent

        found = Counter({429: 0})
        while found[429] < 10:
            found += await calls(two.url, 100, parallel=10)
        await settled(own_server)
        while found[429] < 20:
            found += await calls(one.url, 10, parallel=1)
        assert found[200] == AMOUNT - used
        await upstream.until(lambda: len(alerts(upstream)) >= 2)
        assert sorted(alerts(upstream)) == [50, 100], "each once, of two nodes of two workers"
        assert (await quota(two, "status"))["accounts"][0]["used"] == AMOUNT
        assert await quota(two, "reset", "calls") == {"reset": 1}
        assert (await calls(one.url, 5, parallel=1))[200] == 5
        assert "s3cret" not in one.logs + two.logs


def alerts(upstream: ScriptedUpstream) -> list[int]:
    """The percentages that the webhook was told."""
    return [r.json()["percent"] for r in upstream.requests if r.target == "/alerts"]


@pytest.mark.parametrize(("on_outage", "status"), [("deny", 503), ("allow", 200)])
async def test_without_redis_a_limit_does_as_it_says(own_server, on_outage, status):
    limit = {"name": "calls", "unit": "requests", "amount": 10, "window": "month",
             "per": "gateway", "on_outage": on_outage}  # fmt: skip
    options = {"limits": [limit], "backend": {"url": own_server.url, "prefix": "tidegate"}}
    async with Harness(Use(LimitQuota, options, name="limit-quota")) as harness:
        answered: Counter[int] = Counter()

        async def send(count: int) -> Counter[int]:
            sent = [await harness.send(make_exchange()) for _ in range(count)]
            found = Counter(exchange.response.status_code for exchange in sent)
            answered.update(found)
            return found

        await send(3)
        await settled(own_server)
        own_server.kill()
        assert await send(3) == {status: 3}
        await asyncio.to_thread(own_server.start)
        async with asyncio.timeout(40):
            while not (await send(1))[429]:
                await asyncio.sleep(0.02)
        async with asyncio.timeout(40):  # what passed meanwhile is charged afterwards
            while (await account(own_server))["used"] < answered[200]:
                await asyncio.sleep(0.1)
        assert (await settled(own_server))["used"] == answered[200] >= 10
        assert status == 200 or answered[200] == 10
