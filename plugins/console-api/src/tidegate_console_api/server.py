"""The HTTP server of the console process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from .app import make_door
from .door import Door

if TYPE_CHECKING:
    from .plugin import ConsoleApi

GRACE: Final = 5
"""Seconds in which requests in progress end when the process leaves."""
CONNECTIONS: Final = 500


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # the process has its own


@asynccontextmanager
async def serving(addon: ConsoleApi, listener: socket.socket) -> AsyncIterator[None]:
    """Serve on `listener` within the block."""
    door = await asyncio.to_thread(_make, addon)
    tls: dict[str, Any] = {}
    if addon.config.tls is not None:
        base = addon.context.base
        tls["ssl_certfile"] = base / addon.config.tls.cert
        tls["ssl_keyfile"] = base / addon.config.tls.key
    server = _Server(
        uvicorn.Config(
            door,
            http="h11",  # it limits the size of a head
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=GRACE,
            **tls,
        )
    )
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        if task.done():
            task.result()
            raise RuntimeError("the console's server did not start")
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        await task


def _make(addon: ConsoleApi) -> Door:
    context = addon.context
    return make_door(addon.config, context.platform_store(), context.addons())
