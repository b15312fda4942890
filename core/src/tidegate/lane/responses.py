"""What an upstream answered, parsed: `ResponseReader`."""

from __future__ import annotations

from typing import Final

import httptools

from tidegate.runtime.kinds import CONTENT_TYPE, FRAMING, KINDS
from tidegate.runtime.messages import Fields

from .framing import BODYLESS, is_chunked, may_be_spaced, unspaced

HEAD_LIMIT: Final = 128 * 1024
"""Bytes of a response head, interim responses included."""
FIELDS_LIMIT: Final = 512
INTERIMS: Final = 16
"""1xx responses that one answer may have before it."""

_USUAL: Final = (b"HTTP/1.1 ", b"HTTP/1.0 ")


class Malformed(Exception):
    """Raised out of a callback: the upstream's answer is not acceptable."""


class ResponseReader:
    """Parses one upstream connection, one answer at a time: `expect` before each.

    `length` is None where the body is chunked or lasts until the connection closes
    (`until_close`). `failed` says what is wrong with the answer; `reusable` is False where the
    connection can't carry another exchange.
    """

    __slots__ = (
        "_fed",
        "_fields",
        "_in_trailers",
        "_interims",
        "_parser",
        "_spaced",
        "_usual",
        "body",
        "complete",
        "content_type",
        "failed",
        "fields",
        "head_only",
        "headed",
        "interim",
        "length",
        "reason",
        "reusable",
        "size",
        "status",
        "switched",
        "trailers",
        "until_close",
    )

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.reusable = True
        self.expect(head_only=False)

    def expect(self, *, head_only: bool) -> None:
        """Get ready for the answer to a request; `head_only`: its method is HEAD."""
        self.head_only = head_only
        self.status = 0
        self.reason = b""
        self.fields: Fields = ()
        self.content_type = b""
        self.length: int | None = None
        self.until_close = False
        self.headed = False
        self.complete = False
        self.switched = False
        self.failed = ""
        self.body: list[bytes] = []
        self.size = 0
        self.trailers: Fields | None = None
        self.interim: list[tuple[int, Fields]] = []
        self._fields: list[tuple[bytes, bytes]] = []
        self._usual = False
        self._spaced = True
        self._fed = 0
        self._interims = 0
        self._in_trailers = False

    @property
    def touched(self) -> bool:
        """Whether anything has come since `expect`."""
        return self._fed > 0

    def feed(self, data: bytes) -> None:
        """Parse the next bytes; what they make is left in the attributes."""
        if not self.headed:
            if self._fed == 0:
                self._usual = data.startswith(_USUAL)
                end = data.find(b"\r\n\r\n")
                self._spaced = end < 0 or may_be_spaced(data[: end + 2])
            self._fed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.reusable = False
        except httptools.HttpParserError as error:
            self.reusable = False
            if self._in_trailers:
                self.complete = True  # only its trailers are not acceptable: they are dropped
            elif not self.complete and not self.switched:
                self.failed = str(error.__context__ or error)
        if not self.headed and self._fed > HEAD_LIMIT:
            self.failed = "its head is too large"

    def closed(self) -> None:
        """The upstream closed the connection: the end of some bodies, a cut of others."""
        self.reusable = False
        if self.complete:
            return
        if self.headed and self.until_close and not self.failed:
            self.complete = True
        elif not self.failed:
            self.failed = "it closed the connection before its answer was complete"

    def take(self) -> bytes:
        """The body bytes that have come since the last call."""
        body = self.body
        if not body:
            return b""
        data = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        return data

    # -- llhttp's callbacks ---------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.complete:
            raise Malformed("it sent more than one answer")

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        status = parser.get_status_code()
        fields = self._take_fields()
        if status < 200:
            self.reason = b""
            self._spaced = True  # the next head's values were not looked at
            if status == 101:
                self.switched = True
                self.reusable = False
            elif status < 100:
                raise Malformed("its status is not one of HTTP's")
            else:
                self._interims += 1
                if self._interims > INTERIMS:
                    raise Malformed("it sends interim answers without end")
                self.interim.append((status, fields))
            return
        if status > 599 or not (self._usual or parser.get_http_version() in ("1.1", "1.0")):
            raise Malformed("its status line is not acceptable")
        self.status = status
        self.fields = fields
        self.headed = True
        chunked = False
        kinds = KINDS
        for name, value in fields:
            kind = kinds[name]
            if kind & CONTENT_TYPE:
                self.content_type = value
            elif kind & FRAMING:
                lowered = name.lower()
                if lowered == b"content-length":
                    self.length = int(value)
                elif lowered == b"transfer-encoding":
                    if not is_chunked(value):
                        raise Malformed("its transfer coding is not `chunked`")
                    chunked = True
        if not parser.should_keep_alive():
            self.reusable = False
        if self.head_only or status in BODYLESS:
            self.complete = True
            # llhttp can't be told that a body does not follow: the next answer gets a new one
            if self.head_only:
                self._parser = httptools.HttpResponseParser(self)
        elif self.length is None and not chunked:
            self.until_close = True
            self.reusable = False

    def _take_fields(self) -> Fields:
        fields, self._fields = self._fields, []
        if len(fields) > FIELDS_LIMIT:
            raise Malformed("it has too many fields")
        return unspaced(fields) if self._spaced else tuple(fields)

    def on_chunk_header(self) -> None:
        self._in_trailers = True  # unless bytes of the chunk follow

    def on_body(self, data: bytes) -> None:
        self._in_trailers = False
        if self.complete:
            raise Malformed("it sent a body where none may be")
        self.body.append(data)
        self.size += len(data)

    def on_message_complete(self) -> None:
        if not self.headed:
            return
        self.complete = True
        if self._fields:
            self._spaced = True
            self.trailers = self._take_fields()
