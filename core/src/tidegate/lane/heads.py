"""The head that an attempt sends upstream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mitmproxy import http

from tidegate.api.upstream import Upstream
from tidegate.runtime.heads import upstream_head

from .framing import BODY_METHODS, CHUNKED, fields_block

if TYPE_CHECKING:
    from .exchange import Carriage

_IDENTITY: Final = (b"accept-encoding", b"identity")


def request_head(
    carriage: Carriage, request: http.Request, leaf: Upstream, content: bytes | None
) -> tuple[bytes, bool]:
    """(head, whether chunks follow). `content` is the whole body, None where it streams."""
    incoming = carriage.incoming
    target, fields = upstream_head(
        carriage.exchange,
        request,
        leaf,
        forwarding=carriage.lane.forwarding,
        trusted=carriage.connection.trusted,
    )
    if carriage.pipeline.decodes or leaf.codec is not None:
        fields = [field for field in fields if field[0].lower() != b"accept-encoding"]
        fields.append(_IDENTITY)
    method = request.data.method
    chunked = False
    if content is not None:
        if content or incoming.length != 0 or method in BODY_METHODS:
            fields.append((b"content-length", b"%d" % len(content)))
    elif incoming.length is not None:
        fields.append((b"content-length", b"%d" % incoming.length))
    else:
        chunked = True
    head = b"%b %b HTTP/1.1\r\n%b%b\r\n" % (
        method,
        target,
        fields_block(fields),
        CHUNKED if chunked else b"",
    )
    return head, chunked
