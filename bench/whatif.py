"""How long `tidegate whatif` takes: `uv run python bench/whatif.py [N] [cassettes|har|flows]`.

Two pipelines of six addons, N exchanges (10,000), half of them streamed with 50 events. From
memory, or with a format: read from cassettes, a HAR file or a flow file, in that time as well.
"""

from __future__ import annotations

import asyncio
import atexit
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import orjson

from tidegate.api.recording import Answer, Chunk, Recording
from tidegate.api.types import Principal
from tidegate.cli.recordings import folder_of, read_all, write
from tidegate.cli.whatif import compare
from tidegate.runtime.settings import parse

CONFIG = """
[[addon]]
use = "log-access"
[[addon]]
use = "auth-key"
[[addon]]
use = "limit-rate"
rate = "%s"
[[addon]]
use = "transform-headers"
response = { set = { x-served-by = "%s" } }
[[addon]]
use = "transform-headers"
name = "team"
request = { set = { x-team = "blue" } }
[[addon]]
use = "route-static"
routes = [{ path = "/v1", upstream = "http://127.0.0.1:9" }]
"""
SSE = (("content-type", "text/event-stream"),)
JSON = (("content-type", "application/json"),)


def recordings(count: int) -> list[Recording]:
    """Chat calls of twenty callers, one every 50 ms."""
    body = orjson.dumps({"model": "demo", "messages": [{"role": "user", "content": "word " * 50}]})
    event = b'data: {"choices":[{"delta":{"content":"word"}}]}\n\n'
    streamed = Answer(200, "OK", SSE, chunks=tuple(Chunk(0.01, event) for _ in range(50)))
    whole = Answer(200, "OK", JSON, body)
    return [
        Recording(
            "POST", "http://127.0.0.1/v1/chat/completions", JSON, body,
            streamed if n % 2 else whole, id=f"r{n}", now=1_750_000_000 + n * 0.05, seed=n,
            principal=Principal(f"caller-{n % 20}"),
        )
        for n in range(count)
    ]  # fmt: skip


def from_files(made: list[Recording], kind: str) -> Callable[[], list[Recording]]:
    """Write recordings; what reads them again."""
    folder = Path(tempfile.mkdtemp(prefix="tidegate-bench-"))
    atexit.register(shutil.rmtree, folder)
    if kind == "cassettes":
        folder_of(made, folder)
        return lambda: read_all([folder])
    file = folder / f"all.{kind}"
    write(made, file, kind)
    return lambda: read_all([file])


async def main(count: int, kind: str) -> None:
    settings = [
        parse(CONFIG % (rate, name), base=Path.cwd())
        for rate, name in (("600/min", "a"), ("50/min", "b"))
    ]
    exchanges = recordings(count)
    load = from_files(exchanges, kind) if kind else lambda: exchanges
    began, cpu = time.perf_counter(), time.process_time()
    report = await compare(settings, load())
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    told = {
        "exchanges": count,
        "from": kind or "memory",
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "microseconds_each": round(seconds / count * 1e6, 1),
        "counts": report.counts,
    }
    print(orjson.dumps(told).decode())


if __name__ == "__main__":
    given = (*sys.argv[1:], "", "")
    asyncio.run(main(int(given[0] or 10_000), given[1]))
