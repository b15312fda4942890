"""The companions of a node, as its supervisor sees them: processes in which addons serve.

A companion listens on a socket of the node (`Node.serve`), as a worker does, and is started again
when it dies. A new configuration gets a new one, on the same socket, before the old one leaves.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Final

from .process import WorkerProcess
from .slots import Slot
from .wire import Message

MODULE: Final = "tidegate.cli.companion"

type Key = tuple[str, str]
"""The addon's name, and the address that it asked for."""


class Companions:
    """Those of one node."""

    def __init__(self, drain: float, grace: float) -> None:
        self.drain, self.grace = drain, grace
        self._slots: dict[Key, Slot] = {}
        self._message: Message = {}
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def slots(self) -> tuple[Slot, ...]:
        """One for each that runs."""
        return tuple(self._slots.values())

    async def change(
        self, message: Message, sockets: dict[Key, socket.socket], stdout: int | None = None
    ) -> None:
        """Have those run that these sockets are for, by what `message` tells a worker.

        Raises ConfigError where one can't start; then those before run on.
        """
        before, self._message = self._message, message
        fresh: dict[Key, Slot] = {}
        try:
            for key, sock in sockets.items():
                if key in self._slots:
                    await self._slots[key].replace(self.drain, self.grace)
                    continue
                fresh[key] = Slot(key[0], {"": sock}, self._start, _admit, stdout, MODULE)
                await fresh[key].open()
        except BaseException:
            self._message = before
            await asyncio.gather(*(slot.close() for slot in fresh.values()))
            raise
        self._slots |= fresh
        for key in self._slots.keys() - sockets.keys():
            leaving = asyncio.create_task(self._slots.pop(key).stop(self.drain, self.grace))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    def _start(self) -> Message:
        return self._message

    async def stop(self) -> None:
        """Let all go, with what they have in progress."""
        await asyncio.gather(*(slot.stop(self.drain, self.grace) for slot in self.slots))

    async def close(self) -> None:
        """End all at once."""
        for task in self._leaving:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await asyncio.gather(*(slot.close() for slot in self.slots))


async def _admit(_: WorkerProcess) -> None:
    """A companion is ready when it says so: it has no configuration to catch up with."""
