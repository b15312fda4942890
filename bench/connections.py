"""Memory of the workers per idle connection and per active stream, and whether all of it is freed.

    uv run python bench/connections.py [--idle 10000] [--streams 5000] [--json FILE]

Idle: a connection that has had one answer and waits. Stream: an event stream that has passed its
first event and waits for the next; it holds a connection on either side. Each is built up twice:
what the second time takes beyond the first would be a leak. After all are closed there must be no
exchange in progress, and no more open files than before but for upstream connections that are kept
for the next exchange. Linux; raises RLIMIT_NOFILE where it may. Exit status 1: a target is missed.
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
from collections import Counter
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
WORKERS: Final = 2
"""A worker admits half as many connections as it may open files."""
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
    """One request; `arrived` is set when `end` has come, or another answer: to its status."""

    transport: Any

    def __init__(self, request: bytes, end: bytes) -> None:
        self._request = request
        self._end = end
        self._data = b""
        self.arrived: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._data += data
        status = self._data[9:12].decode("latin-1")  # of `HTTP/1.1 200`
        refused = len(status) == 3 and status != "200"
        if not self.arrived.done() and (self._end in self._data or refused):
            self.arrived.set_result(status)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.arrived.done():
            self.arrived.set_result("closed")


async def build_up(
    port: int, path: bytes, end: bytes, count: int
) -> tuple[list[Client], Counter[str]]:
    """Open connections until `count` are there; those, and how they were answered."""
    loop = asyncio.get_running_loop()
    request = REQUEST % (path, rig.KEY.encode())
    clients: list[Client] = []
    statuses: Counter[str] = Counter()
    for start in range(0, count, AT_ONCE):
        made = await asyncio.gather(
            *(
                loop.create_connection(lambda: Client(request, end), "127.0.0.1", port)
                for _ in range(min(AT_ONCE, count - start))
            )
        )
        batch = [client for _, client in made]
        async with asyncio.timeout(60):
            statuses.update(await asyncio.gather(*(client.arrived for client in batch)))
        clients += batch
    return clients, statuses


def memory(node: rig.Node) -> int:
    """Bytes of all workers."""
    return sum(map(rig.rss, node.workers))


def open_files(node: rig.Node) -> int:
    """Open files of all workers."""
    return sum(map(rig.open_files, node.workers))


def active(node: rig.Node) -> int:
    """Exchanges in progress."""
    with urllib.request.urlopen(f"{node.status_url}/-/status", timeout=20) as answer:
        return sum(worker["active"] for worker in json.load(answer)["workers"])


async def freed(node: rig.Node, files: int) -> float:
    """Seconds until the workers are where they were. Raises SystemExit."""
    begun = time.monotonic()
    while (held := open_files(node)) > files or active(node):
        if time.monotonic() - begun > FREED:
            raise SystemExit(f"not freed: {held - files} files, {active(node)} exchanges")
        await asyncio.sleep(0.1)
    return time.monotonic() - begun


async def measure(node: rig.Node, kind: bytes, end: bytes, count: int) -> dict[str, Any]:
    """Build up, close, build up again."""
    clients, _ = await build_up(node.port, kind, end, 20)  # what the first exchanges load once
    for client in clients:
        client.transport.abort()
    await asyncio.sleep(1.0)
    files, before = open_files(node), memory(node)
    peaks, seconds = [], 0.0
    refused: Counter[str] = Counter()
    for _ in range(2):
        clients, more = await build_up(node.port, kind, end, count)
        refused += more
        del refused["200"]
        await asyncio.sleep(0.5)
        peaks.append(memory(node))
        for client in clients:
            client.transport.abort()
        # an upstream connection that is kept for the next exchange is no leak
        seconds = max(seconds, await freed(node, files + WORKERS * AT_ONCE))
    return {
        "count": count,
        "refused": refused,
        "bytes_each": round((peaks[0] - before) / count),
        "second_time_bytes_each": round((peaks[1] - peaks[0]) / count),
        "rss_mib": {"before": mib(before), "with": mib(peaks[0]), "after": mib(memory(node))},
        "freed_within_s": round(seconds, 1),
    }


def mib(size: int) -> float:
    return round(size / 2**20, 1)


@contextlib.contextmanager
def serving(root: Path, kind: str) -> Iterator[rig.Node]:
    """A node with room for all, in front of the upstream."""
    port = free_port()
    config = (
        "[gateway.limits]\nconnections = 20000\n\n[gateway.deadlines]\nkeepalive = 600\n\n"
        + rig.policies()
        + '[[addon]]\nuse = "route-static"\nroutes = [{ path = "/", max_connections = 20000, '
        f'upstream = "http://127.0.0.1:{port}", timeouts = {{ idle = 600 }} }}]\n\n' + rig.LOG
    )
    argv = [sys.executable, __file__, "--serve", str(port)]
    with rig.process(argv, port), rig.node(root / kind, config, workers=WORKERS) as node:
        yield node


def bench(options: argparse.Namespace) -> dict[str, Any]:
    limit = rig.raise_file_limit()
    room = limit - 200
    if max(options.idle, options.streams) > room:
        options.idle, options.streams = min(options.idle, room), min(options.streams, room)
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
    table = Table(title=f"Memory of {WORKERS} workers", title_justify="left")
    for column in ("", "count", "KiB each", "target", "2nd time", "MiB with", "after", "freed s"):
        table.add_column(column, justify="right" if column else "left")
    missed = False
    for name, target in (("idle", IDLE_TARGET), ("streams", STREAM_TARGET)):
        row = data[name]
        missed = missed or row["bytes_each"] > target or bool(row["refused"])
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
