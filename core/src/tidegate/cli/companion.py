"""A companion's main: one process, one loop, and one addon that serves on a socket of its own.

Started by the supervisor as a worker is; see `wire.py` for what is said. Of that, a companion
hears `start` (`slot` is the addon's name) and `drain`, and tells `ready` and `failed`.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from tidegate.engine import run
from tidegate.runtime.lifecycle import Host, make_addons
from tidegate.runtime.problems import ConfigError, Problem

from . import logs
from .source import Source
from .wire import Channel, Message, problems_to_wire

log = logging.getLogger("tidegate.companion")


async def serve(channel: Channel, start: Message) -> None:
    """Serve until told to leave, or until the supervisor is gone. Raises ConfigError."""
    settings = Source.from_wire(start["source"]).settings()
    host = Host(Path(start["state"]), start["workers"], start["shared"])
    name: str = start["slot"]
    listener = socket.socket(fileno=next(iter(start["sockets"].values())))
    plugin = make_addons(host, settings)[name]
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(plugin.serve(listener))
        except Exception as error:
            text = f'addon "{name}" can\'t serve: {str(error) or type(error).__name__}'
            raise ConfigError(Problem("startup_failed", text, settings.file)) from error
        leaving = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leaving.set)
        reading = asyncio.create_task(_until_told(channel, leaving))
        channel.send({"event": "ready", "revision": start["revision"]})
        await leaving.wait()
        reading.cancel()


async def _until_told(channel: Channel, leaving: asyncio.Event) -> None:
    while (message := await channel.receive()) is not None:
        if message["do"] == "drain":
            break
    leaving.set()


async def main_async(end: socket.socket) -> int:
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
        log.exception("the companion failed")
        return 1
    finally:
        await channel.close()
    return 0


def main() -> None:
    """Entry of the process: `python -P -m tidegate.cli.companion FD`."""
    for name in ("SIGINT", "SIGHUP", "SIGUSR2"):  # a terminal sends them to the whole group
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    sys.exit(run(lambda: main_async(socket.socket(fileno=int(sys.argv[1])))))


if __name__ == "__main__":
    main()
