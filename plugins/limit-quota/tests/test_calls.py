"""Calls to models through a real node, with ai-usage: settled with the truth on every way out."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tidegate_limit_quota.protocol import SOCKET, call

from tidegate.testing import Gateway, ScriptedUpstream
from tidegate.testing import script as scripts

CONFIG = """
[gateway]
carrier = "{carrier}"
workers = 1

[[addon]]
use = "limit-quota"
{webhook}

[[addon.limits]]
name = "tokens"
unit = "tokens"
amount = {tokens}
window = "month"
per = "gateway"
alert = [50, 100]

[[addon.limits]]
name = "spend"
unit = "usd"
amount = "{usd}"
window = "day"
per = "gateway"

[[addon]]
use = "ai-usage"
hosts = {{ "127.0.0.1" = "openai" }}
prices = [{{ provider = "openai", input = "10", output = "100" }}]

[[addon]]
use = "route-static"
routes = [{{ path = "/", upstream = "{url}" }}]
"""
ASKED: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Say hello."}]}
USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello."},
            "finish_reason": "stop",
        }
    ],
    "usage": USAGE,
}


@pytest.fixture(params=["lane", "engine"])
def carrier(request):
    return request.param


@asynccontextmanager
async def running(
    folder: Path,
    carrier: str = "lane",
    *,
    tokens: int = 100_000,
    usd: str = "25",
    webhook: str = "",
) -> AsyncIterator[tuple[Gateway, ScriptedUpstream, httpx.AsyncClient]]:
    async with ScriptedUpstream(*scripts.json(CHAT)) as upstream:
        config = CONFIG.format(
            carrier=carrier, url=upstream.url, tokens=tokens, usd=usd, webhook=webhook
        )
        async with (
            Gateway(folder, config) as gateway,
            httpx.AsyncClient(base_url=f"{gateway.url}/v1", timeout=30) as client,
        ):
            yield gateway, upstream, client


async def used(gateway: Gateway) -> dict[str, int]:
    """What is used of each limit, once nothing is lent any more."""
    path = gateway.folder / "state" / "addons" / "limit-quota" / SOCKET
    async with asyncio.timeout(20):
        while True:
            found = (await asyncio.to_thread(call, path, {"status": True}))["accounts"]
            if found and not any(one["lent"] for one in found):
                return {one["limit"]: one["used"] for one in found}
            await asyncio.sleep(0.2)


async def post(client: httpx.AsyncClient, **options: Any) -> httpx.Response:
    """A call's answer; again where the machine is too busy for the broker."""
    while True:
        answer = await client.post("/chat/completions", json=ASKED | options)
        if "budget_store_unavailable" not in answer.text:
            return answer
        await asyncio.sleep(0.2)


async def test_a_whole_answer_is_settled_with_what_the_provider_says(tmp_path, carrier):
    async with running(tmp_path, carrier) as (gateway, _, client):
        assert (await post(client)).status_code == 200
        assert await used(gateway) == {"tokens": 1100, "spend": 20_000_000}


async def test_a_stream_that_its_reader_leaves_is_settled_with_what_crossed(tmp_path, carrier):
    async with running(tmp_path, carrier) as (gateway, upstream, client):
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o",
                 "choices": [{"index": 0, "delta": {"content": "Hello there."}}]}  # fmt: skip
        head = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
        event = scripts.chunk(f"data: {json.dumps(chunk)}\n\n".encode())
        upstream.answer(scripts.head(200, head), event, scripts.silence())
        body = {**ASKED, "stream": True, "max_tokens": 50_000}
        status = 503
        while status == 503:  # the machine is too busy for the broker
            async with client.stream("POST", "/chat/completions", json=body) as answer:
                status = answer.status_code
                assert await anext(answer.aiter_text())
        found = await used(gateway)
        assert 0 < found["tokens"] < 100, "the words that crossed, not what was reserved"
        assert 0 < found["spend"] < 10_000_000


async def test_a_provider_that_fails_costs_nothing(tmp_path, carrier):
    async with running(tmp_path, carrier) as (gateway, upstream, client):
        upstream.answer(*scripts.json({"error": {"message": "overloaded"}}, 500))
        assert (await post(client)).status_code == 500
        upstream.answer(scripts.reset())
        assert (await post(client)).status_code == 502
        assert await used(gateway) == {"tokens": 0, "spend": 0}


async def test_a_spent_budget_answers_402_until_it_begins_anew(tmp_path):
    async with running(tmp_path, usd="0.031") as (gateway, upstream, client):
        statuses = [(await post(client)) for _ in range(3)]
        assert [x.status_code for x in statuses] == [200, 200, 402]
        denied = statuses[-1]
        assert denied.json()["error"]["code"] == "budget_exceeded"
        assert 0 < int(denied.headers["retry-after"]) <= 86_401
        assert denied.headers["ratelimit-policy"] == '"spend";q=31000;qu="usd-micros";w=86400'
        assert len(upstream.requests) == 2
        assert await used(gateway) == {"tokens": 2200, "spend": 40_000_000}


async def test_alerts_are_logged_counted_and_posted_signed_and_again_when_refused(tmp_path):
    async with ScriptedUpstream() as hook:
        hook.answers(scripts.body(b"not now", 503), scripts.body(b"ok"), scripts.body(b"ok"))
        webhook = f'webhook = {{ url = "{hook.url}/alerts", secret = "s3cret-of-the-hook" }}'
        async with running(tmp_path, tokens=2200, webhook=webhook) as (gateway, _, client):
            for _ in range(2):
                assert (await post(client, max_tokens=100)).status_code == 200
                await used(gateway)
            await hook.until(lambda: len(hook.requests) >= 3)
            async with asyncio.timeout(10):
                while (await gateway.counters("limit-quota")).get("alerts_total") != 2:
                    await asyncio.sleep(0.1)
            assert "limit tokens: 100 % are used by all" in gateway.logs
            assert "s3cret" not in gateway.logs
        first, again, last = hook.requests[:3]
        assert first.body == again.body
        event = again.json()
        assert event.pop("at") > 1_750_000_000
        assert event == {
            "event": "quota_threshold", "limit": "tokens", "key": "", "percent": 50,
            "unit": "tokens", "amount": 2200,
        }  # fmt: skip
        assert last.json()["percent"] == 100
        (field,) = last.values("x-tidegate-signature")
        stamp, _, sent = field.removeprefix("t=").partition(",v1=")
        signed = f"{stamp}.".encode() + last.body
        assert sent == hmac.new(b"s3cret-of-the-hook", signed, hashlib.sha256).hexdigest()
