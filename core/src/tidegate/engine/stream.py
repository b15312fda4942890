"""One exchange as a layer: what is sent when (`ending.py`: every way it may end).

In place of mitmproxy's HttpStream states: a denial is answered before the body is read, bodies
are bounded while they arrive, an error is an answer of ours or a cut stream, never a page of
mitmproxy's. The hooks decide and leave what they decided on the `Call`; nothing goes upstream
unless a hook said so (`call.ready`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from mitmproxy import http
from mitmproxy.net.http.validate import validate_headers
from mitmproxy.proxy import events, layer
from mitmproxy.proxy.layers import http as mitm
from mitmproxy.proxy.layers.http import SendHttp
from mitmproxy.proxy.layers.http._events import (
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    ResponseData,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
)
from mitmproxy.proxy.layers.http._hooks import (
    HttpRequestHeadersHook,
    HttpRequestHook,
    HttpResponseHeadersHook,
    HttpResponseHook,
)
from mitmproxy.websocket import WebSocketData

from tidegate.api import errors
from tidegate.runtime.faults import StreamCut
from tidegate.runtime.messages import make_response

from .call import CALL, UNREAD
from .ending import REFUSED, Commands, Ending, left
from .http1 import BIG_TRAILERS, UNEXPECTED_UPGRADE
from .http2 import Consumed
from .layers import GetOrigin, Origin, Overdue, Stalled, Written
from .outgoing import was_closed


class Stream(Ending):
    """The states of one exchange. `client_state` and `server_state` are as in mitmproxy."""

    streamed = False
    """Whether the body goes upstream as it comes, and so can't be sent again."""

    def handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Also while a hook is awaited: a client that leaves ends the wait."""
        if self._paused is not None and left(event):
            call = self.flow.metadata.get(CALL)
            if call is not None:
                call.interrupt()
        return super().handle_event(event)

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, Written):
            if self.child_layer is not None:
                yield from self.child_layer.handle_event(event)
            elif event.stream_id == self.stream_id:
                yield SendHttp(Consumed(self.stream_id), self.context.client)
            return
        if isinstance(event, Overdue):
            if self.child_layer is not None:  # a tunnel: whose exchange is it in there?
                yield from self.child_layer.handle_event(event)
            elif event.call is self.call and not event.call.finished:
                yield from self._fail(event.denial)
            return
        if isinstance(event, Stalled):
            if event.call is self.call and event.call.held:
                yield from self._let_pass()
            return
        yield from super()._handle_event(event)

    # -- request ------------------------------------------------------------------------------

    def state_wait_for_request_headers(self, event: RequestHeaders) -> Commands:
        """The head: authenticate, authorize and (where no body is needed) all up to route."""
        connect = event.request.data.method == b"CONNECT"
        if connect and self.mode is not mitm.HTTPMode.transparent:
            yield from super().state_wait_for_request_headers(event)
            return
        flow = self.flow = http.HTTPFlow(self.context.client, self.context.server)
        flow.request = event.request
        flow.live = True
        self.unread = flow.metadata[UNREAD] = not event.end_stream
        expects = event.request.headers.get("expect", "").lower() == "100-continue"
        yield HttpRequestHeadersHook(flow)
        call = self.call = flow.metadata.get(CALL)
        if call is not None and call.handler.http2 is not None:
            call.handler.http2.calls[self.stream_id] = call
        if self._left():
            yield from self._gone()
        elif call is None or flow.response is not None or not call.ready:
            yield from self._answer()
        else:
            if expects and self.unread:
                yield from self._continue()
            self.server_state = self.state_wait_for_response_headers
            if not event.end_stream and flow.request.data.content is not None:
                self.client_state = self.state_discard_request_body
                yield from self._send_request()
            elif event.end_stream or call.gathering:
                self.client_state = self.state_consume_request_body
            else:
                yield from self._start_upload()

    def _continue(self) -> Commands:
        """100 Continue (RFC 9110 §10.1.1)."""
        head = make_response(100, b"Continue", (), None, time.time())
        yield SendHttp(ResponseHeaders(self.stream_id, head), self.context.client)

    def state_consume_request_body(self, event: events.Event) -> Commands:
        """Gather the body, up to the limit; then the hooks that need it."""
        call = self.call
        assert call is not None
        if isinstance(event, RequestData):
            self.request_body_buf += event.data
            call.received(len(event.data))
            if len(self.request_body_buf) > call.request_limit:
                yield from self._fail(errors.BODY_TOO_LARGE.denial())
            else:
                yield from self._taken()
        elif isinstance(event, RequestEndOfMessage):
            self.unread = call.unread = False
            self.client_state = self.state_done
            if call.gathering:
                self.flow.request.data.content = bytes(self.request_body_buf)
                self.request_body_buf.clear()  # type: ignore[no-untyped-call]
                call.ready = False
                yield HttpRequestHook(self.flow)
                if self._left():
                    yield from self._gone()
                    return
                if self.flow.response is not None or not call.ready:
                    yield from self._answer()
                    return
            yield from self._send_request()

    def state_discard_request_body(self, event: events.Event) -> Commands:
        """Read the body to its end for nothing: a hook has put another in its place."""
        call = self.call
        assert call is not None
        if isinstance(event, RequestData):
            call.received(len(event.data))
            if call.exchange.bytes_in > call.request_limit:
                yield from self._fail(errors.BODY_TOO_LARGE.denial())
            else:
                yield from self._taken()
        elif isinstance(event, RequestEndOfMessage):
            self.unread = call.unread = False
            self.client_state = self.state_done

    def _send_request(self, *, fresh: bool = False) -> Commands:
        """Send a whole request upstream."""
        if not (yield from self._connect(fresh=fresh)):
            return
        request = self.flow.request
        content = request.data.content
        server = self.context.server
        yield SendHttp(RequestHeaders(self.stream_id, request, not content), server)
        if content:
            assert self.call is not None
            self.call.put(len(content))
            yield SendHttp(RequestData(self.stream_id, content), server)
        yield SendHttp(RequestEndOfMessage(self.stream_id), server)

    def _start_upload(self) -> Commands:
        """Send the head upstream; the body follows as it arrives."""
        self.client_state = self.state_stream_request_body
        self.streamed = True
        if not (yield from self._connect()):
            return
        head = RequestHeaders(self.stream_id, self.flow.request, end_stream=False)
        yield SendHttp(head, self.context.server)

    def state_stream_request_body(self, event: events.Event) -> Commands:
        """Pass the body on, counting it."""
        call = self.call
        assert call is not None
        if isinstance(event, RequestData):
            call.received(len(event.data))
            if call.exchange.bytes_in > call.request_limit:
                yield from self._fail(errors.BODY_TOO_LARGE.denial())
            else:
                call.put(len(event.data))
                yield from self._to_upstream(RequestData(self.stream_id, event.data))
                yield from self._taken()
        elif isinstance(event, RequestEndOfMessage):
            self.unread = call.unread = False
            self.client_state = self.state_done
            yield from self._to_upstream(event)

    def _taken(self) -> Commands:
        """Let an HTTP/2 client send more, when the upstream has taken what came."""
        call = self.call
        assert call is not None
        if call.handler.http2 is None:
            return
        origin = self.context.server
        if isinstance(origin, Origin) and origin.http2 and origin.http2.holds(self.stream_id):
            return
        if not call.handler.when_written(origin, self.stream_id):
            yield SendHttp(Consumed(self.stream_id), self.context.client)

    def _to_upstream(self, event: Any) -> Iterator[Any]:
        if self.context.server.connected:
            yield SendHttp(event, self.context.server)

    def _connect(self, *, fresh: bool = False) -> layer.CommandGenerator[bool]:
        """Get a connection to the upstream of this attempt."""
        call = self.call
        assert call is not None
        assert call.upstream is not None
        upstream = call.upstream
        connection, error = yield GetOrigin(
            (upstream.host, upstream.port),
            upstream.scheme == "https",
            None,
            upstream=upstream,
            fresh=fresh,
            was_closed=partial(was_closed, call.handler.transports),
        )
        if error:
            yield from self._fail(call.connect_failed(error))
            return False
        assert isinstance(connection, Origin)
        call.connected(reused=connection.used)
        connection.used = True
        connection.stream_id = self.stream_id
        self.context.server = self.flow.server_conn = connection
        return True

    # -- response -----------------------------------------------------------------------------

    def state_wait_for_response_headers(self, event: ResponseHeaders) -> Commands:
        """The head of the answer: gather or stream."""
        call, flow = self.call, self.flow
        assert call is not None
        flow.response = event.response
        try:
            validate_headers(event.response)
        except ValueError:
            yield from self._fail(errors.UPSTREAM_PROTOCOL_ERROR.denial())
            return
        call.bodiless = event.end_stream
        yield from self._head_hook()

    def _head_hook(self) -> Commands:
        """The hooks see the answer's head, and say how its body goes."""
        call, flow = self.call, self.flow
        assert call is not None
        assert flow.response is not None
        theirs = flow.response
        yield HttpResponseHeadersHook(flow)
        if self._left():
            yield from self._gone()
        elif call.refused is not None:
            yield from self._fail(call.refused)
        elif call.replaced:
            yield from self._close_upstream()
            yield from self._send_response()
            yield from self._finish(theirs, None)
        elif call.relay is not None:
            head = ResponseHeaders(self.stream_id, flow.response, end_stream=False)
            call.head_sent = True
            yield SendHttp(head, self.context.client)
            self.server_state = self.state_stream_response_body
        else:
            self.server_state = self.state_consume_response_body

    def _let_pass(self) -> Commands:
        """A small body is held, to be sent whole, and its rest does not come."""
        call = self.call
        assert call is not None
        yield from self._head_hook()
        if call.relay is not None and self.server_state == self.state_stream_response_body:
            data = bytes(self.response_body_buf)
            self.response_body_buf.clear()  # type: ignore[no-untyped-call]
            yield from self._feed(data)

    def state_stream_response_body(self, event: events.Event) -> Commands:
        """Pass the body on as it comes."""
        call = self.call
        assert call is not None
        assert call.relay is not None
        if isinstance(event, ResponseTrailers):
            call.relay.trailers = event.trailers
            return
        if isinstance(event, ResponseData):
            call.got(len(event.data))
            yield from self._feed(event.data)
        else:
            yield from self._feed(None)

    def _feed(self, data: bytes | None) -> Commands:
        """What the client gets for a piece of the body; None: it has ended."""
        call = self.call
        assert call is not None
        assert call.relay is not None
        try:
            chunks = call.relay.end() if data is None else call.relay.feed(data)
        except StreamCut as cut:
            yield from self._fail(cut.denial)
            return
        for chunk in chunks:
            call.sent(len(chunk))
            yield SendHttp(ResponseData(self.stream_id, chunk), self.context.client)
        if data is None:
            assert self.flow.response is not None
            yield from self._finish(self.flow.response, call.relay.trailers)

    def state_consume_response_body(self, event: events.Event) -> Commands:
        """Gather the body, up to the limit; then the response transforms."""
        call, flow = self.call, self.flow
        assert call is not None
        assert flow.response is not None
        if isinstance(event, ResponseData):
            self.response_body_buf += event.data
            call.got(len(event.data))
            if len(self.response_body_buf) > call.response_limit:
                yield from self._fail(errors.UPSTREAM_BODY_TOO_LARGE.denial())
        elif isinstance(event, ResponseTrailers):
            flow.response.trailers = event.trailers
        else:
            call.held = False
            flow.response.data.content = bytes(self.response_body_buf)
            self.response_body_buf.clear()  # type: ignore[no-untyped-call]
            trailers = flow.response.data.trailers
            if flow.response.data.status_code == 101:
                flow.websocket = WebSocketData()
                call.websocket = True
            yield HttpResponseHook(flow)
            if self._left():
                yield from self._gone()
            elif call.refused is not None:
                yield from self._fail(call.refused)
            else:
                yield from self._send_response(trailers)
                yield from self._finish(flow.response, trailers)

    # -- errors -------------------------------------------------------------------------------

    def handle_protocol_error(
        self, event: RequestProtocolError | ResponseProtocolError
    ) -> Commands:
        """The client left or sent rubbish; or the upstream did."""
        call = self.call
        if call is None:  # a CONNECT, or an end before anything began
            if hasattr(self, "flow"):
                yield from super().handle_protocol_error(event)
            return
        if self.client_state == self.state_errored:
            return
        if isinstance(event, RequestProtocolError):
            if left(event):
                yield from self._gone()
            else:
                large = event.message == BIG_TRAILERS
                code = errors.HEADERS_TOO_LARGE if large else errors.BAD_REQUEST_FRAMING
                yield from self._fail(code.denial())
        elif self._may_retry(event):
            call.retry()
            yield from self._send_request(fresh=True)
        else:
            upgrade = event.message == UNEXPECTED_UPGRADE
            code = errors.UNEXPECTED_UPGRADE if upgrade else errors.UPSTREAM_PROTOCOL_ERROR
            yield from self._fail(code.denial())

    def _may_retry(self, event: RequestProtocolError | ResponseProtocolError) -> bool:
        """An upstream closed an idle connection just as it was used again (RFC 9112 §9.3.1), or
        has refused a stream.

        Nothing of an answer has come and the request is still here: send it once more.
        """
        call = self.call
        if call is None or self.streamed:
            return False
        refused = event.message == REFUSED and not call.exchange.attempts
        return (
            (call.may_retry or refused)
            and self.client_state == self.state_done
            and self.server_state == self.state_wait_for_response_headers
        )
