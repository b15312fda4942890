"""Writes one line of JSON for each exchange to a file, away from the traffic."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Final

from tidegate.api import AddonConfig, AddonContext, Exchange, Plugin, hook

BATCH: Final = 500
"""Lines that are written at once."""
CLOSING: Final = 5.0
"""Seconds that shutdown waits for the last lines."""


class MyPolicyConfig(AddonConfig):
    """The options of an `[[addon]]` table."""

    file: Path = Path("exchanges.jsonl")
    queue: int = 10_000


class MyPolicy(Plugin[MyPolicyConfig]):
    """Writes one line of JSON for each exchange to a file, away from the traffic."""

    Config = MyPolicyConfig

    def __init__(self, config: MyPolicyConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        self._path = context.state / config.file
        self._lines: asyncio.Queue[str] = asyncio.Queue(config.queue)
        self._writer: asyncio.Task[None]

    @hook
    async def startup(self, previous: Plugin[Any] | None) -> None:
        """Start the writer. A file that can't be written costs lines, never answers."""
        self._writer = asyncio.create_task(self._write())

    @hook
    def log(self, exchange: Exchange) -> None:
        """Queue a line. It holds no field value and no query: those may be secret."""
        line = {
            "id": exchange.id,
            "time": exchange.now,
            "caller": exchange.principal.id if exchange.principal else None,
            "method": exchange.request.method,
            "path": exchange.path,
            "status": exchange.status,
            "outcome": exchange.outcome,
            "code": exchange.denial.code if exchange.denial else None,
            "ms": round((exchange.ended - exchange.started) * 1000, 1),
        }
        try:
            self._lines.put_nowait(json.dumps(line) + "\n")
        except asyncio.QueueFull:
            self.context.counters.add("lines_dropped_total")

    @hook
    async def shutdown(self) -> None:
        """Write what is left, for a while."""
        try:
            await asyncio.wait_for(self._lines.join(), CLOSING)
        except TimeoutError:
            self.context.counters.add("lines_dropped_total", self._lines.qsize())
        self._writer.cancel()

    async def _write(self) -> None:
        while True:
            lines = [await self._lines.get()]
            while len(lines) < BATCH and not self._lines.empty():
                lines.append(self._lines.get_nowait())
            try:
                await asyncio.to_thread(append, self._path, "".join(lines))
            except OSError as error:
                self.context.counters.add("lines_lost_total", len(lines))
                self.context.log.warning("%d lines are lost: %s", len(lines), error)
            for _ in lines:
                self._lines.task_done()


def append(path: Path, text: str) -> None:
    """Add text to the end of a file. Opened each time, so that the file may be rotated away."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
