"""A new configuration on all workers, or on none.

The supervisor reads and checks it, has every worker prepare it beside the one that serves, and
only when all have done so tells them to put it in force. Otherwise nothing has changed, and the
log and `/-/status` say why.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tidegate.runtime.problems import ConfigError, Problem

from . import bootstrap
from .process import WorkerGone, WorkerProcess
from .source import Source, pinned
from .wire import Message, problems_from_wire, problems_to_wire

if TYPE_CHECKING:
    from .supervisor import Supervisor

log = logging.getLogger("tidegate.supervisor")

POLL: Final = 0.3
"""Seconds between two looks at the file."""
SETTLE: Final = 0.1
"""Seconds for which a changed file must stay as it is: an editor may write it in parts."""
PREPARE: Final = 60.0
"""Seconds that a worker may take to prepare a configuration."""

type Mark = tuple[int, int, int] | None


class Reloader:
    """Watches the configuration's files and carries their changes to the workers."""

    def __init__(self, node: Supervisor) -> None:
        self.node = node
        self.watched = node.source.watched_files
        """Also those that a configuration which was refused names: mended, they count."""
        self.tried: Source | None = None
        """What the last reload would have put in force."""
        self.last: Message | None = None
        """The outcome of the last reload, for `/-/status`."""

    async def watch(self) -> None:
        """Reload whenever a file has changed."""
        seen: dict[Path, Mark] = {}  # so that an edit made while the node started counts
        while self.watched:
            await asyncio.sleep(POLL)
            now = self._marks()
            if now == seen:
                continue
            await asyncio.sleep(SETTLE)
            if self._marks() != now:
                continue
            edited = [file.name for file in now if file in seen and now[file] != seen[file]]
            seen = now
            why = f"{', '.join(edited) or 'a file'} has changed"
            await self.reload(why, only_if_new=True, only_if_untried=not edited)

    def _marks(self) -> dict[Path, Mark]:
        return {file: mark(file) for file in self.watched}

    async def reload(
        self, why: str, *, only_if_new: bool = False, only_if_untried: bool = False
    ) -> None:
        """Put the files' present text in force, or say why not."""
        async with self.node.lock:
            if self.node.stopping:
                return
            try:
                source = self.node.source.reread()
                self.watched = source.watched_files
                if only_if_new and source == self.node.source:
                    return
                if only_if_untried and source == self.tried:
                    return
                self.tried = source
                log.info("reload: %s", why)
                needs_restart = await self._apply(source)
            except ConfigError as error:
                self._refused(error.problems)
            else:
                self._accepted(needs_restart)

    async def catch_up(self, worker: WorkerProcess) -> None:
        """Bring a worker that started during a reload to the configuration in force."""
        async with self.node.lock:
            if worker.revision == self.node.revision:
                return
            problems = await prepare(worker, self._message(self.node.source, self.node.revision))
            if problems:
                worker.kill()
                raise ConfigError(problems)
            await commit(worker, self.node.revision)

    async def _apply(self, source: Source) -> list[str]:
        """Prepare and commit everywhere. Raises ConfigError; then nothing has changed."""
        node = self.node
        settings, needs_restart = pinned(source.settings(), node.settings)
        before = node.prepared
        after = await asyncio.to_thread(bootstrap.run, settings, node.host, before)
        await node.set_helpers(before.processes | after.processes)
        workers = node.workers
        try:
            message = self._message(source, node.revision + 1, after)
            replies = await asyncio.gather(*(prepare(w, message) for w in workers))
            problems = list(dict.fromkeys(p for reply in replies for p in reply))
            if problems:
                raise ConfigError(problems)
            await node.companions.change(node.start_message(**message), after.sockets)
        except BaseException:
            await asyncio.gather(*(abort(w) for w in workers))
            await node.set_helpers(before.processes)
            after.close(before)
            raise
        before.close(after)
        fresh = after.announcements.items() - before.announcements.items()
        if fresh:  # such as the first password of an addon that was switched on
            node.tell({"event": "announced", **dict(fresh)})
        node.source, node.settings, node.prepared = source, settings, after
        node.revision += 1
        await asyncio.gather(*(commit(w, node.revision) for w in workers))
        await node.set_helpers(after.processes)
        return needs_restart

    def _message(
        self, source: Source, revision: int, prepared: bootstrap.Prepared | None = None
    ) -> Message:
        shared = (prepared or self.node.prepared).shared
        return {"source": source.to_wire(), "revision": revision, "shared": shared}

    def _refused(self, problems: tuple[Problem, ...]) -> None:
        for problem in problems:
            log.error("reload refused, the old configuration stays: %s", problem)
        self._tell(ok=False, problems=problems_to_wire(problems), needs_restart=[])

    def _accepted(self, needs_restart: list[str]) -> None:
        log.info("reload: revision %d is in force", self.node.revision)
        for name in needs_restart:
            log.warning("reload: %s takes effect only after a restart", name)
        self._tell(ok=True, problems=[], needs_restart=needs_restart)

    def _tell(self, **outcome: object) -> None:
        self.last = outcome
        self.node.tell({"event": "reload", "revision": self.node.revision, **outcome})


async def prepare(worker: WorkerProcess, message: Message) -> tuple[Problem, ...]:
    """Have a worker prepare; what is wrong, () where nothing is."""
    try:
        reply = await worker.request("prepare", PREPARE, **message)
    except WorkerGone:
        return (Problem("reload_failed", f"worker {worker.pid} died while it prepared this"),)
    except TimeoutError:
        text = f"worker {worker.pid} did not prepare this within {PREPARE:g} s"
        return (Problem("reload_timeout", text),)
    return () if reply["ok"] else problems_from_wire(reply["problems"])


async def commit(worker: WorkerProcess, revision: int) -> None:
    """Have a worker put in force what it prepared. One that can't is replaced."""
    try:
        await worker.request("commit", PREPARE)
        worker.revision = revision
    except (WorkerGone, TimeoutError):
        worker.kill()


async def abort(worker: WorkerProcess) -> None:
    """Have a worker let go of what it prepared."""
    try:
        await worker.request("abort", PREPARE)
    except (WorkerGone, TimeoutError):
        worker.kill()


def mark(file: Path) -> Mark:
    """Changes when the file does; None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
