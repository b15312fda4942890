"""A worker's main: one process, one loop, the carriers, and the supervisor's channel.

Started by the supervisor (`process.py`) with the number of its channel's file descriptor; what
to serve comes in the first message. See `wire.py` for what is said.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
from pathlib import Path
from typing import Any

from tidegate.engine import Engine
from tidegate.engine.master import StartError
from tidegate.runtime.guard import watch
from tidegate.runtime.lifecycle import Generation, Host, Runtime
from tidegate.runtime.load import resident_bytes
from tidegate.runtime.problems import ConfigError, Problem
from tidegate.runtime.settings import Settings

from . import child
from .sockets import empty_queues
from .source import Source, pinned
from .wire import Channel, Message, problems_to_wire

log = logging.getLogger("tidegate.worker")


class Worker:
    """What one worker process serves, and how it is told to change or leave."""

    def __init__(self, channel: Channel, start: Message) -> None:
        self.channel = channel
        self.revision: int = start["revision"]
        self.settings: Settings = Source.from_wire(start["source"]).settings()
        self.runtime = Runtime(Host(Path(start["state"]), start["workers"], start["shared"]))
        self.sockets = {
            name: socket.socket(fileno=number) for name, number in start["sockets"].items()
        }
        self.first, self.successor = start["slot"] == 0, start["successor"]
        self.engine: Engine
        self.prepared: tuple[int, Settings, Generation] | None = None
        self.leaving = asyncio.Event()
        self.drain_seconds: float | None = None
        self.last = False

    async def serve(self) -> None:
        """Serve until told to leave, or until the supervisor is gone."""
        self.runtime.commit(await self.runtime.prepare(self.settings))
        self.engine = make_engine(
            self.runtime, self.settings, first=self.first, successor=self.successor
        )
        try:
            await self.engine.start(self.sockets)
        except (StartError, OSError) as error:  # a mode, or a certificate (ssl.SSLError)
            await self.runtime.close()
            raise ConfigError(Problem("listener_failed", str(error), self.settings.file)) from error
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.leaving.set)
        watch.start()
        settle()
        self.channel.send({"event": "ready", "revision": self.revision})
        reading = asyncio.create_task(self._read())
        await self.leaving.wait()
        await self._drain()
        reading.cancel()
        await self.engine.stop()
        await self.runtime.close()
        watch.stop()
        self.channel.send({"event": "drained"})

    async def _drain(self) -> None:
        seconds = self.drain_seconds
        if seconds is None:
            seconds = self.settings.gateway.deadlines.drain
        if self.last:  # no successor takes what waits in the accept queues
            self.engine.part()
            await empty_queues(self.sockets.values())
        draining = asyncio.create_task(self.engine.drain(seconds))
        await asyncio.sleep(0)
        if self.last:  # give the port back at once
            for sock in self.sockets.values():
                sock.shutdown(socket.SHUT_RDWR)
        await draining

    async def _read(self) -> None:
        while (message := await self.channel.receive()) is not None:
            match message["do"]:
                case "prepare":
                    self.runtime.background(self._prepare(message))
                case "commit":
                    self._commit()
                    self._reply(message, ok=True)
                case "abort":
                    self._abort()
                    self._reply(message, ok=True)
                case "stats":
                    self._reply(message, **self.stats())
                case "trace":
                    self._reply(message, value=self.runtime.traces.get(message["request"]))
                case "traces":
                    self._reply(message, value=self.runtime.traces.recent())
                case "shadows":
                    self._reply(message, value=self.runtime.shadows.to_json())
                case "drain":
                    self.drain_seconds, self.last = message["seconds"], message["last"]
                    self.leaving.set()
        self.last = True
        self.leaving.set()

    def _reply(self, message: Message, **body: Any) -> None:
        self.channel.send({"re": message["id"], **body})

    async def _prepare(self, message: Message) -> None:
        """Load the next configuration beside the one that serves."""
        self._abort()
        try:
            settings, _ = pinned(Source.from_wire(message["source"]).settings(), self.settings)
            self.runtime.host.shared = message["shared"]
            generation = await self.runtime.prepare(settings)
        except ConfigError as error:
            self._reply(message, ok=False, problems=problems_to_wire(error.problems))
        except Exception as error:
            log.exception("the configuration could not be prepared")
            problem = Problem("reload_failed", f"{type(error).__name__}: {error}")
            self._reply(message, ok=False, problems=problems_to_wire((problem,)))
        else:
            self.prepared = (message["revision"], settings, generation)
            self._reply(message, ok=True)

    def _commit(self) -> None:
        if self.prepared is None:
            return
        self.revision, self.settings, generation = self.prepared
        self.prepared = None
        self.runtime.commit(generation)
        self.engine.reconfigure(self.settings)

    def _abort(self) -> None:
        if self.prepared is not None:
            self.runtime.retire(self.prepared[2])
            self.prepared = None

    def stats(self) -> Message:
        """What `/-/status` shows of this worker."""
        counters = {
            addon.name: dict(addon.instance.context.counters.values)
            for addon in self.runtime.current.addons
            if addon.instance is not None
        }
        return {
            "pid": os.getpid(),
            "revision": self.revision,
            "active": self.engine.active,
            "counters": {"core": dict(self.runtime.counters.values), **counters},
            "rss": resident_bytes(),
            "refusals": self.engine.refusals(),
        }


def make_engine(
    runtime: Runtime, settings: Settings, *, first: bool, successor: bool = False
) -> Engine:
    """The carriers. Must be called on the running loop.

    The lane is there even where no listener asks for it: a cache renews what it holds over it.
    `first`: it is the worker that runs the modes which no two workers can share. `successor`:
    another worker still runs them.
    """
    from tidegate.lane import Lane

    return Engine(runtime, settings, lane=Lane(runtime, settings), first=first, successor=successor)


def settle() -> None:
    """Take what is loaded out of the collector's sight: it stays as long as the process.

    A full collection walks 100,000 objects of code and types for 90 ms, in which nobody is
    served; without them it is over at once. Exchanges leave no cycles behind.
    """
    gc.collect()
    gc.freeze()


def raise_file_limit() -> None:
    """Take as many file descriptors as the system grants: a connection is one or two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    """Entry of the worker process: `python -P -m tidegate.cli.worker FD`."""
    raise_file_limit()
    child.main(lambda channel, start: Worker(channel, start).serve(), log)


if __name__ == "__main__":
    main()
