"""How a process of the node runs: what it serves is told over a socket by its supervisor."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable

from tidegate.engine import run
from tidegate.runtime.problems import ConfigError

from . import logs
from .wire import Channel, Message, problems_to_wire

type Serve = Callable[[Channel, Message], Awaitable[None]]
"""Serves what a start message says, until told to leave. Raises ConfigError."""


def main(serve: Serve, log: logging.Logger) -> None:
    """Entry of the process; the number of its socket is the first argument."""
    for name in ("SIGINT", "SIGHUP", "SIGUSR2"):  # a terminal sends them to the whole group
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    end = socket.socket(fileno=int(sys.argv[1]))
    sys.exit(run(lambda: _serve_once(serve, log, end)))


async def _serve_once(serve: Serve, log: logging.Logger, end: socket.socket) -> int:
    """Serve one start message; the exit status."""
    channel = await Channel.open(end)
    start = await channel.receive()
    if start is None:
        return 0
    logs.setup(**start["log"])
    try:
        await serve(channel, start)
    except ConfigError as error:
        channel.send({"event": "failed", "problems": problems_to_wire(error.problems)})
        return 2
    except Exception:
        log.exception("the process failed")
        return 1
    finally:
        await channel.close()
    return 0
