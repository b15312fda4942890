"""WebSocket messages on their way through the event hooks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, cast

from mitmproxy.proxy import events, layer
from mitmproxy.proxy.layers import websocket as mitm
from wsproto import events as ws
from wsproto.connection import ConnectionState
from wsproto.frame_protocol import CloseReason

from tidegate.api.exchange import PUSH, Exchange
from tidegate.api.types import WsMessage
from tidegate.runtime.faults import StreamCut

from .call import CALL, Call
from .limits import limits


class Connection(mitm.WebsocketConnection):
    """One side. What it receives is given out as the hooks left it."""

    call: Call | None = None
    from_client = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._parts: list[bytes] = []
        self._size = 0

    def events(self) -> Iterator[ws.Event]:
        """What was received: whole messages, transformed; everything else as it is."""
        for event in super().events():
            if isinstance(event, ws.Message) and self.call is not None:
                yield from self._message(self.call, event)
            else:
                yield event

    def _message(self, call: Call, event: ws.Message[Any]) -> Iterator[ws.Event]:
        data = event.data.encode() if isinstance(event.data, str) else bytes(event.data)
        self._size += len(data)
        (call.received if self.from_client else call.sent)(len(data))
        if self._size > limits().gather:
            yield ws.CloseConnection(code=CloseReason.MESSAGE_TOO_BIG)
            return
        finished = event.message_finished
        if finished:
            self._size = 0
        if not call.pipeline.events:
            yield event
            return
        self._parts.append(data)
        if not finished:
            return
        text = isinstance(event, ws.TextMessage)
        message = WsMessage(b"".join(self._parts), from_client=self.from_client, text=text)
        self._parts.clear()
        try:
            results = call.pipeline.event(call.exchange, message)
        except StreamCut as cut:
            call.failed(cut.denial)
            yield ws.CloseConnection(code=CloseReason.INTERNAL_ERROR, reason=cut.denial.code)
            return
        for result in results:
            assert isinstance(result, WsMessage)
            yield _wire(result)


class Push(events.MessageInjected[WsMessage]):
    """A message that an addon sends of its own. The layers above find this one by the flow."""


class Layer(mitm.WebsocketLayer):
    """Both sides of one WebSocket."""

    def start(self, event: Any) -> layer.CommandGenerator[None]:
        """Set the sides up; the exchange's call watches both."""
        yield from super().start(event)
        call = self.flow.metadata.get(CALL)
        for side in (self.client_ws, self.server_ws):
            assert isinstance(side, Connection)
            side.call = call
            side.from_client = side is self.client_ws
        if call is not None:
            call.exchange.stash[PUSH] = partial(self._push, call)

    _handle_event = start

    def _push(self, call: Call, exchange: Exchange, message: WsMessage) -> None:
        """Send a message, after what is being processed. An exchange of a shadow is a copy."""
        if exchange is call.exchange and self.flow.live:
            call.handler.post(Push(self.flow, message))

    def relay_messages(self, event: events.Event) -> layer.CommandGenerator[None]:
        """As mitmproxy's; and what addons push."""
        if not isinstance(event, Push):
            yield from super().relay_messages(event)
            return
        message = event.message
        to = self.server_ws if message.from_client else self.client_ws
        if to.state is not ConnectionState.OPEN:
            return
        call = cast(Connection, to).call
        assert call is not None
        if not message.from_client:
            call.sent(len(message.content))
        yield to.send2(_wire(message))

    def done(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Whatever comes now comes too late."""
        yield from ()


def _wire(message: WsMessage) -> ws.Event:
    if message.text:
        return ws.TextMessage(data=message.content.decode(errors="replace"))
    return ws.BytesMessage(data=message.content)
