"""What a quota costs on the loop while its lease holds: target 5 µs for an exchange.

uv run pytest bench/test_limit_quota.py -n 0 --benchmark-enable --benchmark-columns=min,median
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tidegate_limit_quota import LimitQuota, LimitQuotaConfig

from tidegate.api import AddonContext, Principal
from tidegate.testing import make_answer, make_exchange
from tidegate.testing.redis import MISSING, RedisServer

REQUESTS = {"name": "calls", "unit": "requests", "amount": 10**9, "window": "day"}
PARALLEL = {"name": "parallel", "unit": "concurrency", "amount": 10**9}
TOKENS = {"name": "tokens", "unit": "tokens", "amount": 10**15,
          "window": "month", "per": "team"}  # fmt: skip
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 100}


@pytest.fixture(params=["node", "redis"])
def backend(request, tmp_path):
    """Who lends: the node, or a Redis of several."""
    if request.param == "node":
        yield None
        return
    if not RedisServer.installed():
        pytest.skip(MISSING)
    with RedisServer(tmp_path) as server:
        yield server.url


@pytest.mark.parametrize(
    "limits",
    [[REQUESTS], [REQUESTS, PARALLEL], [TOKENS]],
    ids=["requests", "requests+concurrency", "tokens"],
)
async def test_reserve_and_settle(benchmark, tmp_path: Path, limits, backend):
    """authorize, and the end of the exchange."""
    config = LimitQuotaConfig(limits=limits, backend=backend)
    addon = LimitQuota(config, AddonContext("limit-quota", tmp_path))
    await addon.startup(None)
    path = "/v1/chat/completions" if limits == [TOKENS] else "/"
    exchange = make_exchange("POST", f"http://api.test{path}", body=CHAT,
                             principal=Principal("ada", "red"))  # fmt: skip
    exchange.response = make_answer()
    for index, limit in enumerate(addon.config.limits):
        key = "red" if limit.per == "team" else "red/ada"
        await addon.leases.acquire(index, key, 1, time.monotonic() + 1)
        lease = addon.leases.current[index, key]
        lease.granted += 10**12
        lease.available += 10**12
        lease.low = 0

    def run():
        assert addon.authorize(exchange) is None
        exchange.endings.pop()(exchange)

    benchmark(run)
    await addon.shutdown()


async def test_tell_the_caller(benchmark, tmp_path: Path):
    """The two fields of one limit."""
    addon = LimitQuota(LimitQuotaConfig(limits=[REQUESTS]), AddonContext("limit-quota", tmp_path))
    await addon.startup(None)
    exchange = make_exchange()
    assert await addon.authorize(exchange) is None
    exchange.response = make_answer()
    fields = exchange.response.data.headers.fields

    def run():
        addon.transform_response(exchange)
        exchange.response.data.headers.fields = fields

    benchmark(run)
    exchange.endings.pop()(exchange)
    await addon.shutdown()
