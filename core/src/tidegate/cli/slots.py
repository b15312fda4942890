"""A slot: the listening sockets of one worker or companion, and whoever serves on them."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable

from tidegate.runtime.problems import ConfigError

from .process import Backoff, WorkerProcess
from .wire import Message

log = logging.getLogger("tidegate.supervisor")


class Slot:
    """Keeps one worker serving on its sockets, which outlive every worker.

    `index`: its number, or of a companion the addon's name.
    """

    def __init__(
        self,
        index: int | str,
        sockets: dict[str, socket.socket],
        start_message: Callable[[], Message],
        admit: Callable[[WorkerProcess], Awaitable[None]],
        stdout: int | None,
        module: str = "tidegate.cli.worker",
    ) -> None:
        self.index = index
        self.sockets = sockets
        self.worker: WorkerProcess | None = None
        self.restarts = 0
        self.stopping = False
        self._alive: set[WorkerProcess] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._start_message = start_message
        self._admit = admit
        self._stdout = stdout
        self._module = module
        self._backoff = Backoff()
        self._reviving: asyncio.Task[None] | None = None

    async def start(self, *, successor: bool = False) -> WorkerProcess:
        """Start a worker and wait until it serves. Raises ConfigError."""
        numbers = {name: sock.fileno() for name, sock in self.sockets.items()}
        start = {**self._start_message(), "sockets": numbers, "slot": self.index}
        start["successor"] = successor
        files = list(numbers.values())
        worker = await WorkerProcess.spawn(self.index, self._module, start, files, self._stdout)
        self._alive.add(worker)
        worker.on_exit = self._exited
        await worker.wait_ready()
        await self._admit(worker)
        return worker

    async def open(self) -> None:
        """Start the first worker. Raises ConfigError."""
        self.worker = await self.start()
        log.info("worker %d (slot %s) is ready", self.worker.pid, self.index)

    async def replace(self, drain: float, grace: float) -> None:
        """Put a successor on the sockets, then let the present worker go. Raises ConfigError.

        One that hangs, and so does not leave within `drain` + `grace` seconds, is killed.
        """
        successor = await self.start(successor=True)
        old, self.worker = self.worker, successor
        if old is not None:
            log.info("worker %d takes over from %d (slot %s)", successor.pid, old.pid, self.index)
            old.drain(drain, last=False)
            leaving = asyncio.create_task(old.wait(drain + grace))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def stop(self, drain: float, grace: float) -> None:
        """Let every worker go within `drain` seconds; after `grace` more they are killed."""
        self.stopping = True
        if self._reviving is not None:
            self._reviving.cancel()
        for worker in self._alive:
            if worker.ready or worker.draining:
                worker.drain(drain, last=True)
            else:
                worker.kill()  # it has nothing in progress yet
        await asyncio.gather(*(worker.wait(drain + grace) for worker in self._alive))

    def kill(self) -> None:
        """End every worker at once."""
        self.stopping = True
        for worker in self._alive:
            worker.kill()

    async def close(self) -> None:
        """End every worker at once, and wait until they have."""
        self.kill()
        if self._reviving is not None:
            self._reviving.cancel()
        await asyncio.gather(*(worker.wait() for worker in self._alive))

    def _exited(self, worker: WorkerProcess) -> None:
        self._alive.discard(worker)
        if worker is self.worker and not self.stopping:
            self.worker = None
            self._reviving = asyncio.create_task(self._revive(worker))

    async def _revive(self, dead: WorkerProcess) -> None:
        why = dead.epitaph()
        while not self.stopping:
            delay = self._backoff.next()
            if self._backoff.failures >= Backoff.LOOP:
                log.error("crash loop: %s\nnext start in %.1f s", why, delay)
            else:
                log.error("%s: it is started again", why.partition(";")[0])
            await asyncio.sleep(delay)
            self.restarts += 1
            try:
                await self.open()
                return
            except ConfigError as error:
                why = str(error)
