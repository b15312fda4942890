"""What a node must withstand: slow clients, many of them, clients that leave, a drain under load.

The counts are small; the commands in `bench/` that some tests run take the full ones.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import httpx
import pytest

from tidegate.testing import Gateway, ScriptedUpstream
from tidegate.testing.script import Action, body, chunk, head, send, silence, sse

from .raw import Raw

START = Callable[..., Awaitable[Gateway]]
BENCH = Path(__file__).parents[2] / "bench"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4096\r\n\r\n"
STREAM = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
SLOW = ("-c", "100", "-r", "100", "-i", "5", "-l", "30", "-x", "1")
"""100 connections, a byte each 5 s, for 30 s at most."""

needs_slowhttptest = pytest.mark.skipif(
    shutil.which("slowhttptest") is None, reason="apt-get install slowhttptest"
)
needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="apt-get install wrk")


def config(upstream: ScriptedUpstream, **deadlines: str) -> str:
    lines = "".join(f'{name} = "{value}"\n' for name, value in deadlines.items())
    return (
        f"[gateway]\nworkers = 1\n\n[gateway.deadlines]\n{lines}\n"
        '[[addon]]\nuse = "route-static"\n'
        f'routes = [{{ path = "/", upstream = "{upstream.url}" }}]\n\n'
        '[[addon]]\nuse = "log-access"\n'
    )


async def run(*argv: str) -> tuple[int, str]:
    """A program's exit status and what it wrote."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), 100)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return process.returncode, out.decode(errors="replace")


# -- slow clients -------------------------------------------------------------------------------


@needs_slowhttptest
@pytest.mark.parametrize("mode", ["-H", "-B"], ids=["heads", "bodies"])
async def test_slow_clients_are_sent_away_and_others_do_not_notice(
    gateway: START, upstream: ScriptedUpstream, carrier: str, mode: str
) -> None:
    running = await gateway(config(upstream, head="2s", body="2s"), carrier=carrier)
    attack = asyncio.create_task(run("slowhttptest", mode, *SLOW, "-u", running.url))
    async with httpx.AsyncClient(timeout=10) as client:
        while not attack.done():
            assert (await client.get(running.url)).status_code == 200
            await asyncio.sleep(0.1)
    _, told = await attack
    assert "No open connections left" in told  # rather than the limit of its time


