"""Every way an exchange may end: an answer of ours, an error, a cut, a client that is gone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from mitmproxy import http
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers import http as mitm
from mitmproxy.proxy.layers.http import SendHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestProtocolError,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
)

from tidegate.api import errors
from tidegate.api.types import Denial

from .answers import envelope
from .call import Call
from .http1 import BAD_BODY, BIG_TRAILERS
from .layers import MULTIPLEXED, Linger, Origin

type Commands = layer.CommandGenerator[None]

REFUSED: Final = "refused"
"""What became of a request that an HTTP/2 origin has not looked at (RFC 9113 §8.7)."""


class Ending(mitm.HttpStream):
    """What `Stream` does at its end. The states are there."""

    call: Call | None = None
    unread = True
    """Whether the request's end has not come yet."""

    def _send_response(self, trailers: http.Headers | None = None) -> Commands:
        response, call = self.flow.response, self.call
        assert response is not None
        content = response.data.content
        ended = not content and not trailers
        yield SendHttp(ResponseHeaders(self.stream_id, response, ended), self.context.client)
        if call is not None:
            call.head_sent = True
            call.sent(len(content or b""))
        if content:
            yield SendHttp(ResponseData(self.stream_id, content), self.context.client)

    def _finish(self, response: http.Response, trailers: http.Headers | None) -> Commands:
        """The upstream's answer is through."""
        call = self.call
        assert call is not None
        if trailers:
            yield SendHttp(ResponseTrailers(self.stream_id, trailers), self.context.client)
        if self.flow.websocket is None:
            call.finish()
        if self.unread:  # answered before the request's end: nobody wants the rest
            yield from self._close_upstream()
            yield from self._leave_unread()
        else:
            self.server_state = self.state_done
            yield from self.flow_done()
            self._let_go()

    def _answer(self) -> Commands:
        """Send the answer that a hook gave, without reading more of the request."""
        if self.flow.response is None:
            self.flow.response = envelope(errors.INTERNAL_ERROR.denial())
        response = self.flow.response
        if self.unread and self.context.client.alpn not in MULTIPLEXED:
            response.headers["connection"] = "close"
        yield from self._send_response()
        if self.call is not None:
            self.call.finish()
        if self.unread:
            yield from self._leave_unread()
        else:
            self._over()
            yield mitm.DropStream(self.stream_id)
            yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)

    def _leave_unread(self) -> Commands:
        """End the answer while the request still comes in, and hear no more of it."""
        self._over()
        yield mitm.DropStream(self.stream_id)
        yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)
        if self.context.client.alpn in MULTIPLEXED:
            error = ResponseProtocolError(self.stream_id, "unread", ErrorCode.CANCEL)
            yield SendHttp(error, self.context.client)
        else:
            yield Linger(self.context.client)

    def _fail(self, denial: Denial) -> Commands:
        """End with an error: as the answer, or if that has begun, by cutting it."""
        call = self.call
        assert call is not None
        call.failed(denial)
        yield from self._close_upstream()
        if not call.head_sent:
            self.flow.response = call.stand_in(denial) or call.error(denial)
            yield from self._answer()
            return
        tail = call.relay.cut(denial) if call.relay is not None else b""
        if tail:
            yield SendHttp(ResponseData(self.stream_id, tail), self.context.client)
        call.finish("failed")
        yield from self._kill()

    def _kill(self) -> Commands:
        self._over()
        error = ResponseProtocolError(self.stream_id, "killed", ErrorCode.KILL)
        yield SendHttp(error, self.context.client)
        yield mitm.DropStream(self.stream_id)

    def _gone(self) -> Commands:
        """The client has left."""
        if self.call is not None:
            self.call.leave()
        yield from self._close_upstream()
        self._over()
        yield mitm.DropStream(self.stream_id)

    def _left(self) -> bool:
        """Whether the client left while a hook was awaited."""
        return any(map(left, self._paused_event_queue))

    def _let_go(self) -> None:
        """Drop what was gathered: a flow is in a cycle of references and stays for a while."""
        if self.flow.websocket is None:
            for message in (self.flow.request, self.flow.response):
                if message is not None:
                    message.data.content = None
            self.flow.metadata.clear()
            self.call = None

    def _over(self) -> None:
        self.flow.live = False
        self.client_state = self.server_state = self.state_errored

    def _close_upstream(self) -> Iterator[Any]:
        origin = self.context.server
        if not isinstance(origin, Origin):
            return
        if origin.http2 is None:
            yield commands.CloseConnection(origin)
        elif origin.connected:  # other streams are on it
            error = RequestProtocolError(self.stream_id, "not wanted", ErrorCode.CANCEL)
            yield SendHttp(error, origin)


def left(event: events.Event) -> bool:
    """Whether an event says that the client is gone, or wants no answer any more."""
    return isinstance(event, RequestProtocolError) and event.message not in (BAD_BODY, BIG_TRAILERS)
