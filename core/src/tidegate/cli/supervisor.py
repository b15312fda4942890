"""The supervisor: a node's parent process.

It binds the sockets, starts one worker per slot and starts it again when it dies, carries a new
configuration to all workers or to none, replaces workers without closing a socket, and ends the
node without dropping what is in progress. It moves no traffic itself.

    SIGTERM, SIGINT   drain and exit (a second SIGINT: at once)
    SIGHUP            read the configuration again
    SIGUSR2           rolling restart: a successor for each worker, one after the other
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tidegate.runtime.intercepts import split_mode
from tidegate.runtime.lifecycle import Host
from tidegate.runtime.problems import ConfigError, Problem
from tidegate.runtime.settings import Listener, Settings

from . import bootstrap
from .companions import Companions
from .process import Helper, WorkerGone, WorkerProcess
from .reload import Reloader
from .slots import Slot
from .sockets import bind_all, bind_status, join
from .source import Source, notes, worker_count
from .status import STATUS_FILE, StatusServer
from .wire import Message

log = logging.getLogger("tidegate.supervisor")

GRACE: Final = 5.0
"""Seconds that a worker gets after its drain deadline to write its logs and leave."""

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)

type Tell = Callable[[Message], None]


@dataclass(frozen=True, slots=True)
class Started:
    """What a node tells when it is ready."""

    gateway: list[str]
    status: str
    state: Path
    settings: Settings
    announcements: dict[str, str] = field(default_factory=dict)
    intercept: dict[str, list[str]] = field(default_factory=dict)
    """Where each `[[intercept]]` listens."""

    def event(self) -> Message:
        """The ready line."""
        told = {"console": None, "api_key": None, **self.announcements}
        fixed: Message = {"gateway": self.gateway, "status": self.status, "state": str(self.state)}
        if self.intercept:
            fixed["intercept"] = self.intercept
        return {"event": "ready", **told, **fixed}


class Supervisor:
    """One node. `tell` gets its events after the ready line; `log_options` go to the workers."""

    def __init__(
        self, source: Source, state: Path, tell: Tell, log_options: dict[str, str]
    ) -> None:
        self.source = source
        self.state = state
        self.settings = source.settings()
        self.revision = 1
        self.tell = tell
        self.lock = asyncio.Lock()
        """Held while the configuration changes: what a worker is given never races with it."""
        self.slots: list[Slot] = []
        self.urls: list[str] = []
        """Where the listeners answer, once they do."""
        self.stopping = False
        self.prepared = bootstrap.Prepared()
        self.companions = Companions(self.settings.gateway.deadlines.drain, GRACE)
        self.reloader = Reloader(self)
        self._log_options = log_options
        self._helpers: dict[tuple[str, str, str], Helper] = {}
        self._status = StatusServer(self)
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    # -- life ---------------------------------------------------------------------------------

    async def run(self, started: Callable[[Started], None], *, stdout: int | None = None) -> None:
        """Start the node, serve until told to stop, end it. Raises ConfigError."""
        gateway = self.settings.gateway
        for note in notes(self.settings):
            log.warning(note)
        status = bind_status(gateway.status)
        await self._status.start(status)
        try:
            sockets = bind_all(
                gateway.listen, worker_count(self.settings), self.settings.intercepts
            )
            if self.settings.intercepts:
                from tidegate.runtime.ca import ensure_ca  # costs start-up time

                ensure_ca(self.state)
            self.prepared = bootstrap.run(self.settings, self.host)
            await self.set_helpers(self.prepared.processes)
            self.slots = [
                Slot(index, own, self.start_message, self.reloader.catch_up, stdout)
                for index, own in enumerate(sockets)
            ]
            self._handle_signals()
            await self._open_slots(stdout)
            if not self._stop.is_set():
                urls = [url(x, sockets[0][x.name].getsockname()) for x in gateway.listen]
                self.urls = urls
                where = "http://" + join(*status.getsockname()[:2])
                (self.state / STATUS_FILE).write_text(where)  # for verbs that ask a running node
                started(
                    Started(
                        urls,
                        where,
                        self.state,
                        self.settings,
                        self.prepared.announcements,
                        intercepting(self.settings, sockets[0]),
                    )
                )
                watching = self.background(self.reloader.watch())
                await self._stop.wait()
                watching.cancel()
            await self._end()
        except ConfigError:
            if self.prepared.announcements:  # a key that was made is shown, now or never
                self.tell({"event": "announced", **self.prepared.announcements})
            raise
        finally:
            await self._close()

    async def _open_slots(self, stdout: int | None) -> None:
        """Start all workers and companions. The first that can't ends it; so does a stop."""
        stop = asyncio.create_task(self._stop.wait())
        opening = {asyncio.create_task(slot.open()) for slot in self.slots}
        beside = self.companions.change(self.start_message(), self.prepared.sockets, stdout)
        opening.add(asyncio.create_task(beside))
        pending: set[asyncio.Task[Any]] = {stop, *opening}
        try:
            while opening & pending and stop in pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in (stop, *opening):
                task.cancel()
            await asyncio.gather(stop, *opening, return_exceptions=True)

    async def _end(self) -> None:
        drain = self.settings.gateway.deadlines.drain
        log.info("stopping: exchanges in progress have %g s", drain)
        self.tell({"event": "stopping"})
        slots = (slot.stop(drain, GRACE) for slot in self.slots)
        await asyncio.gather(*slots, self.companions.stop())
        self.tell({"event": "stopped"})

    async def _close(self) -> None:
        self.stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(slot.close() for slot in self.slots), self.companions.close())
        await asyncio.gather(*(helper.stop() for helper in self._helpers.values()))
        self.prepared.close()
        self._status.close()
        for number in SIGNALS:  # one that comes now must not change the exit status
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)

    def background(self, coro: Any) -> asyncio.Task[Any]:
        """Run a coroutine beside the node until it ends."""
        task: asyncio.Task[Any] = asyncio.create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- signals ------------------------------------------------------------------------------

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        loop.add_signal_handler(
            signal.SIGHUP, lambda: self.background(self.reloader.reload("SIGHUP"))
        )
        loop.add_signal_handler(signal.SIGUSR2, lambda: self.background(self.restart()))

    def stop(self) -> None:
        """Begin to end the node; from now on it is not ready."""
        self.stopping = True
        self._stop.set()

    def _interrupt(self) -> None:
        if self.stopping:
            log.warning("interrupted again: exchanges in progress are cut")
            for slot in (*self.slots, *self.companions.slots):
                slot.kill()
        self.stop()

    async def restart(self) -> None:
        """Replace every worker, one after the other; stops at the first that can't start."""
        drain = self.settings.gateway.deadlines.drain
        problems: tuple[Problem, ...] = ()
        try:
            for slot in (*self.slots, *self.companions.slots):
                await slot.replace(drain, GRACE)
        except ConfigError as error:
            problems = error.problems
            for problem in problems:
                log.error("rolling restart ended: %s", problem)
        else:
            log.info("rolling restart: every worker is new")
        self.tell({"event": "restart", "ok": not problems, "problems": [str(p) for p in problems]})

    # -- what the slots and the reloader need ---------------------------------------------------

    @property
    def host(self) -> Host:
        """What addons are told of this node."""
        return Host(self.state, worker_count(self.settings), self.prepared.shared)

    @property
    def workers(self) -> list[WorkerProcess]:
        """The workers that serve."""
        return [slot.worker for slot in self.slots if slot.worker and slot.worker.ready]

    def start_message(self, **other: Any) -> Message:
        """What a new worker is told; of a configuration that is not yet in force, by `other`."""
        host = self.host
        return {
            "source": self.source.to_wire(),
            "revision": self.revision,
            "state": str(host.state),
            "workers": host.workers,
            "shared": host.shared,
            "log": self._log_options,
            **other,
        }

    async def set_helpers(self, wanted: bootstrap.Processes) -> None:
        """Run these helper processes, and no others."""
        for key in self._helpers.keys() - wanted.keys():
            await self._helpers.pop(key).stop()
        for key, (argv, env) in wanted.items():
            if key not in self._helpers:
                self._helpers[key] = Helper(f"{key[0]}/{key[2]}", argv, env)

    # -- status -------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether a worker serves, and the node is not on its way out."""
        return not self.stopping and bool(self.workers)

    async def status(self) -> Message:
        """The body of `/-/status`."""
        return {
            "revision": self.revision,
            "config_digest": self.source.digest,
            "gateway": self.urls,
            "workers": await asyncio.gather(*(self._worker_status(s) for s in self.slots)),
            "last_reload": self.reloader.last,
        }

    async def ask(self, what: str, **body: Any) -> list[Any]:
        """The value that each worker answers to `what`; those that are gone are left out."""
        asked = (worker.request(what, 2.0, **body) for worker in self.workers)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return [answer["value"] for answer in answers if isinstance(answer, dict)]

    async def _worker_status(self, slot: Slot) -> Message:
        worker = slot.worker
        body: Message = {"slot": slot.index, "restarts": slot.restarts}
        body |= {"pid": None, "ready": False, "active": 0, "counters": {}, "rss": 0}
        if worker is not None:
            body |= {"pid": worker.pid, "ready": worker.ready}
            with suppress(WorkerGone, TimeoutError):
                stats = await worker.request("stats", 2.0)
                body |= {k: v for k, v in stats.items() if k != "re"}
        return body


def url(listener: Listener, address: tuple[Any, ...]) -> str:
    """Where a listener answers."""
    scheme = "https" if listener.cert else "http"
    return f"{scheme}://{join(address[0], address[1])}"


def intercepting(settings: Settings, sockets: dict[str, socket.socket]) -> dict[str, list[str]]:
    """Where each intercept listens. One on no address of its own has its mode there."""
    told = {}
    for intercept in settings.intercepts:
        own = [
            join(*sock.getsockname()[:2])
            for name, sock in sockets.items()
            if name.partition("|")[0] == intercept.name
        ]
        host, port = split_mode(intercept.mode)[2:]
        told[intercept.name] = own or [join(host or "0.0.0.0", port) if port else intercept.mode]
    return told


def run(
    source: Source,
    state: Path,
    tell: Tell,
    started: Callable[[Started], None],
    *,
    log_options: dict[str, str],
    stdout: int | None = None,
) -> None:
    """Run a node until it is told to stop. Raises ConfigError where it can't start."""

    async def node() -> None:
        await Supervisor(source, state, tell, log_options).run(started, stdout=stdout)

    asyncio.run(node())
