"""HTTP/2 from clients: mitmproxy's connection, without its error pages."""

from __future__ import annotations

from mitmproxy.proxy import events, layer
from mitmproxy.proxy.layers.http import _http2
from mitmproxy.proxy.layers.http._events import ErrorCode, ResponseProtocolError


class Server(_http2.Http2Server):
    """The client's side."""

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, ResponseProtocolError) and event.code.http_status_code() is not None:
            # answers are the stream's; what is left is a reset (the page would be HTML)
            event = ResponseProtocolError(event.stream_id, event.message, ErrorCode.KILL)
        yield from super()._handle_event(event)
