"""The node as a whole: limits over workers, reloads under load, drain."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import httpx
import pytest

from tidegate.testing import Gateway, ReloadRefused, ScriptedUpstream
from tidegate.testing.script import body, chunk, head, last_chunk, sleep

START = Callable[..., Awaitable[Gateway]]


def config(
    upstream: ScriptedUpstream, *, workers: int = 2, extra: str = "", mark: str = "a"
) -> str:
    return (
        f"[gateway]\nworkers = {workers}\n\n{extra}"
        '[[addon]]\nuse = "transform-headers"\n'
        f'response = {{ set = {{ x-mark = "{mark}" }} }}\n\n'
        '[[addon]]\nuse = "route-static"\n'
        f'routes = [{{ path = "/", upstream = "{upstream.url}" }}]\n'
    )


async def test_two_workers_hold_the_limit_of_the_node(
    gateway: START, upstream: ScriptedUpstream, carrier: str
) -> None:
    limit = '[[addon]]\nuse = "limit-rate"\nrate = "40/h"\nper = "gateway"\n\n'
    running = await gateway(config(upstream, extra=limit), carrier=carrier)
    seen: Counter[int] = Counter()
    for _ in range(200):  # a connection each, so that both workers get their share
        async with httpx.AsyncClient() as client:
            answer = await client.get(running.url, headers={"connection": "close"})
            seen[answer.status_code] += 1
    assert set(seen) == {200, 429}
    assert seen[200] <= 40
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "rate_limited"
    assert int(answer.headers["retry-after"]) >= 1


async def test_reloads_under_load_drop_nothing(
    gateway: START, upstream: ScriptedUpstream, carrier: str
) -> None:
    upstream.answer(sleep(0.005), *body(b"ok"))
    running = await gateway(config(upstream), carrier=carrier)
    failures: list[object] = []
    seen: Counter[str] = Counter()
    done = asyncio.Event()

    async def load() -> None:
        async with httpx.AsyncClient(timeout=30) as client:
            while not done.is_set():
                try:
                    answer = await client.get(running.url)
                except httpx.HTTPError as error:
                    failures.append(error)
                    continue
                if answer.status_code != 200 or "x-mark" not in answer.headers:
                    failures.append(answer)
                seen[answer.headers["x-mark"]] += 1

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(load()) for _ in range(6)]
        for mark in "bcdef":
            await running.reload(config(upstream, mark=mark))
            await asyncio.sleep(0.2)
        done.set()
        del tasks
    assert failures == []
    assert set("bcde") <= set(seen)


async def test_a_bad_edit_is_refused_and_the_old_pipeline_stays(
    gateway: START, upstream: ScriptedUpstream, carrier: str
) -> None:
    running = await gateway(config(upstream), carrier=carrier)
    bad = config(upstream, mark="b").replace("response =", "respons =")
    with pytest.raises(ReloadRefused) as refused:
        await running.reload(bad)
    [problem] = refused.value.problems
    assert problem["line"] > 0
    assert "response" in problem["hint"]
    with pytest.raises(ReloadRefused):
        await running.reload(config(upstream) + "[[addon\n")
    async with httpx.AsyncClient() as client:
        answer = await client.get(running.url)
    assert (answer.status_code, answer.headers["x-mark"]) == (200, "a")
    await running.reload(config(upstream, mark="c"))
    async with httpx.AsyncClient() as client:
        assert (await client.get(running.url)).headers["x-mark"] == "c"


async def test_a_drain_lets_a_stream_end(
    gateway: START, upstream: ScriptedUpstream, carrier: str
) -> None:
    upstream.answer(
        head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"}),
        *[chunk(b"data: x\n\n"), sleep(0.1)] * 15, last_chunk(),
    )  # fmt: skip
    running = await gateway(config(upstream, workers=1), carrier=carrier)
    async with httpx.AsyncClient(timeout=30) as client, client.stream("GET", running.url) as answer:
        events = answer.aiter_text()
        first = await anext(events)
        stopping = asyncio.create_task(running.stop())
        rest = "".join([part async for part in events])
    assert (first + rest).count("data: x") == 15
    assert await stopping == 0


async def test_a_key_goes_no_further(
    gateway: START, upstream: ScriptedUpstream, carrier: str
) -> None:
    auth = '[[addon]]\nuse = "auth-key"\nquery = ["key"]\n\n'
    running = await gateway(config(upstream, extra=auth), carrier=carrier)
    key = running.api_key
    assert key is not None
    async with httpx.AsyncClient() as client:
        for request in (
            client.build_request("GET", running.url, headers={"authorization": f"Bearer {key}"}),
            client.build_request("GET", running.url, headers={"x-api-key": key}),
            client.build_request("GET", f"{running.url}/?a=1&key={key}&b=%20"),
        ):
            assert (await client.send(request)).status_code == 200
        refused = await client.get(running.url, headers={"x-api-key": key[:-1]})
    assert refused.status_code == 401
    assert len(upstream.requests) == 3
    assert all(key.encode() not in request.raw for request in upstream.requests)
    assert upstream.requests[-1].target == "/?a=1&b=%20"
