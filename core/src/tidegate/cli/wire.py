"""What a supervisor and its workers say to each other: one JSON object a line, on a socket pair.

The supervisor asks (`do`), and where the question has an `id` the worker answers (`re`):

    start {source, revision, state, workers, shared, sockets, slot, log}   first, once
    prepare {source, revision, shared}    load the next configuration beside the current one
    commit / abort                        put it in force / let it go
    stats                                 pid, active, counters, rss
    drain {seconds, last}                 finish what is in progress, then exit; `last`: no
                                          successor takes the sockets

The worker tells (`event`): ready, failed {problems}, drained. A closed channel means that the
other side is gone: a worker without supervisor drains and exits.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Final, Self

import orjson

from tidegate.runtime.problems import Problem

type Message = dict[str, Any]

LONGEST: Final = 64 * 1024 * 1024
"""Bytes of one line: a configuration with 100,000 keys fits."""


class Channel:
    """One end of the socket pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> Self:
        """Take over `end`, a connected stream socket."""
        end.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=end, limit=LONGEST))

    def send(self, message: Message) -> None:
        """Queue a message; to a side that is gone it is dropped."""
        if not self._writer.is_closing():
            self._writer.write(orjson.dumps(message, default=str) + b"\n")

    async def receive(self) -> Message | None:
        """The next message, or None when the other side is gone."""
        try:
            line = await self._reader.readline()
        except (OSError, ValueError):
            return None
        if not line.endswith(b"\n"):
            return None
        message: Message = orjson.loads(line)
        return message

    async def close(self) -> None:
        """Send what is queued, then close."""
        try:
            await self._writer.drain()
            self._writer.close()
            await self._writer.wait_closed()
        except OSError:
            pass


def problems_to_wire(problems: tuple[Problem, ...]) -> list[Message]:
    """Problems as JSON objects: code, message, file, line, hint."""
    return [
        {"code": p.code, "message": p.message, "file": p.file, "line": p.line, "hint": p.hint}
        for p in problems
    ]


def problems_from_wire(items: list[Message]) -> tuple[Problem, ...]:
    """The reverse of `problems_to_wire`."""
    return tuple(Problem(**item) for item in items)
