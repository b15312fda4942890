"""Workers that are replaced, stopped and drained under load: nobody who was let in is let down."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tidegate.testing import Gateway, ScriptedUpstream
from tidegate.testing.script import body, sleep, sse

from .raw import Raw

START = Callable[..., Awaitable[Gateway]]
PROOF = Path(__file__).parents[2] / "bench" / "proof_reload.py"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def config(upstream: ScriptedUpstream, *, workers: int = 1) -> str:
    return (
        f'[gateway]\nworkers = {workers}\n\n[gateway.deadlines]\ndrain = "5s"\n\n'
        '[[addon]]\nuse = "route-static"\n'
        f'routes = [{{ path = "/", upstream = "{upstream.url}" }}]\n'
    )


async def pids(running: Gateway) -> set[int]:
    return {w["pid"] for w in (await running.status())["workers"] if w["ready"]}


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(30):
        with suppress(ProcessLookupError):
            while True:
                os.kill(pid, 0)
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("kind", ["lane", "engine"])
async def test_reloads_and_rolling_restarts_under_load_fail_no_request(kind: str) -> None:
    """The full count is `bench/proof_reload.py` without arguments."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(PROOF), "--carrier", kind),
        *("--requests", "500", "--reloads", "3", "--restarts", "1", "--json", "-"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, out.decode() + errors.decode()
    result = json.loads(out)
    assert result["requests"] >= 500
    assert (result["reloads"], result["restarts"], result["failed"]) == (3, 1, 0)


async def queue(running: Gateway, count: int) -> list[Raw]:
    """Connections with a request on each, that nobody has accepted yet."""
    waiting = [Raw(running.url) for _ in range(count)]
    for raw in waiting:
        await raw.__aenter__()
        await raw.send(GET)
    return waiting


async def answers(waiting: list[Raw]) -> set[tuple[int, bytes]]:
    found = await asyncio.gather(*(raw.answer() for raw in waiting))
    for raw in waiting:
        raw.writer.close()
    return {(answer.status, answer.body) for answer in found}


async def test_connections_that_wait_for_a_stopped_worker_are_taken_by_its_successor(
    gateway: START, upstream: ScriptedUpstream, carrier: str
) -> None:
    running = await gateway(config(upstream), carrier=carrier)
    [old] = await pids(running)
    os.kill(old, signal.SIGSTOP)
    waiting = await queue(running, 100)
    os.kill(running.pid, signal.SIGUSR2)
    assert await answers(waiting) == {(200, b"ok")}
    assert old not in await pids(running)
    await until_gone(old)  # it never heard that it shall drain: it is killed in the end


async def test_connections_that_wait_when_a_worker_is_killed_are_taken_by_its_successor(
    gateway: START, upstream: ScriptedUpstream, carrier: str
) -> None:
    running = await gateway(config(upstream), carrier=carrier)
    [old] = await pids(running)
    os.kill(old, signal.SIGSTOP)
    waiting = await queue(running, 100)
    os.kill(old, signal.SIGKILL)
    assert await answers(waiting) == {(200, b"ok")}


async def test_connections_that_wait_when_the_node_stops_are_answered(
    gateway: START, upstream: ScriptedUpstream, carrier: str
) -> None:
    running = await gateway(config(upstream), carrier=carrier)
    [worker] = await pids(running)
    os.kill(worker, signal.SIGSTOP)
    waiting = await queue(running, 100)
    stopping = asyncio.create_task(running.stop())
    await asyncio.sleep(0.3)  # the supervisor has told the worker, who has not heard it
    os.kill(worker, signal.SIGCONT)
    assert await answers(waiting) == {(200, b"ok")}
    assert await stopping == 0


async def test_a_node_that_stops_lets_nobody_in(
    gateway: START, upstream: ScriptedUpstream, carrier: str
) -> None:
    upstream.answer(sleep(2.5), *body(b"slow"))
    running = await gateway(config(upstream), carrier=carrier)
    async with Raw(running.url) as slow:
        await slow.send(GET)
        await upstream.until(lambda: bool(upstream.requests))
        stopping = asyncio.create_task(running.stop())
        await asyncio.sleep(1.5)
        with pytest.raises(ConnectionRefusedError):  # at once: not after it has waited in vain
            await asyncio.wait_for(Raw(running.url).__aenter__(), 5)
        assert (await slow.answer()).body == b"slow"
        assert await stopping == 0


async def test_an_idle_connection_gets_a_last_call(
    gateway: START, upstream: ScriptedUpstream, carrier: str
) -> None:
    running = await gateway(config(upstream), carrier=carrier)
    async with Raw(running.url) as raw:
        await raw.send(GET)
        assert (await raw.answer()).get("connection") is None
        stopping = asyncio.create_task(running.stop())
        await asyncio.sleep(0.1)
        await raw.send(GET)
        answer = await raw.answer()
        assert (answer.status, answer.get("connection")) == (200, "close")
        assert await raw.closed()
    assert await stopping == 0


async def test_a_connection_whose_answer_began_before_the_drain_is_heard_once_more(
    gateway: START, upstream: ScriptedUpstream, carrier: str
) -> None:
    upstream.answers(sse("1", "2", "3", pause=0.3), body(b"more"))
    running = await gateway(config(upstream), carrier=carrier)
    async with Raw(running.url) as raw:
        await raw.send(GET)
        answering = asyncio.create_task(raw.answer())
        await upstream.until(lambda: bool(upstream.requests))
        await asyncio.sleep(0.2)  # the head has left, without `Connection: close`
        stopping = asyncio.create_task(running.stop())
        assert (await answering).body.endswith(b"data: [DONE]\n\n")
        await raw.send(GET)
        answer = await raw.answer()
        assert (answer.body, answer.get("connection")) == (b"more", "close")
    assert await stopping == 0
