"""Answers from a cache, sent as they were rendered before (`PreparedResponse`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tidegate.api.messages import PreparedHead, PreparedResponse
from tidegate.runtime.kinds import KEPT_BACK, KINDS

from .framing import BODYLESS, fields_block, status_line

if TYPE_CHECKING:
    from .exchange import Carriage

_JOINED: Final = 64 * 1024
"""Bytes of a body that are copied behind the head, because one buffer is sent faster than two."""


def send_prepared(carriage: Carriage, response: PreparedResponse) -> bool:
    """Send a prepared answer; False where it has to be sent as any other."""
    exchange, connection, incoming = carriage.exchange, carriage.connection, carriage.incoming
    head = response.head
    if (
        exchange.trace is not None
        or incoming.method == b"HEAD"
        or head.status in BODYLESS
        or not response.untouched
    ):
        return False
    body = response.body
    size = exchange.bytes_out = len(body)
    joined = size <= _JOINED
    rendered = (
        b"%bage: %d\r\ncache-status: tidegate; hit; ttl=%d\r\nx-request-id: %b\r\n"
        b"content-length: %d\r\n%b\r\n%b"
        % (
            head.wire or _render(head),
            response.age,
            response.ttl,
            exchange.id.encode(),
            size,
            connection.persistence(incoming),
            body if joined else b"",
        )
    )
    connection.write(rendered)
    if not joined:
        connection.write(body)
    return True


def _render(head: PreparedHead) -> bytes:
    """The status line and the fields of a head. A cache keeps none that Connection lists."""
    fields = [field for field in head.fields if not KINDS[field[0]] & KEPT_BACK]
    head.wire = status_line(head.status, head.reason) + fields_block(fields)
    return head.wire
