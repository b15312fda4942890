"""Bounded memory: a lane in a process of its own, 200 MB past a slow peer, on either side."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tidegate.testing import ScriptedUpstream
from tidegate.testing.script import body, head

from .conftest import Peer

SIZE = 200_000_000
BOUND = 4_000_000
"""Bytes that the process may grow by while 200 MB pass."""

PROGRAM = """
import asyncio, sys
from pathlib import Path
import uvloop
from tidegate.api import Plugin, hook, upstream_from_url
from tidegate.lane import Lane
from tidegate.testing import Harness

class To(Plugin):
    @hook
    def route(self, exchange):
        return UPSTREAM

UPSTREAM = upstream_from_url(sys.argv[1])

async def main():
    async with Harness(To, gateway={"limits": {"body": "1GB"}}) as harness:
        settings = harness.runtime.current.settings
        lane = Lane(harness.runtime, settings)
        listener = settings.gateway.listen[0]
        server = await asyncio.get_running_loop().create_server(
            lambda: lane.protocol(listener), "127.0.0.1", 0
        )
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

uvloop.run(main())
"""


class Process:
    def __init__(self, pid: int, port: int) -> None:
        self.pid = pid
        self.port = port

    def rss(self) -> int:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * 4096

    async def connect(self) -> Peer:
        return Peer(*await asyncio.open_connection("127.0.0.1", self.port, limit=65536))


@pytest_asyncio.fixture
async def process(upstream: ScriptedUpstream) -> AsyncIterator[Process]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, upstream.url, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    upstream.early = True
    try:
        async with asyncio.timeout(30):
            port = int(await child.stdout.readline())
        running = Process(child.pid, port)
        assert (await (await running.connect()).get()).status == 200
        yield running
    finally:
        child.kill()
        await child.wait()


async def test_a_slow_client_does_not_make_the_lane_grow(
    process: Process, upstream: ScriptedUpstream
) -> None:
    async def flood(turn) -> None:
        for _ in range(SIZE // 100_000):
            await turn.write(b"x" * 100_000)

    upstream.answer(head(200, {"content-length": str(SIZE)}), flood)
    before = process.rss()
    peer = await process.connect()
    await peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await peer.head()
    await asyncio.sleep(1.0)
    grown = process.rss() - before
    left, most = SIZE, grown
    while left:
        left -= len(await peer.reader.readexactly(min(left, 1_000_000)))
        most = max(most, process.rss() - before)
    assert most < BOUND, f"{most} bytes"


async def test_a_slow_upstream_does_not_make_the_lane_grow(
    process: Process, upstream: ScriptedUpstream
) -> None:
    async def read_late(turn) -> None:
        await asyncio.sleep(1.0)
        left = SIZE
        while left:
            left -= len(await turn.reader.readexactly(min(left, 1_000_000)))

    upstream.answer(read_late, *body(b"thanks"))
    before = process.rss()
    peer = await process.connect()
    await peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % SIZE)
    most = 0
    for _ in range(SIZE // 1_000_000):
        await peer.send(b"x" * 1_000_000)
        most = max(most, process.rss() - before)
    assert (await peer.answer()).body == b"thanks"
    assert most < BOUND, f"{most} bytes"
