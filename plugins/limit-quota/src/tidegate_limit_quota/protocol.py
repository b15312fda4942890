"""What workers and the broker say to each other: lines of JSON, on a Unix socket."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

SOCKET: Final = "broker.sock"
LONGEST_PATH: Final = 100
"""Bytes of a socket's address are 108 at most (unix(7))."""
LINE: Final = 64 * 1024 * 1024
"""Bytes of a message at most: some 100 for each lease that has changed."""
UNREAD: Final = 1024 * 1024
"""Bytes that a worker keeps for a broker that does not read."""


@dataclass(slots=True)
class Ask:
    """A worker's lease, and what it wants: sums that only grow, so that saying them again is safe.

    `limit` is the number of the limit in the worker's greeting. `acknowledged`: the broker has
    answered for this lease before. `number` counts what is asked; the answer has it again.
    """

    limit: int
    key: str
    lease: str
    acknowledged: bool
    granted: int
    returned: int
    used: int
    need: int = 0
    extra: int = 0
    number: int = 0
    closed: bool = False


@dataclass(slots=True)
class Granted:
    """The answer. `short`: less than was needed is there.

    `valid`: seconds for which the lease may be spent from; `left`: what nobody holds;
    `resets`: seconds until something comes back, or None.
    """

    lease: str
    granted: int
    number: int
    short: bool
    valid: float
    left: int
    resets: float | None


values_of_ask: Final = attrgetter(*(field.name for field in fields(Ask)))
values_of_granted: Final = attrgetter(*(field.name for field in fields(Granted)))


class Receiver(Protocol):
    """A worker's side."""

    def granted(self, answer: Granted) -> None: ...
    def gone(self, lease: str) -> None:
        """The broker has closed this lease: all that it held is spent."""

    def failed(self, lease: str, number: int) -> None:
        """The broker could not write it down: nothing is granted."""

    def recalled(self, lease: str) -> None:
        """Another worker needs what this lease does not use."""

    def alerted(self, limit: str, key: str, percent: int) -> None: ...
    def connected(self, token: str) -> None:
        """Say everything again: the broker may have begun anew. `token`: which one it is."""


class Backend(Protocol):
    """Who lends: the node's broker; one for many nodes would take its place with this interface."""

    @property
    def up(self) -> bool:
        """Whether there is someone to ask."""

    def start(self, receiver: Receiver) -> None:
        """Connect, and connect again whenever it must be, until `stop`."""

    def ask(self, asks: list[Ask]) -> None:
        """Say these leases, ask for what they need. Answers come to the receiver."""

    async def stop(self) -> None:
        """Say goodbye."""


def dumps(message: Any) -> bytes:
    """A message as a line."""
    return orjson.dumps(message) + b"\n"


def address(path: Path) -> tuple[str, Callable[[], None]]:
    """A socket's address that is short enough, and what to call when it has been used."""
    if len(os.fsencode(path)) <= LONGEST_PATH:
        return str(path), lambda: None
    folder = os.open(path.parent, os.O_RDONLY)
    return f"/proc/self/fd/{folder}/{path.name}", lambda: os.close(folder)


async def connect(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the broker. OSError."""
    short, done = address(path)
    try:
        return await asyncio.open_unix_connection(short, limit=LINE)
    finally:
        done()


def call(path: Path, message: Any, timeout: float = 10.0) -> Any:
    """One question of a command, and its answer. OSError."""
    short, done = address(path)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(timeout)
            client.connect(short)
            client.sendall(dumps(message))
            with client.makefile("rb") as answers:
                return orjson.loads(answers.readline())
    finally:
        done()


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

    def ask(self, asks: list[Ask]) -> None:
        writer = self._writer
        if writer is None:
            return
        if writer.transport.get_write_buffer_size() > UNREAD:
            writer.transport.abort()  # it hangs; the next connection says everything again
        else:
            writer.write(dumps({"leases": [values_of_ask(one) for one in asks]}))

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
