"""A mitmproxy Master with the few addons it needs, and one table of hooks.

mitmproxy calls a hook on every addon by name, which costs 8 µs a hook; here a hook's type leads
to the function that takes it. There can be one Master per process: mitmproxy's `ctx` is global.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import mitmproxy.master
import mitmproxy_rs
from mitmproxy import hooks, http, options
from mitmproxy.addons import core, dns_resolver
from mitmproxy.connection import Client
from mitmproxy.proxy import commands, mode_specs

from tidegate.runtime.ca import ensure_ca
from tidegate.runtime.intercepts import split_mode
from tidegate.runtime.lifecycle import Runtime
from tidegate.runtime.settings import Gateway, Settings

from . import patches
from .bridge import Bridge
from .ca import leaf_store
from .connections import Connections
from .frames import Resets
from .gateway import GatewayMode
from .lanes import Lane
from .modes import Proxies
from .passing import NextLayer
from .policies import Policies
from .quic_handler import QuicHandler
from .refusals import Refusals
from .tls import TlsConfig
from .wireguard import ensure_keys

if TYPE_CHECKING:
    from .handler import Handler

OPTIONS: Final[dict[str, Any]] = {
    "connection_strategy": "lazy",
    "rawtcp": False,
    "server": True,
    "store_streamed_bodies": False,
    "upstream_cert": False,
    "validate_inbound_headers": True,
    "websocket": True,
}

SENT: Final = 0.1
"""Seconds that a last datagram may take to leave."""

CLOSED: Final = 1.0
"""Seconds that ports which mitmproxy_rs has opened may take to close."""

type Entry = tuple[Callable[[Any], Any], Callable[[Any], Any]]


class StartError(Exception):
    """A mode could not be started; says which and why."""


class Master(mitmproxy.master.Master):
    """The engine's master."""

    def __init__(
        self,
        runtime: Runtime,
        settings: Settings,
        lane: Lane | None = None,
        *,
        first: bool = True,
        successor: bool = False,
    ) -> None:
        patches.install()
        super().__init__(options.Options(), asyncio.get_running_loop())
        self._legacy_log_events.uninstall()
        logging.getLogger("mitmproxy").setLevel(logging.WARNING)
        logging.getLogger("quic").setLevel(logging.ERROR)  # aioquic's: what clients do wrong
        self.runtime = runtime
        self.settings = settings
        self.lane = lane
        self.successor = successor
        self.intercepts = tuple(x for x in settings.intercepts if x.addresses or first)
        self.names = {x.mode: x.name for x in self.intercepts}
        self.refusals = Refusals(self)
        self.resets = Resets()
        self.bridge = Bridge(self)
        self.proxies = Proxies(self)
        self._tasks: set[asyncio.Task[Any]] = set()
        addons: list[Any] = [core.Core(), self.proxies, NextLayer(self)]
        if self.intercepts:
            leaves = leaf_store(ensure_ca(runtime.host.state))
            self.policies = Policies(settings, leaves.permits)
            addons += [TlsConfig(leaves), self.refusals]
        if any(x.kind == "wireguard" for x in self.intercepts):
            addons.append(dns_resolver.DnsResolver())
        self.addons.add(*addons)  # type: ignore[no-untyped-call]
        self.table = hook_table(addons[1:], self.bridge)
        self.connections = Connections(self)
        self.connections.wrap(self.table)

    @property
    def gateway(self) -> Gateway:
        """`[gateway]` as it is now."""
        return self.settings.gateway

    async def start(self, sockets: dict[str, list[Any]]) -> None:
        """Open every port. Raises StartError."""
        confdir = self.runtime.host.state / "mitmproxy"
        confdir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.proxies.sockets = sockets
        try:
            for intercept in self.intercepts:
                if intercept.kind == "wireguard" and (keys := split_mode(intercept.mode)[1]):
                    ensure_keys(Path(keys).expanduser())
            self.options.update(  # type: ignore[no-untyped-call]
                confdir=str(confdir), mode=self.proxies.modes(), **OPTIONS
            )
        except Exception as error:
            raise StartError(str(error)) from error
        if not await self.proxies.setup_servers():
            reasons = [
                str(s.last_exception) for s in self.proxies.servers if s.last_exception is not None
            ]
            await self.stop_servers()
            raise StartError("; ".join(reasons))
        await self.running()

    def reconfigure(self, settings: Settings) -> None:
        """Take new settings over, for connections and exchanges that begin now."""
        self.settings = settings
        self.bridge.reconfigure()
        if self.intercepts:
            self.policies.reconfigure(settings)

    def count(self, name: str) -> None:
        """Add one to a counter of core's."""
        self.runtime.counters.add(name)

    async def stop_servers(self) -> None:
        """Close every port of ours. What came by UDP ends with its port, and is told so."""
        ended = [handler for handler in self.handlers if isinstance(handler, QuicHandler)]
        for handler in ended:
            handler.end_calls()
            handler.close()
        if ended:
            await asyncio.sleep(SENT)
        native = [
            server
            for instance in self.proxies.servers
            for server in getattr(instance, "_servers", ())
            if isinstance(
                server, mitmproxy_rs.udp.UdpServer | mitmproxy_rs.wireguard.WireGuardServer
            )
        ]
        await self.proxies.servers.update(())
        with suppress(TimeoutError):  # a thread of theirs that outlives the loop crashes the exit
            async with asyncio.timeout(CLOSED):
                for server in native:
                    await server.wait_closed()

    @property
    def handlers(self) -> list[Handler]:
        """The open client connections."""
        return cast("list[Handler]", list(self.proxies.connections.values()))

    # -- hooks --------------------------------------------------------------------------------

    def call(self, hook: commands.StartHook) -> Awaitable[None] | None:
        """Call what takes a hook; what it returns is to be awaited."""
        entry = self.table.get(type(hook))
        if entry is None:
            return None
        argument, function = entry
        return cast("Awaitable[None] | None", function(argument(hook)))

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Hold a task until it is done: the loop itself only holds it weakly."""
        if not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def handler_of(self, flow: http.HTTPFlow) -> Handler:
        """The connection that a flow belongs to."""
        return self.handler_by(flow.client_conn)

    def handler_by(self, client: Client) -> Handler:
        """The connection that a client opened."""
        return cast("Handler", self.proxies.connections[client.id])

    def listener_of(self, mode: mode_specs.ProxyMode) -> str:
        """The name that hooks and scopes know a mode by."""
        if isinstance(mode, GatewayMode):
            return mode.data
        return self.names[mode.full_spec]


def hook_table(addons: list[Any], bridge: Bridge) -> dict[type, Entry]:
    """hook type → (how to get its argument, what to call). What the bridge takes is its alone."""
    table: dict[type, Entry] = {}
    for name, hook in hooks.all_hooks.items():
        fields = list(getattr(hook, "__dataclass_fields__", ()))
        if len(fields) != 1 or not issubclass(hook, commands.StartHook):
            continue
        owners = [bridge] if hasattr(bridge, name) else addons
        takers = [taker for owner in owners if callable(taker := getattr(owner, name, None))]
        if not takers:
            continue
        if len(takers) > 1:
            raise RuntimeError(f"two addons take the hook {name}")
        table[hook] = (attrgetter(fields[0]), takers[0])
    return table
