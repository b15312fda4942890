"""The pipeline, called from mitmproxy's hooks. The only addon with policy in it.

Default deny: the layer sends a request upstream only where a hook here has set `call.ready`.
Whatever goes wrong in here ends the exchange with 500 `internal_error`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from mitmproxy import http
from mitmproxy.net.http.validate import validate_headers

from tidegate.api import errors
from tidegate.api.exchange import Exchange
from tidegate.api.types import Client, Denial
from tidegate.api.upstream import Attempt
from tidegate.runtime.drive import drive, run_until_wait
from tidegate.runtime.heads import HeadError, TrustedProxies, open_exchange
from tidegate.runtime.load import Load
from tidegate.runtime.messages import Fields
from tidegate.runtime.pipeline import Pipeline

from .answers import closes, content_length, envelope, switching, whole
from .call import CALL, UNREAD, Call
from .destinations import Destination, original
from .gateway import METHODS, GatewayMode
from .incoming import receive_head, receive_whole
from .outgoing import send

if TYPE_CHECKING:
    from .handler import Handler
    from .master import Master

log = logging.getLogger("tidegate.engine")

TICK: Final = 0.25
"""Seconds between looks at deadlines and at the load."""

type Phase = Callable[[Bridge, Call, http.HTTPFlow], Coroutine[Any, Any, None]]


class Bridge:
    """mitmproxy's hooks. One that need not wait returns None, else an awaitable."""

    def __init__(self, master: Master) -> None:
        self.master = master
        self.active = 0
        self.parting = False
        self.draining = False
        self.load = Load(TICK, time.monotonic())
        self.reconfigure()

    def reconfigure(self) -> None:
        """Take new settings over, for exchanges that begin now."""
        self.proxies = TrustedProxies(self.master.gateway.trusted_proxies)
        self.load.configure(self.master.gateway)

    def closed(self) -> None:
        """A call is over."""
        self.active -= 1

    def part(self) -> None:
        """From now on answers say that their connection closes. Idle ones stay open."""
        self.parting = True
        for handler in self.master.handlers:
            for call in handler.calls:
                call.close = True

    # -- hooks --------------------------------------------------------------------------------

    def requestheaders(self, flow: http.HTTPFlow) -> Awaitable[None] | None:
        """A request head: open the exchange, run the hooks that need no body."""
        handler = self.master.handler_of(flow)
        try:
            call = self._open(handler, flow)
        except HeadError as error:
            flow.response = envelope(error.denial)
            return None
        except BaseException:
            log.exception("an exchange could not be opened")
            return None  # without a call the layer answers 500
        return self._run(_head, call, flow)

    def request(self, flow: http.HTTPFlow) -> Awaitable[None] | None:
        """A request whose body was gathered: run the hooks from the first that needs it."""
        return self._run(_body, flow.metadata[CALL], flow)

    def responseheaders(self, flow: http.HTTPFlow) -> Awaitable[None] | None:
        """The head of an upstream's answer: gather its body, or transform and stream."""
        call: Call = flow.metadata[CALL]
        assert flow.response is not None
        if not call.held:  # else it has been told before
            call.answered(flow.response.data.status_code)
        return self._run(receive_head, call, flow)

    def response(self, flow: http.HTTPFlow) -> Awaitable[None] | None:
        """A whole answer: transform it."""
        call: Call = flow.metadata[CALL]
        response = flow.response
        assert response is not None
        if flow.websocket is not None:
            flow.response = switching(call.exchange, response)
            return None
        return self._run(receive_whole, call, flow)

    def websocket_message(self, flow: http.HTTPFlow) -> None:
        """A message has passed: mitmproxy keeps them all, which is too much."""
        assert flow.websocket is not None
        flow.websocket.messages.clear()

    def websocket_end(self, flow: http.HTTPFlow) -> None:
        """Both sides have said goodbye, or one just left."""
        call: Call = flow.metadata[CALL]
        call.finish()

    # -- machinery ----------------------------------------------------------------------------

    def _open(self, handler: Handler, flow: http.HTTPFlow) -> Call:
        """The call of a request head. HeadError: it is not acceptable."""
        request = flow.request
        try:
            validate_headers(request)
        except ValueError:
            raise HeadError(errors.BAD_REQUEST_FRAMING.denial()) from None
        if request.data.method == b"CONNECT":
            raise HeadError(errors.UPGRADE_NOT_ALLOWED.denial("No tunnels are opened here."))
        if isinstance(flow.client_conn.proxy_mode, GatewayMode):
            _as_the_lane(request)
        target, fields = target_of(request)
        exchange = open_exchange(
            request.data.method,
            target,
            fields,
            self.client_of(handler, fields),
            listener=self.master.listener_of(flow.client_conn.proxy_mode),
            http_version=request.data.http_version,
            paths=self.master.gateway.paths,
        )
        pipeline = self.master.runtime.enter(exchange)
        origin = original(handler, flow)
        if origin is not None:
            self.master.refusals.accepted(handler)
            if self._unlisted(flow, origin):
                pipeline = Pipeline(pipeline.generation, ())
        call = Call(handler, exchange, pipeline)
        self.active += 1
        call.close = self.parting or closes(request)
        call.unread = flow.metadata[UNREAD]
        flow.metadata[CALL] = call
        exchange.upstream = origin
        return call

    def _unlisted(self, flow: http.HTTPFlow, origin: Destination) -> bool:
        """Whether no hook may see a request: one in cleartext, by proxy, to a host not listed."""
        policy = self.master.policies[flow.client_conn.proxy_mode.full_spec]
        asked = policy.explicit and flow.server_conn.address is None
        return asked and not policy.lists((origin.host.lower(),))

    def _run(self, phase: Phase, call: Call, flow: http.HTTPFlow) -> Awaitable[None] | None:
        coro = self._guarded(phase, call, flow)
        if call.pipeline.suspends:
            return coro
        _, rest = run_until_wait(coro)
        return rest

    async def _guarded(self, phase: Phase, call: Call, flow: http.HTTPFlow) -> None:
        """Run a phase. What it raises denies; a cancellation means that the client left."""
        task = asyncio.current_task() if call.pipeline.suspends else None
        call.task = task
        try:
            await phase(self, call, flow)
        except asyncio.CancelledError:
            call.ready = False
            call.leave()
            if task is not None:
                task.uncancel()
        except BaseException:
            log.exception("exchange %s: the bridge failed", call.exchange.id)
            call.ready = False
            call.refused = errors.INTERNAL_ERROR.denial()
            self.deny(call, flow, call.refused)
        finally:
            call.task = None

    def drive[T](self, call: Call, coro: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        """Run hooks within their deadline."""
        seconds = self.master.gateway.deadlines.hooks
        return drive(coro, call.pipeline, call.exchange, seconds)

    def deny(self, call: Call, flow: http.HTTPFlow, denial: Denial) -> None:
        """Answer with an error."""
        call.exchange.denial = denial
        flow.response = call.error(denial)

    async def answer_here(self, call: Call, flow: http.HTTPFlow) -> None:
        """Send what a hook answered, after the response transforms that it meets."""
        exchange = call.exchange
        if exchange.denial is None:
            await self.drive(call, call.pipeline.response(exchange))
        if exchange.denial is not None:
            self.deny(call, flow, exchange.denial)
            return
        assert exchange.response is not None
        flow.response = whole(exchange, exchange.response, close=call.close)

    def client_of(self, handler: Handler, fields: Fields) -> Client:
        """Who is calling. The same object for all requests of a connection, where it may be."""
        client = handler.peer
        if client is None:
            conn = handler.client
            assert conn.peername
            address, port = conn.peername[:2]
            client = handler.peer = Client(
                address,
                port,
                address,
                tls=conn.tls,
                sni=conn.sni,
                certificate=handler.certificate,
            )
        address = self.proxies.client_address(client.peer, fields)
        if address == client.peer:
            return client
        return Client(address, client.port, client.peer, client.tls, client.sni, client.certificate)

    def tell(self, exchange: Exchange, attempt: Attempt) -> None:
        """Tell the upstream how an attempt ended."""
        try:
            if exchange.upstream is not None:
                exchange.upstream.ended(exchange, attempt)
        except Exception:
            log.exception("upstream %s failed to take note", attempt.upstream.name)


async def _head(bridge: Bridge, call: Call, flow: http.HTTPFlow) -> None:
    exchange, pipeline = call.exchange, call.pipeline
    allowed = bridge.master.gateway.limits.body
    known = content_length(flow.request) if call.unread else 0
    length = known or 0
    if length > allowed:
        bridge.deny(call, flow, errors.BODY_TOO_LARGE.denial())
    elif bridge.load.shedding:
        bridge.deny(call, flow, errors.OVERLOADED.denial(retry_after=1.0))
    elif not await bridge.drive(call, pipeline.request(exchange, 0, pipeline.body_at)):
        await bridge.answer_here(call, flow)
    elif pipeline.gathers(exchange, None if "expect" in flow.request.headers else known):
        call.gathering = True
        call.request_limit = min(allowed, pipeline.request_limit)
        if length > call.request_limit:
            bridge.deny(call, flow, errors.BODY_TOO_LARGE.denial())
        else:
            call.ready = True
    elif pipeline.body_at < len(pipeline.steps) and not await bridge.drive(
        call, pipeline.request(exchange, pipeline.body_at)
    ):
        await bridge.answer_here(call, flow)
    else:
        call.request_limit = allowed
        send(bridge, call, flow)


async def _body(bridge: Bridge, call: Call, flow: http.HTTPFlow) -> None:
    exchange, pipeline = call.exchange, call.pipeline
    denial = call.take_body(flow.request.data.content or b"")
    if denial is not None:
        bridge.deny(call, flow, denial)
    elif await bridge.drive(call, pipeline.request(exchange, pipeline.body_at)):
        send(bridge, call, flow)
    else:
        await bridge.answer_here(call, flow)


def _as_the_lane(request: http.Request) -> None:
    """What a gateway listener refuses on either carrier. Raises HeadError."""
    if request.data.method not in METHODS:
        raise HeadError(errors.BAD_REQUEST_FRAMING.denial("The method is not known."))
    for name, value in request.data.headers.fields:
        if len(name) == 7 and name.lower() == b"upgrade" and value.strip().lower() == b"h2c":
            raise HeadError(errors.UPGRADE_NOT_ALLOWED.denial())


def target_of(request: http.Request) -> tuple[bytes, Fields]:
    """The request target as it was sent, and the fields with a Host among them."""
    data = request.data
    fields: Fields = data.headers.fields
    if data.http_version in (b"HTTP/2.0", b"HTTP/3"):
        if data.authority and not any(name.lower() == b"host" for name, _ in fields):
            fields = ((b"host", data.authority), *fields)
        return data.path, fields
    if data.authority:
        return data.scheme + b"://" + data.authority + data.path, fields
    return data.path, fields
