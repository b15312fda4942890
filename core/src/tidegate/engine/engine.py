"""The engine as a worker sees it: start, reconfigure, drain, stop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from socket import socket
from typing import Any, Final

from tidegate.runtime.lifecycle import LAST_CALL, Runtime
from tidegate.runtime.settings import Settings

from .bridge import TICK
from .lanes import Lane
from .master import Master
from .pace import SlowReaders

log = logging.getLogger("tidegate.engine")

GRACE: Final = 1.0
"""Seconds for the last bytes of exchanges that a drain ends."""


class Engine:
    """Carries the exchanges of one worker. One per process.

    Args:
        runtime: holds the configuration in force.
        settings: that configuration's own.
        lane: what serves the listeners whose carrier is the lane.
        first: this worker also runs the modes that no two workers can share (WireGuard).
        successor: another worker has their ports, and gives them back when this one serves.
    """

    def __init__(
        self,
        runtime: Runtime,
        settings: Settings,
        lane: Lane | None = None,
        *,
        first: bool = True,
        successor: bool = False,
    ) -> None:
        self._runtime = runtime
        self._settings = settings
        self._lane = lane
        self._first, self._successor = first, successor
        self._master: Master | None = None
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def active(self) -> int:
        """Exchanges in progress, on both carriers."""
        own = self._master.bridge.active if self._master is not None else 0
        return own + (self._lane.active if self._lane is not None else 0)

    def refusals(self) -> list[dict[str, Any]]:
        """Which clients refuse certificates of the CA for which hosts, and why."""
        return self._master.refusals.table() if self._master is not None else []

    async def start(self, sockets: Mapping[str, socket | list[socket]]) -> None:
        """Serve on sockets that listen already, by listener name. They stay the caller's.

        What follows a "|" in a name only tells several sockets of one listener apart.
        Raises StartError where a mode can't be started.
        """
        lists: dict[str, list[socket]] = {}
        for name, given in sockets.items():
            own = lists.setdefault(name.partition("|")[0], [])
            own.extend(given if isinstance(given, list) else [given])
        self._master = Master(
            self._runtime,
            self._settings,
            self._lane,
            first=self._first,
            successor=self._successor,
        )
        if self._lane is not None:
            self._lane.handover = self._master.proxies.take_over
        await self._master.start(lists)
        self._sweeper = asyncio.create_task(self._sweep(self._master))

    def reconfigure(self, settings: Settings) -> None:
        """Take over new settings, for exchanges that begin now. Listeners stay as they are."""
        self._settings = settings
        if self._master is not None:
            self._master.reconfigure(settings)
        if self._lane is not None:
            self._lane.reconfigure(settings)

    def part(self) -> None:
        """From now on every answer says that its connection closes; new ones are accepted."""
        if self._master is not None:
            self._master.bridge.part()
        if self._lane is not None:
            self._lane.draining = True

    async def drain(self, seconds: float) -> None:
        """Accept nothing more; wait for the exchanges in progress, then end what is left."""
        master = self._master
        if master is None:
            return
        await master.stop_servers()
        self.part()
        if any(x.cert for x in self._settings.gateway.listen):  # handshakes have no client yet
            await asyncio.sleep(min(LAST_CALL, seconds))
        master.bridge.draining = True
        if self._lane is not None:
            await asyncio.gather(self._lane.drain(seconds), self._drain(master, seconds))
        else:
            await self._drain(master, seconds)

    async def _drain(self, master: Master, seconds: float) -> None:
        await self._until_gone(master, seconds)
        if not master.handlers:
            return
        log.warning("%d exchanges are cut by the end of the drain", master.bridge.active)
        for handler in master.handlers:
            handler.end_calls()
        await self._until_gone(master, GRACE)

    @staticmethod
    async def _until_gone(master: Master, seconds: float) -> None:
        """Until every client has left: `Handler.check` closes the idle ones."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not master.handlers:
                return
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Close everything."""
        master, self._master = self._master, None
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._lane is not None:
            await self._lane.stop()
        if master is None:
            return
        await master.stop_servers()
        handlers = master.handlers
        for handler in handlers:
            handler.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                for handler in handlers:
                    await handler.gone.wait()
        await master.done()

    async def _sweep(self, master: Master) -> None:
        load, slow = master.bridge.load, SlowReaders()
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            load.tick(now, time.process_time())
            for handler in master.handlers:
                try:
                    handler.check(now, draining=master.bridge.draining)
                    slow.look(handler, now, master.gateway.deadlines.write)
                except Exception:
                    log.exception("a connection's deadlines could not be checked")
