"""A companion's main: one process, one loop, and one addon that serves on a socket of its own.

Started by the supervisor as a worker is; see `wire.py` for what is said. Of that, a companion
hears `start` (`slot` is the addon's name) and `drain`, and tells `ready` and `failed`.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from contextlib import AsyncExitStack
from pathlib import Path

from tidegate.runtime.lifecycle import Host, make_addons
from tidegate.runtime.problems import ConfigError, Problem

from . import child
from .source import Source
from .wire import Channel, Message

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


def main() -> None:
    """Entry of the process: `python -P -m tidegate.cli.companion FD`."""
    child.main(serve, log)


if __name__ == "__main__":
    main()
