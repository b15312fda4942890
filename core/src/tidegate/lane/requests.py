"""What a client sent, parsed: `RequestReader` turns bytes into `Incoming` messages."""

from __future__ import annotations

from collections import deque
from typing import Final

import httptools

from tidegate.api import errors
from tidegate.api.errors import ErrorCode
from tidegate.runtime.messages import Fields
from tidegate.runtime.settings import Limits

from .framing import VERSIONS, Refused, content_length, is_chunked

_NOTABLE: Final = frozenset(
    {b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"http2-settings"}
)
_LENGTHS: Final = frozenset(map(len, _NOTABLE))
_CHUNK_COST: Final = 64
"""Bytes on the wire that a chunk's frame may cost, on average: floods of extensions are cut."""
_CHUNK_SLACK: Final = 16 * 1024


class Incoming:
    """One request as it arrives: its head, then its body in pieces.

    `refusal` is set where it is not acceptable; no more of the connection is read then.
    `upgrade` is the value of an Upgrade field, `length` None where the body is chunked.
    """

    __slots__ = (
        "body",
        "complete",
        "expects_continue",
        "fields",
        "keep_alive",
        "length",
        "method",
        "refusal",
        "size",
        "target",
        "trailers",
        "upgrade",
        "version",
    )

    def __init__(self) -> None:
        self.method = b""
        self.target = b""
        self.version = b"HTTP/1.1"
        self.fields: Fields = ()
        self.keep_alive = False
        self.expects_continue = False
        self.upgrade = b""
        self.length: int | None = 0
        self.body: list[bytes] = []
        self.size = 0
        self.complete = False
        self.trailers: Fields | None = None
        self.refusal: ErrorCode | None = None

    def take(self) -> bytes:
        """The body bytes that have come since the last call."""
        body = self.body
        if not body:
            return b""
        data = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        return data


class RequestReader:
    """Parses one client connection. Requests whose head is complete wait in `requests`."""

    __slots__ = (
        "_body_fed",
        "_current",
        "_fed",
        "_fields",
        "_limits",
        "_parser",
        "_size",
        "_target",
        "in_head",
        "requests",
        "stopped",
        "tail",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._size = 0
        self._fed = 0
        self._body_fed = 0
        self._current: Incoming | None = None
        self.requests: deque[Incoming] = deque()
        self.in_head = True
        """True between messages, and until a head is complete."""
        self.stopped = False
        """True after a refusal, an upgrade or the last request of the connection."""
        self.tail = b""
        """After an upgrade: the bytes behind the head."""

    @property
    def started(self) -> bool:
        """Whether bytes of a head that is not complete have come."""
        return self.in_head and self._fed > 0

    def feed(self, data: bytes) -> None:
        """Parse the next bytes. What is wrong with them becomes a refusal of the request."""
        if self.stopped:
            return
        if self.in_head:
            self._fed += len(data)
        else:
            self._body_fed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.stopped = True
            self.tail = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            if not self.stopped:
                cause = error.__context__
                refused = isinstance(cause, Refused)
                self._refuse(cause.code if refused else errors.BAD_REQUEST_FRAMING)  # type: ignore[union-attr]
        else:
            if self.in_head:
                if self._fed > self._limits.head:
                    self._refuse(self._too_large())
            elif self._body_fed > _CHUNK_SLACK:
                self._check_overhead()

    def _too_large(self) -> ErrorCode:
        return errors.HEADERS_TOO_LARGE if self._fields else errors.URI_TOO_LONG

    def _check_overhead(self) -> None:
        current = self._current
        if current is not None and current.length is None and not current.complete:
            allowed = current.size + _CHUNK_COST * (1 + current.size // 16) + _CHUNK_SLACK
            if self._body_fed > allowed:
                self._refuse(errors.BAD_REQUEST_FRAMING)

    def _refuse(self, code: ErrorCode) -> None:
        self.stopped = True
        current = self._current
        if current is None:
            current = Incoming()
            self.requests.append(current)
        current.refusal = code

    # -- llhttp's callbacks ---------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._target = b""
        self._fields = []
        self._size = 0

    def on_url(self, url: bytes) -> None:
        self._target = self._target + url if self._target else url
        if len(self._target) > self._limits.target:
            raise Refused(errors.URI_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        fields = self._fields
        fields.append((name, value.rstrip(b" \t")))
        self._size += len(name) + len(value) + 4
        if self._size > self._limits.head or len(fields) > self._limits.fields:
            raise Refused(errors.HEADERS_TOO_LARGE)

    def on_headers_complete(self) -> None:
        parser = self._parser
        incoming = Incoming()
        incoming.method = parser.get_method()
        incoming.target = self._target
        version = VERSIONS.get(parser.get_http_version())
        if version is None:
            raise Refused(errors.BAD_REQUEST_FRAMING)
        incoming.version = version
        incoming.fields = tuple(self._fields)
        incoming.keep_alive = parser.should_keep_alive()
        for name, value in self._fields:
            if len(name) in _LENGTHS and (lowered := name.lower()) in _NOTABLE:
                self._note(incoming, lowered, value)
        self._current = incoming
        self._fields = []
        self._size = self._fed = self._body_fed = 0
        self.in_head = False
        self.requests.append(incoming)

    def _note(self, incoming: Incoming, name: bytes, value: bytes) -> None:
        if name == b"content-length":
            incoming.length = content_length(value)
        elif name == b"transfer-encoding":
            if not is_chunked(value) or incoming.version == b"HTTP/1.0":
                raise Refused(errors.BAD_REQUEST_FRAMING)
            incoming.length = None
        elif name == b"expect":
            incoming.expects_continue = (
                value.lower() == b"100-continue" and incoming.version == b"HTTP/1.1"
            )
        elif name == b"upgrade":
            incoming.upgrade = value or b"-"

    def on_body(self, data: bytes) -> None:
        current = self._current
        assert current is not None
        current.body.append(data)
        current.size += len(data)

    def on_message_complete(self) -> None:
        current = self._current
        assert current is not None
        current.complete = True
        if self._fields:
            current.trailers = tuple(self._fields)
            self._fields = []
        self._current = None
        self.in_head = True
        self._fed = 0
        if not current.keep_alive:
            self.stopped = True
