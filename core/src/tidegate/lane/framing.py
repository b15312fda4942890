"""HTTP/1.1 framing, sans I/O: the strict rules over what llhttp tells, and heads as bytes.

llhttp judges the bytes; what is sent is always written anew from its view. It refuses most of
what request smuggling needs by itself (bare CR and LF, obs-fold, NUL, space before a colon, two
lengths, a length beside a coding). What it lets pass and we don't is refused here and by the
readers: a coding other than `chunked` alone, a coding in HTTP/1.0, request lines with more than
two spaces or of another protocol, chunk extensions without end.
"""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus
from typing import Final

from tidegate.api import errors
from tidegate.api.errors import ErrorCode
from tidegate.runtime.messages import Fields

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
H2_REFUSAL: Final = (
    b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"  # SETTINGS, empty
    b"\x00\x00\x1f\x07\x00\x00\x00\x00\x00"  # GOAWAY: last stream 0, HTTP_1_1_REQUIRED
    b"\x00\x00\x00\x00\x00\x00\x00\x0dHTTP/1.1 is spoken here"
)
"""What a client that speaks HTTP/2 is told (RFC 9113 §6.8, §7)."""
H2_PREFACE: Final = b"PRI * HTTP/2.0"
LAST_CHUNK: Final = b"0\r\n\r\n"
CLOSE: Final = b"connection: close\r\n"
KEEP: Final = b"connection: keep-alive\r\n"
CHUNKED: Final = b"transfer-encoding: chunked\r\n"

BODY_METHODS: Final = frozenset({b"POST", b"PUT", b"PATCH"})
"""Methods whose empty body is said with `Content-Length: 0` (RFC 9110 §8.6)."""
BODYLESS: Final = frozenset({204, 304})

_REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}


class Refused(Exception):
    """Raised out of a parser's callback: the message is refused with `code`."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code.code)
        self.code = code


def content_length(value: bytes) -> int:
    """The value of a Content-Length field (RFC 9110 §8.6): digits only. Refused."""
    if not value.isdigit() or len(value) > 18:
        raise Refused(errors.BAD_REQUEST_FRAMING)
    return int(value)


def is_chunked(value: bytes) -> bool:
    """Whether a Transfer-Encoding value is `chunked` alone; anything else is not taken."""
    return value.lower() == b"chunked"


def may_be_spaced(head: bytes) -> bool:
    """Whether a value in a whole head may have space after it, which llhttp leaves there.

    Two searches of the bytes cost less than a look at each value.
    """
    return head.find(b" \r\n") >= 0 or head.find(b"\t\r\n") >= 0


def unspaced(fields: list[tuple[bytes, bytes]]) -> Fields:
    """The fields without the space that may stand after a value."""
    return tuple([(name, value.rstrip(b" \t")) for name, value in fields])


@lru_cache(maxsize=256)
def status_line(status: int, reason: bytes) -> bytes:
    """The status line. A reason that is not printable ASCII is replaced by the usual one."""
    if not reason or any(byte < 0x20 or byte > 0x7E for byte in reason):
        reason = _REASONS.get(status, b"")
    return b"HTTP/1.1 %d %b\r\n" % (status, reason)


def fields_block(fields: list[tuple[bytes, bytes]] | Fields) -> bytes:
    """Fields as lines, each with its CRLF."""
    if not fields:
        return b""
    return b"\r\n".join(map(b": ".join, fields)) + b"\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk of the chunked coding. `data` is not empty: an empty one would be the last."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: Fields | None) -> bytes:
    """The last chunk, with trailer fields where there are any."""
    return b"0\r\n" + fields_block(trailers) + b"\r\n" if trailers else LAST_CHUNK
