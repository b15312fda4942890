"""What addons have to say about connections: mitmproxy's hooks of their life and of their TLS.

An addon names them in `Plugin.connection_hooks`. They run before the engine's own, on addons that
enforce and whose scope takes the listener in. One that raises closes the client's connection:
what it would have decided is not known.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from mitmproxy.connection import Client, Server
from mitmproxy.hooks import Hook
from mitmproxy.proxy import server_hooks
from mitmproxy.proxy.layers import tls
from mitmproxy.tls import ClientHelloData, TlsData

from tidegate.runtime.addon import Addon
from tidegate.runtime.blame import place
from tidegate.runtime.guard import guarded, watch
from tidegate.runtime.lifecycle import Generation
from tidegate.runtime.step import Step

if TYPE_CHECKING:
    from .master import Entry, Master

log = logging.getLogger("tidegate.pipeline")

_CLIENT: Final = attrgetter("context.client")
HOOKS: Final[dict[type[Hook], tuple[str, Callable[[Any], Client]]]] = {
    server_hooks.ClientConnectedHook: ("client", lambda client: client),
    server_hooks.ClientDisconnectedHook: ("client", lambda client: client),
    server_hooks.ServerConnectHook: ("data", attrgetter("client")),
    server_hooks.ServerConnectedHook: ("data", attrgetter("client")),
    server_hooks.ServerConnectErrorHook: ("data", attrgetter("client")),
    server_hooks.ServerDisconnectedHook: ("data", attrgetter("client")),
    tls.TlsClienthelloHook: ("data", _CLIENT),
    tls.TlsStartClientHook: ("data", _CLIENT),
    tls.TlsEstablishedClientHook: ("data", _CLIENT),
    tls.TlsFailedClientHook: ("data", _CLIENT),
}
"""The hooks: what they are about, and whose connection that is."""

type Heard = list[tuple[Addon, Step]]


class Connections:
    """Calls the hooks that addons have about connections."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._generation: Generation | None = None
        self._heard: dict[str, Heard] = {}

    def wrap(self, table: dict[type, Entry]) -> None:
        """Put the addons' hooks before the engine's own in a table of hooks."""
        for kind, (argument, client) in HOOKS.items():
            get, own = table.get(kind, (attrgetter(argument), _nothing))
            table[kind] = (get, self._before(kind.name, client, own))

    def _before(
        self, name: str, client: Callable[[Any], Client], own: Callable[[Any], Any]
    ) -> Callable[[Any], Awaitable[None] | None]:
        def call(data: Any) -> Awaitable[None] | None:
            heard = self._of(name)
            if not heard:
                return own(data)  # type: ignore[no-any-return]
            if isinstance(data, ClientHelloData | TlsData):
                server = data.context.server
                server.peername = server.peername or server.address  # not connected as yet
            return self._run(heard, data, client(data), own)

        return call

    def _of(self, name: str) -> Heard:
        generation = self._master.runtime.current
        if generation is not self._generation:
            self._generation = generation
            self._heard = {}
            for addon in generation.addons:
                if addon.instance is None or addon.mode != "enforce":
                    continue
                for hook, functions in addon.instance.connection_hooks().items():
                    steps = [(addon, _step(addon, hook, fn)) for fn in functions]
                    self._heard.setdefault(hook, []).extend(steps)
        return self._heard.get(name, [])

    async def _run(
        self, heard: Heard, data: Any, client: Client, own: Callable[[Any], Any]
    ) -> None:
        """The addons' hooks, in file order, then the engine's own."""
        listener = self._master.listener_of(client.proxy_mode)
        for addon, step in heard:
            if addon.scope.listeners and listener not in addon.scope.listeners:
                continue
            if addon.rollout is not None and addon.rollout.outside_of(client.peername[0]):
                continue
            try:
                async with asyncio.timeout(self._master.gateway.deadlines.hooks):
                    await _call(step, data)
            except BaseException as error:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                self._failed(step, client, error)
                return
        if isinstance(data, ClientHelloData) and data.ignore_connection:
            self._passes(client)
            return
        result = own(data)
        if result is not None:
            await result

    def _failed(self, step: Step, client: Client, error: BaseException) -> None:
        step.counters.add("hook_failures_total")
        text = f"{type(error).__name__}: {str(error)[:300]}{place(error, step.code)}"
        log.error("addon %s failed in %s: %s", step.addon, step.hook, text)
        client.error = "an addon failed"
        handler = self._master.proxies.connections.get(client.id)
        if handler is not None and client in handler.transports:
            self._master.handler_by(client).close()

    def _passes(self, client: Client) -> None:
        """A script said that TLS shall not end here: what follows is a tunnel."""
        self._master.count("passed_connections_total")
        handler = self._master.handler_by(client)
        handler.tunnel_idle = self._master.policies[client.proxy_mode.full_spec].intercept.idle
        handler.idle_since = time.monotonic()

    async def about_server(self, kind: type[Hook], client: Client, server: Server) -> bool:
        """Tell of a connection to an upstream. False: it shall not be opened."""
        heard = self._of(kind.name)
        if heard:
            data = server_hooks.ServerConnectionHookData(server=server, client=client)
            await self._run(heard, data, client, _nothing)
        return not (server.error or client.error)


def _nothing(_: Any) -> None:
    """The engine has no hook of its own for this."""


def _step(addon: Addon, hook: str, fn: Callable[[Any], Any]) -> Step:
    """A step for the watchdog, and for what is told of a failure."""
    assert addon.instance is not None
    counters = addon.instance.context.counters
    step = Step("authorize", addon.name, fn, counters=counters)
    step.hook = hook
    return step


async def _call(step: Step, data: Any) -> None:
    watch.step = step
    try:
        result = step.call(data)
    finally:
        watch.step = None
    if inspect.iscoroutine(result):
        await guarded(result, step)
    elif inspect.isawaitable(result):
        await result
