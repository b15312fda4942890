"""What a log line costs on the loop. The write is a thread's, once per batch."""

import asyncio

from tidegate_log_access import LogAccess, LogAccessConfig

from tidegate.api import AddonContext, Attempt, Principal, upstream_from_url
from tidegate.testing import make_answer, make_exchange


def test_log_access(benchmark, tmp_path):
    exchange = make_exchange("POST", "http://api.test/v1/chat/completions", body={"model": "x"})
    exchange.principal = Principal("ci", "platform")
    exchange.response = make_answer()
    exchange.upstream = upstream_from_url("http://127.0.0.1:1", name="openai")
    exchange.attempts = [Attempt(exchange.upstream, 1000.1, ended=1000.35, status=200)]
    exchange.outcome, exchange.first_byte, exchange.ended = "answered", 1000.2, 1000.4
    addon = LogAccess(LogAccessConfig(), AddonContext("log-access", tmp_path))
    with asyncio.Runner() as runner:
        runner.run(addon.startup(None))
        benchmark(addon.log, exchange)
        runner.run(addon.shutdown())
    assert (tmp_path / "access.jsonl").stat().st_size
