"""Reloads and rolling restarts under load: how many requests fail. The answer has to be none.

    uv run python bench/proof_reload.py [--carrier lane|engine] [--requests 10000]
        [--reloads 20] [--restarts 3] [--workers 2] [--json FILE|-]

A node runs with two workers in front of an upstream that answers at once, late, or with an event
stream. Clients send on connections that they keep (and give up when an answer says
`Connection: close`, as HTTP/1.1 asks for) or open for each request; none ever sends a request
twice. Meanwhile the configuration is edited and SIGUSR2 replaces all workers. A request fails if
its answer is cut, has another status than 200, or does not carry the mark of a configuration that
was in force when it began or later. Exit status 1 if one does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from tidegate.testing import Gateway, ScriptedUpstream
from tidegate.testing.script import Action, Received, body, sleep, sse

RESULTS: Final = Path(__file__).parent / "results" / "reload.json"
KEPT: Final = 12
"""Clients that keep their connection."""
FRESH: Final = 4
"""Clients with a connection for each request."""
PATHS: Final = ("/fast", "/fast", "/late", "/fast", "/stream")
LIMIT: Final = 30.0
"""Seconds that an answer may take."""


@dataclass
class Proof:
    """What has happened so far."""

    wanted: int
    mark: int = 0
    """The configuration that is surely in force."""
    changed: bool = False
    """Whether all reloads and restarts are done."""
    requests: int = 0
    failures: list[str] = field(default_factory=list)
    reconnects: int = 0

    @property
    def done(self) -> bool:
        """Whether the load may end."""
        return self.changed and self.requests >= self.wanted


def config(upstream: str, carrier: str, workers: int, mark: int) -> str:
    """A configuration that marks every answer."""
    return (
        f'[gateway]\ncarrier = "{carrier}"\nworkers = {workers}\n\n'
        '[[addon]]\nuse = "transform-headers"\n'
        f'response = {{ set = {{ x-mark = "{mark}" }} }}\n\n'
        '[[addon]]\nuse = "route-static"\n'
        f'routes = [{{ path = "/", upstream = "{upstream}" }}]\n'
    )


def script(request: Received) -> tuple[Action, ...]:
    """What the upstream does."""
    match request.target:
        case "/late":
            return (sleep(0.03), *body(b"ok"))
        case "/stream":
            return sse("1", "2", "3", "4", pause=0.03)
        case _:
            return body(b"ok")


# -- the load -----------------------------------------------------------------------------------


class Connection:
    """One client connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def get(self, path: str, *, keep: bool) -> tuple[int, int, bytes]:
        """Status, mark and body. Raises OSError or EOFError where the answer is cut."""
        if self._reader is None or self._writer is None:
            opening = asyncio.open_connection("127.0.0.1", self._port)
            self._reader, self._writer = await opening
        more = "" if keep else "Connection: close\r\n"
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
        content = b""
        if fields.get("transfer-encoding") == "chunked":
            while size := int(await self._reader.readline(), 16):
                content += (await self._reader.readexactly(size + 2))[:-2]
            await self._reader.readline()
        else:
            content = await self._reader.readexactly(int(fields["content-length"]))
        if not keep or fields.get("connection") == "close":
            self.close()
        return int(head.split(" ", 2)[1]), int(fields.get("x-mark", "-1")), content

    @property
    def open(self) -> bool:
        """Whether the next request goes over the same connection."""
        return self._writer is not None

    def close(self) -> None:
        """The next request goes over a new one."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


async def client(proof: Proof, port: int, number: int, *, keep: bool) -> None:
    """Ask, one request after the other, until the proof is done."""
    connection = Connection(port)
    turn = number
    while not proof.done:
        path = PATHS[turn % len(PATHS)]
        turn += 1
        mark = proof.mark
        try:
            async with asyncio.timeout(LIMIT):
                status, seen, content = await connection.get(path, keep=keep)
        except (OSError, EOFError, ValueError, KeyError) as error:
            proof.failures.append(f"{path}: {type(error).__name__}: {error}")
            connection.close()
            continue
        proof.requests += 1
        if status != 200 or seen < mark or not content.endswith((b"ok", b"data: [DONE]\n\n")):
            proof.failures.append(f"{path}: status {status}, mark {seen} of {mark}")
        proof.reconnects += keep and not connection.open
        await asyncio.sleep(0.002)
    connection.close()


# -- the changes --------------------------------------------------------------------------------


async def restart(gateway: Gateway) -> None:
    """Have every worker replaced."""

    async def workers() -> set[int]:
        return {w["pid"] for w in (await gateway.status())["workers"] if w["ready"]}

    before = await workers()
    os.kill(gateway.pid, signal.SIGUSR2)
    async with asyncio.timeout(120):
        while True:
            now = await workers()
            if len(now) >= len(before) and not now & before:
                return
            await asyncio.sleep(0.2)


async def change(proof: Proof, gateway: Gateway, text: Callable[[int], str], options: Any) -> None:
    """Do the reloads, with the restarts among them."""
    every = max(1, options.reloads // (options.restarts + 1))
    restarts = 0
    for mark in range(1, options.reloads + 1):
        await gateway.reload(text(mark))
        proof.mark = mark
        await asyncio.sleep(0.1)
        if mark % every == 0 and restarts < options.restarts:
            restarts += 1
            await restart(gateway)
    for _ in range(options.restarts - restarts):
        await restart(gateway)
    proof.changed = True


async def prove(carrier: str, options: Any) -> dict[str, Any]:
    """The outcome on one carrier."""
    proof = Proof(options.requests)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        async with ScriptedUpstream() as upstream:
            upstream.handle(script)
            text = partial(config, upstream.url, carrier, options.workers)
            async with Gateway(Path(folder), text(0)) as gateway:
                port = int(gateway.url.rpartition(":")[2])
                async with asyncio.TaskGroup() as group:
                    for number in range(KEPT + FRESH):
                        group.create_task(client(proof, port, number, keep=number < KEPT))
                    await change(proof, gateway, text, options)
                status = await gateway.stop()
    if status != 0:
        proof.failures.append(f"the node ended with status {status}")
    return {
        "carrier": carrier,
        "requests": proof.requests,
        "reloads": options.reloads,
        "restarts": options.restarts,
        "workers": options.workers,
        "failed": len(proof.failures),
        "failures": proof.failures[:20],
        "told_to_reconnect": proof.reconnects,
        "seconds": round(time.monotonic() - started, 1),
    }


def main() -> None:
    """Prove it, print the outcome, keep it where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--carrier", choices=("lane", "engine", "both"), default="both")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--reloads", type=int, default=20)
    parser.add_argument("--restarts", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", default="", help=f"such as {RESULTS.name}; - is standard output")
    options = parser.parse_args()
    carriers = ("lane", "engine") if options.carrier == "both" else (options.carrier,)
    results = [asyncio.run(prove(carrier, options)) for carrier in carriers]
    text = json.dumps(results if len(results) > 1 else results[0], indent=2) + "\n"
    if options.json == "-":
        print(text, end="")
    else:
        for result in results:
            print("  ".join(f"{name}: {value}" for name, value in result.items()))
        if options.json:
            Path(options.json).write_text(text)
    sys.exit(any(result["failed"] for result in results))


if __name__ == "__main__":
    main()
