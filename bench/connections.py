"""Memory of a worker per idle connection and per active stream, and whether all of it is freed.

    uv run python bench/connections.py [--idle 10000] [--streams 5000] [--json FILE]

Idle: a connection that has had one answer and waits. Stream: an event stream that has passed its
first event and waits for the next; it holds a connection on either side. Each is built up twice:
what the second time takes beyond the first would be a leak. After all are closed the worker must
have no exchange in progress and as many open files as before. Linux; raises RLIMIT_NOFILE.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import rig
import uvloop
from lane_cpu import free_port
from rich.console import Console
from rich.table import Table

IDLE_TARGET: Final = 40 * 1024
STREAM_TARGET: Final = 100 * 1024
AT_ONCE: Final = 50
"""Connections that are being made at a time."""
FREED: Final = 30.0
"""Seconds until everything must be freed."""
REQUEST: Final = b"GET /%b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n"
EVENT: Final = b"data: {}\n\n"


class Upstream(asyncio.Protocol):
    """Answers `/idle` with `ok`, anything else with a stream that stays open after one event."""

    transport: Any

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET /idle"):
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            return
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(EVENT), EVENT)
        )


async def serve(port: int) -> None:
    """The upstream, as a process."""
    rig.raise_file_limit()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


class Client(asyncio.Protocol):
    """One request; `arrived` is set with the first bytes of the answer's body."""

    transport: Any

    def __init__(self, request: bytes, end: bytes) -> None:
        self._request = request
        self._end = end
        self._data = b""
        self.arrived: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self.arrived.done() and self._end in self._data:
            self.arrived.set_result(self._data.startswith(b"HTTP/1.1 200 "))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.arrived.done():
            self.arrived.set_result(False)


async def build_up(port: int, path: bytes, end: bytes, count: int) -> tuple[list[Client], int]:
    """Open connections until `count` are there; those, and how many were refused."""
    loop = asyncio.get_running_loop()
    request = REQUEST % (path, rig.KEY.encode())
    clients: list[Client] = []
    refused = 0
    for start in range(0, count, AT_ONCE):
        made = await asyncio.gather(
            *(
                loop.create_connection(lambda: Client(request, end), "127.0.0.1", port)
                for _ in range(min(AT_ONCE, count - start))
            )
        )
        batch = [client for _, client in made]
        async with asyncio.timeout(60):
            refused += (await asyncio.gather(*(client.arrived for client in batch))).count(False)
        clients += batch
    return clients, refused


def active(node: rig.Node) -> int:
    """Exchanges in progress."""
    with urllib.request.urlopen(f"{node.status_url}/-/status", timeout=20) as answer:
        return sum(worker["active"] for worker in json.load(answer)["workers"])


async def freed(node: rig.Node, worker: int, files: int) -> float:
    """Seconds until the worker is where it was. Raises SystemExit."""
    begun = time.monotonic()
    while (held := rig.open_files(worker)) > files or active(node):
        if time.monotonic() - begun > FREED:
            raise SystemExit(f"not freed: {held - files} files, {active(node)} exchanges")
        await asyncio.sleep(0.1)
    return time.monotonic() - begun


async def measure(node: rig.Node, kind: bytes, end: bytes, count: int) -> dict[str, Any]:
    """Build up, close, build up again."""
    worker = node.workers[0]
    clients, _ = await build_up(node.port, kind, end, 20)  # what the first exchanges load once
    for client in clients:
        client.transport.abort()
    await asyncio.sleep(1.0)
    files, before = rig.open_files(worker), rig.rss(worker)
    peaks, refused, seconds = [], 0, 0.0
    for _ in range(2):
        clients, more = await build_up(node.port, kind, end, count)
        refused += more
        await asyncio.sleep(0.5)
        peaks.append(rig.rss(worker))
        for client in clients:
            client.transport.abort()
        # an upstream connection that is kept for the next exchange is no leak
        seconds = max(seconds, await freed(node, worker, files + AT_ONCE))
    return {
        "count": count,
        "refused": refused,
        "bytes_each": round((peaks[0] - before) / count),
        "second_time_bytes_each": round((peaks[1] - peaks[0]) / count),
        "rss_mib": {"before": mib(before), "with": mib(peaks[0]), "after": mib(rig.rss(worker))},
        "freed_within_s": round(seconds, 1),
    }


def mib(size: int) -> float:
    return round(size / 2**20, 1)


@contextlib.contextmanager
def serving(root: Path, kind: str) -> Iterator[rig.Node]:
    """A node with one worker and room for all, in front of the upstream."""
    port = free_port()
    config = (
        "[gateway.limits]\nconnections = 20000\n\n[gateway.deadlines]\nkeepalive = 600\n\n"
        + rig.policies()
        + '[[addon]]\nuse = "route-static"\nroutes = [{ path = "/", max_connections = 20000, '
        f'upstream = "http://127.0.0.1:{port}", timeouts = {{ idle = 600 }} }}]\n\n' + rig.LOG
    )
    argv = [sys.executable, __file__, "--serve", str(port)]
    with rig.process(argv, port), rig.node(root / kind, config) as node:
        yield node


def bench(options: argparse.Namespace) -> dict[str, Any]:
    limit = rig.raise_file_limit()
    room = limit - 200
    if options.idle > room or 2 * options.streams > room:
        options.idle, options.streams = min(options.idle, room), min(options.streams, room // 2)
        print(f"RLIMIT_NOFILE is {limit}: {options.idle} idle, {options.streams} streams")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        with serving(root, "idle") as node:
            idle = uvloop.run(measure(node, b"idle", b"\r\n\r\nok", options.idle))
        with serving(root, "streams") as node:
            streams = uvloop.run(measure(node, b"stream", EVENT, options.streams))
    return {"idle": idle, "streams": streams}


def main() -> None:
    """Measure and tell; exit status 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--streams", type=int, default=5_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        with contextlib.suppress(KeyboardInterrupt):
            uvloop.run(serve(options.serve))
        return
    try:
        data = bench(options)
    except subprocess.SubprocessError as error:
        raise SystemExit(str(error)) from None
    table = Table(title="Memory of a worker", title_justify="left")
    for column in ("", "count", "KiB each", "target", "2nd time", "MiB with", "after", "freed s"):
        table.add_column(column, justify="right" if column else "left")
    missed = False
    for name, target in (("idle", IDLE_TARGET), ("streams", STREAM_TARGET)):
        row = data[name]
        missed = missed or row["bytes_each"] > target or row["refused"] > 0
        table.add_row(
            name, f"{row['count']:,}", f"{row['bytes_each'] / 1024:.1f}", f"{target // 1024}",
            f"{row['second_time_bytes_each'] / 1024:+.1f}", f"{row['rss_mib']['with']:.0f}",
            f"{row['rss_mib']['after']:.0f}", f"{row['freed_within_s']}",
        )  # fmt: skip
    Console(width=110).print(table)
    if options.json:
        options.json.write_text(json.dumps(data, indent=1) + "\n")
    sys.exit(missed)


if __name__ == "__main__":
    main()
