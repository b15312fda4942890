"""Does a worker grow while it works? Minutes of each kind of load, then everything is let go.

    uv run python bench/soak.py [--seconds 60] [--only KIND,…] [--json FILE]

Kinds: requests on kept connections, on fresh ones, WebSocket messages of 4 KiB, bodies of 20 MB
either way. The memory of the worker is read while the load runs; the first third is warm-up, a
line through the rest tells the growth per 10,000 (or over all, where there were fewer). Target:
1 MiB. At the end of each kind no exchange may be in progress, and no file more be open than
before. Linux; needs wrk.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hashlib
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import rig
import uvloop
from connections import active
from lane_cpu import free_port
from rich.console import Console
from rich.table import Table

TARGET: Final = 1.0
"""MiB per 10,000."""
BODY: Final = 20_000_000
MESSAGE: Final = 4096
GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 §1.3."""
TO_UPSTREAM: Final = 8 + MESSAGE
TO_CLIENT: Final = 4 + MESSAGE
KEPT: Final = 70
"""Open files that may be left: idle upstream connections, kept for the next exchange."""

type Load = Callable[[rig.Node, int], Awaitable[int]]


# -- the upstream -------------------------------------------------------------------------------


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection of the upstream."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            fields = dict(line.split(b": ", 1) for line in lines[1:-2])
            left = int(fields.get(b"content-length", b"0"))
            while left:
                left -= len(await reader.read(min(left, 262_144)))
            if b"upgrade" in fields:
                await talk(head, reader, writer)
                break
            size = BODY if head.startswith(b"GET /big") else 1024
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(size // 1000):
                writer.write(b"x" * 1000)
                await writer.drain()
            writer.write(b"x" * (size % 1000))
    writer.close()


async def talk(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A WebSocket that answers each message with one of the same size."""
    key = next(x for x in head.split(b"\r\n") if x.lower().startswith(b"sec-websocket-key"))
    digest = hashlib.sha1(key.partition(b": ")[2] + GUID, usedforsecurity=False).digest()
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % base64.b64encode(digest)
    )
    while True:
        await reader.readexactly(TO_UPSTREAM)
        writer.write(b"\x82\x7e" + MESSAGE.to_bytes(2, "big") + b"y" * MESSAGE)


async def serve(port: int) -> None:
    """The upstream, as a process."""
    server = await asyncio.start_server(answer, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


# -- the loads: each returns how many there were ------------------------------------------------


async def kept(node: rig.Node, seconds: int) -> int:
    return await wrk(node, seconds, fresh=False)


async def fresh(node: rig.Node, seconds: int) -> int:
    return await wrk(node, seconds, fresh=True)


async def wrk(node: rig.Node, seconds: int, *, fresh: bool) -> int:
    with tempfile.TemporaryDirectory() as folder:
        sample = await asyncio.to_thread(
            rig.run_wrk, Path(folder), node.port, "/", connections=32, seconds=seconds, fresh=fresh
        )
    if sample.errors:
        raise SystemExit(f"the load failed: {sample.errors}")
    return sample.count


async def sockets(node: rig.Node, seconds: int) -> int:
    """Messages over 8 WebSockets."""
    until = time.monotonic() + seconds
    frame = b"\x82\xfe" + MESSAGE.to_bytes(2, "big") + bytes(4) + b"z" * MESSAGE

    async def one() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Authorization: Bearer %b\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: %b\r\n\r\n" % (rig.KEY.encode(), base64.b64encode(bytes(16)))
        )
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101 "):
            raise SystemExit(f"no WebSocket: {head!r}")
        count = 0
        while time.monotonic() < until:
            writer.write(frame)
            await reader.readexactly(TO_CLIENT)
            count += 1
        writer.close()
        return count

    return sum(await asyncio.gather(*(one() for _ in range(8))))


async def bodies(node: rig.Node, seconds: int) -> int:
    """20 MB up and 20 MB down in turns, over 4 connections."""
    until = time.monotonic() + seconds
    part = b"b" * 100_000

    async def one() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        key = b"Host: x\r\nAuthorization: Bearer %b\r\n" % rig.KEY.encode()
        count = 0
        while time.monotonic() < until:
            if count % 2:
                writer.write(b"GET /big HTTP/1.1\r\n%b\r\n" % key)
            else:
                writer.write(b"POST / HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n" % (key, BODY))
                for _ in range(BODY // len(part)):
                    writer.write(part)
                    await writer.drain()
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            left = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
            while left:
                left -= len(await reader.read(min(left, 262_144)))
            count += 1
        writer.close()
        return count

    return sum(await asyncio.gather(*(one() for _ in range(4))))


KINDS: Final[dict[str, Load]] = {
    "kept": kept, "fresh": fresh, "websocket": sockets, "bodies": bodies,
}  # fmt: skip


# -- measuring ----------------------------------------------------------------------------------


async def soak(node: rig.Node, load: Load, seconds: int) -> dict[str, Any]:
    """One kind of load: how the worker grew, and whether it let everything go."""
    worker = node.workers[0]
    files = rig.open_files(worker)
    samples: list[tuple[float, int]] = []

    async def watch() -> None:
        begun = time.monotonic()
        while True:
            samples.append((time.monotonic() - begun, rig.rss(worker)))
            await asyncio.sleep(0.25)

    watching = asyncio.create_task(watch())
    count = await load(node, seconds)
    watching.cancel()
    settled = samples[len(samples) // 3 :]
    slope = statistics.linear_regression(*zip(*settled, strict=True)).slope
    growth = slope * samples[-1][0] * min(1.0, 10_000 / count) / 2**20
    await asyncio.sleep(1.0)
    until = time.monotonic() + 10
    while (left := rig.open_files(worker) - files) > KEPT or active(node):
        if time.monotonic() > until:
            raise SystemExit(f"not let go: {left} files, {active(node)} exchanges")
        await asyncio.sleep(0.1)
    return {
        "count": count,
        "growth_mib": round(growth, 3),
        "rss_mib": [round(size / 2**20, 1) for _, size in (samples[0], settled[0], samples[-1])],
        "files_left": left,
    }


def bench(options: argparse.Namespace) -> dict[str, Any]:
    kinds = options.only.split(",") if options.only else list(KINDS)
    rig.raise_file_limit()
    port = free_port()
    config = (
        rig.policies() + '[[addon]]\nuse = "route-static"\nroutes = [{ path = "/", '
        f'upstream = "http://127.0.0.1:{port}", websocket = true, max_connections = 64 }}]\n\n'
        + rig.LOG
    )
    argv = [sys.executable, __file__, "--serve", str(port)]
    with (
        tempfile.TemporaryDirectory() as name,
        rig.process(argv, port),
        rig.node(Path(name) / "node", config) as node,
    ):
        return {kind: uvloop.run(soak(node, KINDS[kind], options.seconds)) for kind in kinds}


def main() -> None:
    """Measure and tell; exit status 1 where a worker grows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--only", default="", help=f"some of {', '.join(KINDS)}")
    parser.add_argument("--target", type=float, default=TARGET, help="MiB per 10,000")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        uvloop.run(serve(options.serve))
        return
    if not shutil.which("wrk"):
        raise SystemExit("needs wrk: apt-get install wrk")
    data = bench(options)
    table = Table(title=f"Growth of a worker in {options.seconds} s of each", title_justify="left")
    for column in ("kind", "count", "MiB per 10,000", "MiB at start, settled, end", "files left"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    for kind, row in data.items():
        sizes = ", ".join(map(str, row["rss_mib"]))
        growth = f"{row['growth_mib']:+.3f}"
        table.add_row(kind, f"{row['count']:,}", growth, sizes, str(row["files_left"]))
    Console(width=110).print(table)
    if options.json:
        options.json.write_text(json.dumps(data, indent=1) + "\n")
    sys.exit(any(row["growth_mib"] > options.target for row in data.values()))


if __name__ == "__main__":
    main()
