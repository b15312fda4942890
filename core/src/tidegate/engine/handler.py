"""One client connection: the commands of its layers become I/O, hooks become calls, time ends.

In place of mitmproxy's: events are processed from a queue instead of behind a lock, a hook that
does not wait costs no task, and a layer that crashes ends its connection with an answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

from mitmproxy.connection import Connection, ConnectionState, Server
from mitmproxy.proxy import commands, events, server_hooks
from mitmproxy.proxy.mode_servers import ProxyConnectionHandler
from mitmproxy.proxy.server import ConnectionIO, TimeoutWatchdog

from tidegate.api import errors
from tidegate.api.types import Client
from tidegate.api.upstream import Upstream
from tidegate.runtime.dial import DialError
from tidegate.runtime.lifecycle import LAST_CALL

from .answers import envelope, wire
from .call import Call
from .destinations import Destination, connect, reaches_local
from .layers import MULTIPLEXED, HttpLayer, Linger, Origin, Overdue, Released, Written
from .loop import eager
from .pace import due
from .passing import tell_silence
from .sparse import Sparse

if TYPE_CHECKING:
    from . import http2, http3
    from .bridge import Bridge
    from .master import Master

log = logging.getLogger("tidegate.engine")
told = Sparse(log)

LINGER: Final = 1.0
"""Seconds between the end of our answer and the close, where the client still sends."""

UPLOAD: Final = 64 * 1024
"""Bytes that may wait to be written to an upstream before an HTTP/2 client is held up."""
TUNNEL_DRAIN: Final = 2.0
"""Seconds without a byte after which a drain ends a connection that passes."""


class Idle(TimeoutWatchdog):
    """mitmproxy's own timer, at rest: deadlines are `Handler.check`'s."""

    def __init__(self) -> None:
        pass

    def register_activity(self) -> None:
        """Nothing to note."""

    async def watch(self) -> None:
        """Nothing to watch."""


class Handler(ProxyConnectionHandler):
    """A client connection and the upstream connections made for it."""

    master: Master

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)  # type: ignore[no-untyped-call]
        self.timeout_watchdog = Idle()
        self.calls: set[Call] = set()
        self.idle_since = time.monotonic()
        self.head_since = 0.0
        self.gone = asyncio.Event()
        self.certificate: bytes | None = None
        self.peer: Client | None = None
        self.destinations: dict[tuple[Any, ...], Destination] = {}
        self.tunnel_idle = 0.0
        self.heard = False
        self.shaken = ""
        self.http2: http2.Server | http3.Server | None = None
        self._events: deque[events.Event] = deque()
        self._busy = False
        self._lingering = False

    @property
    def plain(self) -> bool:
        """Whether the client's bytes are HTTP/1.1 as they are read here (TLS is uvloop's)."""
        return self.client.alpn != b"h2" and isinstance(self.layer, HttpLayer)

    @property
    def bridge(self) -> Bridge:
        """The bridge of the master that this connection belongs to."""
        return self.master.bridge

    async def handle_client(self) -> None:
        """Serve the connection to its end."""
        try:
            await super().handle_client()
        finally:
            for call in tuple(self.calls):
                call.leave()
            self.master.refusals.left(self)
            self.gone.set()

    # -- events -------------------------------------------------------------------------------

    async def server_event(self, event: events.Event) -> None:
        """Take an event of a connection, a hook or a timer."""
        self.post(event)

    def post(self, event: events.Event) -> None:
        """Process an event, after those that are being processed."""
        if isinstance(event, events.DataReceived) and not self.calls:
            self.heard = True
            if self.tunnel_idle or self.client.alpn in MULTIPLEXED:
                self.idle_since = time.monotonic()
            elif not self.head_since:
                self.head_since = time.monotonic()
        self._events.append(event)
        if self._busy:
            return
        self._busy = True
        try:
            while self._events:
                next_event = self._events.popleft()
                for command in self.layer.handle_event(next_event):
                    self._perform(command)
        except Exception:
            log.exception("a layer failed: the connection is closed")
            self._events.clear()
            self._crashed()
        finally:
            self._busy = False

    def _perform(self, command: commands.Command) -> None:
        if isinstance(command, commands.SendData):
            io = self.transports.get(command.connection)
            if io is not None and io.writer is not None and not io.writer.is_closing():
                cast(asyncio.StreamWriter, io.writer).write(command.data)
        elif isinstance(command, commands.StartHook):
            self._hook(command)
        elif isinstance(command, commands.Log):
            if command.level >= logging.WARNING:
                told.log(command.level, "%s", command.message)
        elif isinstance(command, commands.OpenConnection):
            io = self.transports[command.connection] = ConnectionIO()
            io.handler = eager(self.open_connection(command))
        elif isinstance(command, commands.ConnectionCommand):
            if command.connection in self.transports:
                if isinstance(command, Linger):
                    self._linger(command.connection)
                else:
                    half = isinstance(command, commands.CloseTcpConnection) and command.half_close
                    self.close_connection(command.connection, half)
        elif isinstance(command, commands.RequestWakeup):
            self.wakeup_timer.add(asyncio.create_task(self.wakeup(command)))
        else:
            raise RuntimeError(f"unexpected command: {command!r}")

    def _hook(self, hook: commands.StartHook) -> None:
        """Call a hook; only one that waits gets a task."""
        waiting = self.master.call(hook)
        if waiting is not None:
            task = eager(self._await(waiting, hook))
            self.master.keep(task)
        elif hook.blocking:
            self._events.append(events.HookCompleted(hook))

    async def _await(self, waiting: Awaitable[None], hook: commands.StartHook) -> None:
        try:
            await waiting
        except Exception:
            log.exception("hook %s failed", hook.name)
        if hook.blocking:
            self.post(events.HookCompleted(hook))

    async def handle_hook(self, hook: commands.StartHook) -> None:
        """Call a hook of the connection's own life (connected, disconnected)."""
        waiting = self.master.call(hook)
        if waiting is not None:
            await waiting

    def _crashed(self) -> None:
        """Say 500 where nothing was said yet, and close."""
        io = self.transports.get(self.client)
        writer = cast("asyncio.StreamWriter | None", io.writer) if io is not None else None
        for call in tuple(self.calls):
            denial = errors.INTERNAL_ERROR.denial()
            if writer is not None and not call.head_sent and self.plain:
                call.head_sent = True
                writer.write(wire(envelope(denial, call.exchange.id)))
            call.failed(denial)
            call.finish("failed")
        for connection in tuple(self.transports):
            self.close_connection(connection)

    # -- connections --------------------------------------------------------------------------

    async def open_connection(self, command: commands.OpenConnection) -> None:
        """Open a connection and serve it to its end."""
        origin = command.connection
        assert isinstance(origin, Server)
        if origin.transport_protocol == "udp":
            await super().open_connection(command)
            return
        upstream = origin.upstream if isinstance(origin, Origin) else self._tunnelled(origin)
        origin.timestamp_start = time.time()
        error = ""
        about = self.master.connections.about_server
        if not await about(server_hooks.ServerConnectHook, self.client, origin):
            self.transports.pop(origin, None)
            await about(server_hooks.ServerConnectErrorHook, self.client, origin)
            origin.error = errors.UPSTREAM_UNREACHABLE.code
            self.post(events.OpenConnectionCompleted(command, origin.error))
            return
        try:
            reader, writer = await connect(upstream, http2=self.http2 is not None)
        except asyncio.CancelledError:
            origin.error = errors.UPSTREAM_UNREACHABLE.code
            self.transports.pop(origin, None)
            self.post(events.OpenConnectionCompleted(command, origin.error))
            raise
        except DialError as failure:
            error = failure.code.code
            told.warning("upstream %s: %s", upstream.name, failure)
        if error:
            origin.error = error
            self.transports.pop(origin, None)
            await about(server_hooks.ServerConnectErrorHook, self.client, origin)
            self.post(events.OpenConnectionCompleted(command, error))
            return
        origin.timestamp_tcp_setup = time.time()
        origin.state = ConnectionState.OPEN
        tls = writer.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() == "h2":
            origin.alpn = b"h2"
        origin.peername = writer.get_extra_info("peername")
        origin.sockname = writer.get_extra_info("sockname")
        task = asyncio.current_task()
        self.transports[origin] = ConnectionIO(handler=task, reader=reader, writer=writer)
        await about(server_hooks.ServerConnectedHook, self.client, origin)
        self.post(events.OpenConnectionCompleted(command, None))
        try:
            await self.handle_connection(origin)
        finally:
            origin.timestamp_end = time.time()
            await about(server_hooks.ServerDisconnectedHook, self.client, origin)

    def _tunnelled(self, server: Server) -> Upstream:
        """Where a connection leads that no exchange uses: a tunnel's, or one to a proxy."""
        assert server.address is not None
        host, port = server.address[:2]
        policy = self.master.policies[self.client.proxy_mode.full_spec]
        name = f"{host}:{port}"
        return Destination(name, "http", host, port, local=reaches_local(policy))

    async def handle_connection(self, connection: Connection) -> None:
        """As mitmproxy's: read to the end, but at the pace of whoever takes it."""
        io = self.transports[connection]
        reader = io.reader
        assert reader is not None
        cancelled = None
        try:
            while data := await reader.read(65535):
                if self._lingering and connection is self.client:
                    continue
                self.post(events.DataReceived(connection, data))
                await self._pace(connection)
        except OSError:
            pass
        except asyncio.CancelledError as error:
            cancelled = error
        if cancelled is None and connection.transport_protocol == "tcp":
            connection.state &= ~ConnectionState.CAN_READ
        else:
            connection.state = ConnectionState.CLOSED
        self.post(events.ConnectionClosed(connection))
        if connection.state is ConnectionState.CAN_WRITE:
            try:  # until it is closed: we may still send
                await asyncio.Event().wait()
            except asyncio.CancelledError as error:
                cancelled = error
        with suppress(OSError):
            cast(asyncio.StreamWriter, io.writer).close()
        self.transports.pop(connection, None)
        if cancelled is not None:
            try:
                raise cancelled
            finally:  # it holds this frame, and with it the buffers of the connection
                cancelled = None

    async def _pace(self, connection: Connection) -> None:
        """Wait until what was read has been taken.

        On HTTP/2 each stream has its own pace: a client is only held up by itself (its windows
        hold the streams), an upstream by the client and by its stream's window.
        """
        if self.http2 is None:
            await self.drain_writers()  # type: ignore[no-untyped-call]
            return
        io = self.transports.get(self.client)
        if io is not None and io.writer is not None:
            await io.writer.drain()
        if isinstance(connection, Origin) and connection.http2 is None:
            while (held := self.http2.held.get(connection.stream_id)) is not None:
                await held.wait()

    def when_written(self, connection: Connection, stream_id: int) -> bool:
        """Post `Written` when an upstream has taken what was sent. False: it has."""
        io = self.transports.get(connection)
        writer = cast("asyncio.StreamWriter | None", io.writer) if io is not None else None
        if writer is None or writer.transport.get_write_buffer_size() <= UPLOAD:
            return False
        self._post_after(writer.drain(), Written(stream_id))
        return True

    def when_released(self, connection: Connection, stream_id: int) -> bool:
        """Post `Released` when a client has taken what a stream got. False: it has."""
        held = self.http2.held.get(stream_id) if self.http2 is not None else None
        if held is None:
            return False
        self._post_after(held.wait(), Released(connection, stream_id))
        return True

    def _post_after(self, wait: Coroutine[Any, Any, Any], event: events.Event) -> None:
        async def post() -> None:
            with suppress(OSError):
                await wait
            self.post(event)

        self.master.keep(eager(post()))

    def close_connection(self, connection: Connection, half_close: bool = False) -> None:
        """Close a connection, or its writing half."""
        io = self.transports.get(connection)
        if io is None or io.handler is None:
            return
        super().close_connection(connection, half_close)

    def _linger(self, connection: Connection) -> None:
        writer = cast(asyncio.StreamWriter, self.transports[connection].writer)
        transport = getattr(writer, "transport", None)  # a WireGuard stream has none
        if writer.is_closing() or not (transport is None or transport.can_write_eof()):
            self.close_connection(connection)
            return
        self._lingering = True
        writer.write_eof()
        if transport is not None and cast(asyncio.ReadTransport, transport).is_reading():
            cast(asyncio.ReadTransport, transport).pause_reading()
        asyncio.get_running_loop().call_later(LINGER, self.close_connection, connection)

    # -- deadlines ----------------------------------------------------------------------------

    def check(self, now: float, *, draining: bool) -> None:
        """Called now and then: end what is over its time."""
        if not self.calls:
            self._check_idle(now, draining=draining)
            return
        self.idle_since = now
        for event in due(self, now):
            self.post(event)

    def _check_idle(self, now: float, *, draining: bool) -> None:
        if self._lingering or self.client not in self.transports:
            return
        if self.tunnel_idle:
            if now - self.idle_since > (TUNNEL_DRAIN if draining else self.tunnel_idle):
                self.close()
            return
        limits = self.master.gateway.deadlines
        if self.head_since:  # a head has begun: not idle, and not yet an exchange
            if now - self.head_since > limits.head:
                if self.plain:
                    io = self.transports[self.client]
                    last = wire(envelope(errors.REQUEST_TIMEOUT.denial()))
                    cast(asyncio.StreamWriter, io.writer).write(last)
                self.close()
        elif now - self.idle_since > (LAST_CALL if draining else limits.keepalive) or (
            self.http2 is not None
            and self.http2.partial_since
            and now - self.http2.partial_since > limits.head
        ):
            if not self.heard:
                tell_silence(self)
            self.close()

    def end_calls(self) -> None:
        """The drain is over: end what is still in progress with an error."""
        for call in tuple(self.calls):
            self.post(Overdue(call, errors.DRAINING.denial()))

    def close(self) -> None:
        """Close the client's connection, and with it everything."""
        self.close_connection(self.client)
