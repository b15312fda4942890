"""How long `tidegate whatif` takes for recorded exchanges: `uv run python bench/whatif.py [N]`.

Two pipelines of six addons, half of the calls streamed, from memory: reading files is not in it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import orjson

from tidegate.api.recording import Answer, Chunk, Recording
from tidegate.api.types import Principal
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


async def main(count: int) -> None:
    settings = [
        parse(CONFIG % (rate, name), base=Path.cwd())
        for rate, name in (("600/min", "a"), ("50/min", "b"))
    ]
    exchanges = recordings(count)
    began = time.perf_counter()
    report = await compare(settings, exchanges)
    seconds = time.perf_counter() - began
    told = {
        "exchanges": count,
        "seconds": round(seconds, 2),
        "microseconds_each": round(seconds / count * 1e6, 1),
        "counts": report.counts,
    }
    print(orjson.dumps(told).decode())


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
