"""A worker's side of the broker of its node."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import orjson

from tidegate.api.lending import Ask, Granted, Receiver

from . import protocol
from .protocol import connect, dumps

UNREAD: Final = 1024 * 1024
"""Bytes that a worker keeps for a broker that does not read."""

values_of: Final = attrgetter(*(field.name for field in fields(protocol.Ask)))
"""What an `Ask` is on the socket."""


class BrokerBackend:
    """The broker of this node.

    `greeting` is what it is told first: the session of this worker, and its limits.
    """

    RETRY: Final = 0.02
    LONGEST_RETRY: Final = 0.5
    AWAY: Final = 0.5

    def __init__(self, path: Path, greeting: dict[str, Any]) -> None:
        self._path = path
        self._greeting = greeting
        self._writer: asyncio.StreamWriter | None = None
        self._lost_at = -self.AWAY
        self._task: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Also for a moment after the connection was lost: another broker may take over."""
        return self._writer is not None or time.monotonic() - self._lost_at < self.AWAY

    def start(self, receiver: Receiver) -> None:
        self._task = asyncio.create_task(self._run(receiver))

    def ask(self, asks: Sequence[Ask]) -> None:
        writer = self._writer
        if writer is None:
            return
        if writer.transport.get_write_buffer_size() > UNREAD:
            writer.transport.abort()  # it hangs; the next connection says everything again
        else:
            writer.write(dumps({"leases": [values_of(one) for one in asks]}))

    async def stop(self) -> None:
        if self._writer is not None:
            self._writer.write(dumps({"bye": True}))
            self._writer.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, receiver: Receiver) -> None:
        wait = self.RETRY
        while True:
            try:
                reader, writer = await connect(self._path)
            except OSError:
                await asyncio.sleep(wait)
                wait = min(2 * wait, self.LONGEST_RETRY)
                continue
            writer.write(dumps(self._greeting))
            self._writer = writer
            try:
                while line := await reader.readline():
                    message = orjson.loads(line)
                    if "broker" in message:
                        wait = self.RETRY
                        receiver.connected(message["broker"])
                    else:
                        deliver(message, receiver)
            except (OSError, ValueError, TypeError):
                pass  # cut off, or no broker of ours: connect again
            finally:
                self._writer = None
                self._lost_at = time.monotonic()
                writer.close()
            await asyncio.sleep(wait)


def deliver(message: dict[str, Any], receiver: Receiver) -> None:
    """Pass a message of the broker on."""
    for one in message.get("granted", ()):
        receiver.granted(Granted(*one))
    for lease in message.get("gone", ()):
        receiver.gone(lease)
    for lease, number in message.get("failed", ()):
        receiver.failed(lease, number)
    for lease in message.get("recall", ()):
        receiver.recalled(lease)
    for limit, key, percent in message.get("alerts", ()):
        receiver.alerted(limit, key, percent)
