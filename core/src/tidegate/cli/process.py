"""The supervisor's side of a child: a worker or companion with its channel, or a helper."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Self

from tidegate.runtime.problems import ConfigError, Problem
from tidegate.runtime.redact import mask_text

from .wire import Channel, Message, problems_from_wire

log = logging.getLogger("tidegate.supervisor")

KEPT_LINES: Final = 20
"""Last lines of a child's standard error that are told when it dies."""
READY: Final = 90.0
"""Seconds until a new worker must be ready."""


class WorkerGone(Exception):
    """The worker ended before it answered."""


class WorkerProcess:
    """One worker, or one companion of an addon (`companion.py`), which is told less.

    Made by `spawn`; `on_exit` is called once when it has ended.
    """

    def __init__(
        self, slot: int | str, process: asyncio.subprocess.Process, channel: Channel
    ) -> None:
        self.slot = slot
        self.revision = 0
        self.ready = False
        self.draining = False
        self.last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.on_exit: Callable[[WorkerProcess], None] = lambda _: None
        self._process = process
        self._channel = channel
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._next = 0
        self._started: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._watch())

    @classmethod
    async def spawn(
        cls, slot: int | str, module: str, start: Message, files: list[int], stdout: int | None
    ) -> Self:
        """Start a worker with these file descriptors and send its first message."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", module, str(theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stdout,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(*files, theirs.fileno()),
            )
        channel = await Channel.open(ours)
        channel.send({"do": "start", **start})
        worker = cls(slot, process, channel)
        worker.revision = start["revision"]
        return worker

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status once it has ended; negative: the signal that ended it."""
        return self._process.returncode

    async def wait_ready(self) -> None:
        """Until it serves. Raises ConfigError where it refuses its configuration or dies."""
        try:
            message = await asyncio.wait_for(asyncio.shield(self._started), READY)
        except TimeoutError:
            self.kill()
            raise ConfigError(
                Problem("worker_failed", f"a worker was not ready within {READY:g} s")
            ) from None
        except WorkerGone:
            raise ConfigError(Problem("worker_failed", self.epitaph())) from None
        if message["event"] == "failed":
            await self.wait()
            raise ConfigError(problems_from_wire(message["problems"]))
        self.ready = True

    async def request(self, do: str, limit: float, **body: Any) -> Message:
        """Ask; its answer. Raises WorkerGone, or TimeoutError after `limit` seconds."""
        if self.status is not None or self._task.done():
            raise WorkerGone
        self._next += 1
        number = self._next
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._channel.send({"do": do, "id": number, **body})
        try:
            return await asyncio.wait_for(answer, limit)
        finally:
            self._waiting.pop(number, None)

    def drain(self, seconds: float, *, last: bool) -> None:
        """Tell it to finish within `seconds` and leave. `last`: it has no successor."""
        self.ready, self.draining = False, True
        self._channel.send({"do": "drain", "seconds": seconds, "last": last})

    async def wait(self, limit: float | None = None) -> None:
        """Until it has ended, killing it after `limit` seconds."""
        try:
            await asyncio.wait_for(asyncio.shield(self._task), limit)
        except TimeoutError:
            log.warning("worker %d did not leave in time: killed", self.pid)
            self.kill()
            await self._task

    def kill(self) -> None:
        """End it at once."""
        if self.status is None:
            self._process.kill()

    def epitaph(self) -> str:
        """How it ended, and the last lines that it wrote."""
        status = self.status
        how = f"with status {status}"
        if status is not None and status < 0:
            how = f"by signal {signal.Signals(-status).name}"
        text = f"worker {self.pid} (slot {self.slot}) ended {how}"
        lines = "\n".join(f"  {line}" for line in self.last_lines)
        return f"{text}; its last lines:\n{lines}" if lines else text

    async def _watch(self) -> None:
        assert self._process.stderr is not None
        await asyncio.gather(self._read(), pump(self._process.stderr, self.last_lines))
        await self._process.wait()
        self.ready = False
        await self._channel.close()
        for answer in (*self._waiting.values(), self._started):
            if not answer.done():
                answer.set_exception(WorkerGone())
        self._started.exception()  # nobody need be waiting any more
        self.on_exit(self)

    async def _read(self) -> None:
        while (message := await self._channel.receive()) is not None:
            answer = self._waiting.get(message.get("re", 0))
            if answer is not None and not answer.done():
                answer.set_result(message)
            elif message.get("event") in ("ready", "failed") and not self._started.done():
                self._started.set_result(message)
        # A worker that closed its channel is on its way out.


async def pump(stream: asyncio.StreamReader, kept: deque[str]) -> None:
    """Copy a child's lines to our standard error, masked, and keep the last ones."""
    while True:
        try:
            line = await stream.readline()
        except ValueError:  # longer than the reader's limit: it was discarded
            continue
        if not line:
            return
        text = mask_text(line.decode("utf-8", "replace").rstrip("\n"))
        kept.append(text)
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


class Backoff:
    """Waits between restarts: none at first, then longer, reset by a time of health."""

    FIRST: Final = 0.1
    LONGEST: Final = 10.0
    HEALTHY: Final = 30.0
    LOOP: Final = 5
    """Restarts in a row that are a crash loop."""

    def __init__(self) -> None:
        self.failures = 0
        self._last = 0.0

    def next(self) -> float:
        """Seconds to wait before the next start."""
        now = asyncio.get_running_loop().time()
        if now - self._last > self.HEALTHY:
            self.failures = 0
        self._last = now
        self.failures += 1
        if self.failures == 1:
            return 0.0
        return float(min(self.FIRST * 2 ** (self.failures - 2), self.LONGEST))


class Helper:
    """A process that an addon's `bootstrap` asked for: restarted when it dies."""

    def __init__(self, name: str, argv: list[str], env: dict[str, str]) -> None:
        self.name = name
        self._argv = argv
        self._env = env
        self._process: asyncio.subprocess.Process | None = None
        self._task = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        backoff = Backoff()
        while True:
            lines: deque[str] = deque(maxlen=KEPT_LINES)
            await asyncio.sleep(backoff.next())
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self._argv,
                    env={**os.environ, **self._env},
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                    process_group=0,
                    preexec_fn=die_with_parent if sys.platform == "linux" else None,
                )
            except OSError as error:
                log.error("process %s can't be started: %s", self.name, error)
                continue
            assert self._process.stdout is not None
            await pump(self._process.stdout, lines)
            status = await self._process.wait()
            log.error(
                "process %s ended with status %d: it is started again%s",
                self.name,
                status,
                "".join(f"\n  {line}" for line in lines) if backoff.failures > 1 else "",
            )

    async def stop(self) -> None:
        """End it: politely, then for good."""
        self._task.cancel()
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 5.0)
        except TimeoutError:
            process.kill()
            await process.wait()


if sys.platform == "linux":
    _LIBC: Final = ctypes.CDLL(None)
    _PR_SET_PDEATHSIG: Final = 1

    def die_with_parent() -> None:
        """In the child: have the kernel end it when the supervisor dies, however it dies."""
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
