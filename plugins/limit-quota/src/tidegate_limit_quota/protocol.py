"""What workers and the broker say to each other: lines of JSON, on a Unix socket.

The broker's process imports this, and nothing of `tidegate.api`: it starts in half the time.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

SOCKET: Final = "broker.sock"
LONGEST_PATH: Final = 100
"""Bytes of a socket's address are 108 at most (unix(7))."""
LINE: Final = 64 * 1024 * 1024
"""Bytes of a message at most: some 100 for each lease that has changed."""


@dataclass(slots=True)
class Ask:
    """An `Ask` of `tidegate.api.lending`; `limit` is the limit's number in the greeting."""

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
