"""The addon: collects lines on the loop, hands them over in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from threading import Lock
from typing import Any, Final, Literal

from pydantic import field_validator

from tidegate.api import AddonConfig, AddonContext, Duration, Exchange, Node, Plugin, hook

from .record import FIELDS, SECRET_NAME, encode, headers, query_masked, record
from .writer import Writer

BATCH: Final = 128 * 1024
"""Bytes after which a batch is handed over before its time.

Each hand-over makes a loop under full load wait for the interpreter's lock: with 64 KiB, and one
more system call a batch, an exchange cost 94 us of CPU instead of 83.
"""
CLOSING: Final = 5.0
"""Seconds that shutdown waits for the disk."""


class LogAccessConfig(AddonConfig):
    """The options: where lines go, what is in them, and how long they may wait."""

    file: str = "access.jsonl"
    fields: tuple[str, ...] = FIELDS
    exclude: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    query: Literal["names", "masked"] = "names"
    every: Duration = 0.1

    @field_validator("fields", "exclude")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in FIELDS:
                raise ValueError(f'there is no field "{name}": choose from {", ".join(FIELDS)}')
        return names

    @field_validator("headers")
    @classmethod
    def _harmless(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if SECRET_NAME.search(name):
                raise ValueError(f'"{name}" may hold a credential: it is never logged')
        return names


class LogAccess(Plugin[LogAccessConfig]):
    """One JSON line for each exchange."""

    Config = LogAccessConfig

    def __init__(self, config: LogAccessConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        self._fields = tuple(n for n in config.fields if n not in config.exclude)
        self._headers = tuple(name.lower() for name in config.headers)
        self._plain = self._fields == FIELDS and not self._headers and config.query == "names"
        path = None if config.file == "-" else context.state / config.file
        self._place = "standard output" if path is None else str(path)
        self._lock = Lock()
        self._writer = Writer(path, self._lost, context.log)
        self._lines: list[bytes] = []
        self._size = 0
        self._loop: asyncio.AbstractEventLoop
        self._timer: asyncio.TimerHandle | None = None

    @hook
    def bootstrap(self, node: Node) -> None:
        """Say where the lines go."""
        node.announce("access_log", self._place)

    @hook
    async def startup(self, previous: Plugin[Any] | None) -> None:
        """Open the file. One that can't be opened costs lines, never answers."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._writer.start)

    @hook
    def log(self, exchange: Exchange) -> None:
        """Put the exchange's line into the batch."""
        if self._writer.broken:
            self._lost(1)
            self._writer.probe()
            return
        line = encode(record(exchange) if self._plain else self._chosen(exchange))
        self._lines.append(line)
        self._size += len(line)
        if self._size >= BATCH:
            self._flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(self.config.every, self._flush)

    def _chosen(self, exchange: Exchange) -> dict[str, Any]:
        """The record as the options want it."""
        whole: Mapping[str, Any] = record(exchange)
        chosen = {name: whole[name] for name in self._fields}
        if "query" in chosen and self.config.query == "masked":
            chosen["query"] = query_masked(exchange.request.data.path)
        if self._headers:
            chosen["headers"] = headers(exchange, self._headers)
        return chosen

    @hook
    async def shutdown(self) -> None:
        """Write what is left."""
        self._flush()
        if not await asyncio.to_thread(self._writer.close, CLOSING):
            self.context.log.warning("the last lines were not written in %g s", CLOSING)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines:
            self._writer.put(b"".join(self._lines))
            self._lines.clear()
            self._size = 0

    def _lost(self, lines: int) -> None:
        """Count lines that are in no file. Called from the loop and from the writer's thread."""
        with self._lock:
            self.context.counters.add("lines_lost_total", lines)