@pytest.mark.parametrize(
    "request_", [b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ", POST], ids=["head", "body"]
)
async def test_a_request_that_does_not_come_is_408(
    gateway: START, upstream: ScriptedUpstream, carrier: str, request_: bytes
) -> None:
    running = await gateway(config(upstream, head="1s", body="1s"), carrier=carrier)
    async with Raw(running.url) as raw:
        await raw.send(request_)
        answer = await raw.answer()
        assert answer.status == 408
        assert json.loads(answer.body)["error"]["code"] == "request_timeout"
        assert await raw.closed()


async def test_a_body_that_trickles_is_408_though_it_never_pauses_for_long(
    gateway: START, upstream: ScriptedUpstream, carrier: str
) -> None:
    running = await gateway(config(upstream), carrier=carrier)
    async with Raw(running.url) as raw:
        await raw.send(POST)
        answering = asyncio.create_task(raw.answer())
        async with asyncio.timeout(30):
            while not answering.done():
                raw.writer.write(b"x")
                await asyncio.sleep(0.2)
        assert (await answering).status == 408


# -- many, and for long -------------------------------------------------------------------------


async def test_idle_connections_and_streams_are_cheap_and_all_freed() -> None:
    """The full counts are `bench/connections.py` without arguments."""
    status, told = await run(
        sys.executable, str(BENCH / "connections.py"), "--idle", "500", "--streams", "300"
    )
    assert status == 0, told


@needs_wrk
async def test_a_worker_does_not_grow_under_load_and_lets_everything_go() -> None:
    """The full time is `bench/soak.py` without arguments."""
    status, told = await run(
        sys.executable, str(BENCH / "soak.py"), "--seconds", "4", "--target", "2"
    )
    assert status == 0, told


# -- clients that leave -------------------------------------------------------------------------

LEAVING: dict[str, tuple[Sequence[Action], bytes]] = {
    "before the answer": ((silence(),), b""),
    "in a stream": ((head(200, STREAM), chunk(b"data: 1\n\n"), silence()), b"data: 1"),
    "in a body": ((head(200, {"content-length": "200000"}), send(b"half"), silence()), b"half"),
}


def log_lines(running: Gateway) -> list[dict[str, object]]:
    file = running.folder / "state" / "addons" / "log-access" / "access.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


async def one_line(running: Gateway) -> None:
    """Until an exchange is in the log."""
    async with asyncio.timeout(10):
        while True:
            if log_lines(running):
                return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("when", LEAVING)
async def test_a_client_that_leaves_ends_the_attempt_and_is_logged_once(
    gateway: START, upstream: ScriptedUpstream, carrier: str, when: str
) -> None:
    script, seen = LEAVING[when]
    upstream.answer(*script)
    running = await gateway(config(upstream), carrier=carrier)
    async with Raw(running.url) as raw:
        await raw.send(GET)
        await upstream.until(lambda: len(upstream.requests) == 1)
        if seen:
            await asyncio.wait_for(raw.reader.readuntil(seen), 20)
        raw.writer.transport.abort()
        left = time.monotonic()
        await upstream.until(lambda: upstream.open == 0)
        assert time.monotonic() - left < 2  # 5 ms on a machine at rest
    await one_line(running)
    upstream.answer(*body(b"next"))
    async with Raw(running.url) as raw:
        await raw.send(GET)
        assert (await raw.answer()).body == b"next"
    assert await running.stop() == 0
    outcomes = [line["outcome"] for line in log_lines(running)]
    assert outcomes == ["client_cancelled", "answered"]


# -- the drain ----------------------------------------------------------------------------------


async def not_ready(running: Gateway) -> None:
    """Until the node says that it takes no more."""
    async with httpx.AsyncClient() as client, asyncio.timeout(10):
        while True:
            if (await client.get(f"{running.status_url}/-/ready")).status_code == 503:
                return
            await asyncio.sleep(0.02)


async def ask_until_told_to_go(running: Gateway) -> int:
    """Requests on one connection; how many were answered before `Connection: close`."""
    count = 0
    async with Raw(running.url) as raw:
        while True:
            await raw.send(b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = await raw.answer()
            assert (answer.status, answer.body) == (200, b"ok")
            count += 1
            if answer.get("connection") == "close":
                return count
            await asyncio.sleep(0.02)


async def read_stream(running: Gateway) -> bytes:
    async with Raw(running.url) as raw:
        await raw.send(GET)
        return (await raw.answer()).body


async def test_a_drain_under_load_drops_nothing(
    gateway: START, upstream: ScriptedUpstream, carrier: str
) -> None:
    stream = sse(*map(str, range(15)), pause=0.2)
    upstream.handle(lambda request: body(b"ok") if request.target == "/quick" else stream)
    running = await gateway(config(upstream), carrier=carrier)
    async with asyncio.TaskGroup() as group:
        streams = [group.create_task(read_stream(running)) for _ in range(100)]
        asking = [group.create_task(ask_until_told_to_go(running)) for _ in range(8)]
        await upstream.until(
            lambda: sum(request.target == "/" for request in upstream.requests) == 100, 30
        )
        stopping = group.create_task(running.stop())
        await not_ready(running)
        assert not any(task.done() for task in streams)
    assert stopping.result() == 0
    assert all(task.result() > 0 for task in asking)
    assert {task.result().count(b"data: ") for task in streams} == {16}
    assert all(task.result().endswith(b"data: [DONE]\n\n") for task in streams)


async def test_after_the_deadline_of_a_drain_streams_end_with_an_error_event(
    gateway: START, upstream: ScriptedUpstream, carrier: str
) -> None:
    upstream.answer(head(200, STREAM), chunk(b"data: 1\n\n"), silence())
    running = await gateway(config(upstream, drain="1s"), carrier=carrier)
    raws = [Raw(running.url) for _ in range(5)]
    for raw in raws:
        await raw.__aenter__()
        await raw.send(GET)
        await asyncio.wait_for(raw.reader.readuntil(b"data: 1"), 20)
    assert await running.stop() == 0
    for raw in raws:
        rest = await asyncio.wait_for(raw.reader.read(), 20)
        assert b"server_draining" in rest
        assert b"[DONE]" not in rest
        assert not rest.endswith(b"0\r\n\r\n")  # without the end of a complete answer
        raw.writer.close()
