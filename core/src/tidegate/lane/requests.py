"""What a client sent, parsed: `RequestReader` turns bytes into `Incoming` messages."""

from __future__ import annotations

import re
from typing import Final

import httptools

from tidegate.api import errors
from tidegate.api.errors import ErrorCode
from tidegate.runtime.kinds import FRAMING, KINDS
from tidegate.runtime.messages import Fields
from tidegate.runtime.settings import Limits

from .framing import Refused, content_length, is_chunked, may_be_spaced, unspaced

_LINE: Final = re.compile(rb"([A-Z][A-Z-]*) ([\x21-\x7e]+) (HTTP/1\.[01])\r\n")
_LINE_START: Final = re.compile(rb"(?:[A-Z][A-Z-]{0,19}(?: [\x21-\x7e]*(?: [HTP/1.0]{0,8})?)?)?\r?")
"""The beginning of a request line that may still become whole."""
_LINE_REST: Final = 32
"""Bytes that a request line has besides its target."""
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

    def __init__(
        self,
        method: bytes = b"",
        target: bytes = b"",
        version: bytes = b"HTTP/1.1",
        fields: Fields = (),
        *,
        keep_alive: bool = False,
    ) -> None:
        self.method = method
        self.target = target
        self.version = version
        self.fields = fields
        self.keep_alive = keep_alive
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
    """Parses one client connection, one request at a time.

    llhttp gets its bytes in pieces that never reach over the end of a request, so that each
    request line is at hand to be checked, and what is pipelined waits unparsed.
    """

    __slots__ = (
        "_current",
        "_fed",
        "_fields",
        "_held",
        "_limits",
        "_line",
        "_parser",
        "_spaced",
        "_wire",
        "request",
        "stopped",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._parser = httptools.HttpRequestParser(self)
        self._fields: list[tuple[bytes, bytes]] = []
        self._fed = 0
        """Bytes of the head in progress."""
        self._wire = 0
        """Bytes of the body in progress, its framing included."""
        self._held = b""
        """An incomplete request line; in a chunked body, the last bytes fed."""
        self._spaced = False
        """Whether space may stand after the values of the fields in progress."""
        self._line: re.Match[bytes] | None = None
        """The request line of the head in progress, once it is whole."""
        self._current: Incoming | None = None
        self.request: Incoming | None = None
        """A request whose head is complete, until `take`."""
        self.stopped = False
        """True after a refusal, an upgrade or the last request of the connection."""

    @property
    def started(self) -> bool:
        """Whether bytes of a head that is not complete have come."""
        return self._fed > 0

    def take(self) -> Incoming | None:
        """The request whose head has become complete, once."""
        request, self.request = self.request, None
        return request

    def feed(self, data: bytes) -> bytes:
        """Parse up to the end of a request; what is behind it is returned.

        What is wrong with a request becomes its `refusal`.
        """
        while data and not self.stopped:
            current = self._current
            if current is None:
                data = self._feed_head(data)
                if self._current is None:
                    break  # a head in progress, or a request that has no body
            elif current.length is None:
                data = self._feed_chunked(current, data)
            else:
                left = current.length - current.size
                self._parse(data if len(data) <= left else data[:left])
                data = data[left:]
            if self._current is None:
                break
        return data

    def _feed_head(self, data: bytes) -> bytes:
        if self._line is None:
            data = self._held + data
            while data.startswith(b"\r\n"):  # RFC 9112 §2.2
                data = data[2:]
            line = _LINE.match(data)
            if line is None:
                self._fed = len(data)
                self._held = data
                if len(data) > self._limits.target + _LINE_REST:
                    self._refuse(errors.URI_TOO_LONG)
                elif not _LINE_START.fullmatch(data):
                    self._refuse(errors.BAD_REQUEST_FRAMING)
                return b""
            self._line = line
            self._held = b""
            self._fed = 0
            if line.end() > self._limits.target + _LINE_REST:
                self._refuse(errors.URI_TOO_LONG)
                return b""
        end = data.find(b"\r\n\r\n") + 4
        if end == 3 or self._fed:
            return self._feed_part(data)
        if end > self._limits.head:
            self._refuse(errors.HEADERS_TOO_LARGE)
            return b""
        head = data if end == len(data) else data[:end]
        self._spaced = may_be_spaced(head)
        self._parse(head)
        return data[end:]

    def _feed_part(self, data: bytes) -> bytes:
        """A part of a head: up to its end, which may have begun in the last part."""
        held = self._held
        end = (held + data).find(b"\r\n\r\n")
        piece = data if end < 0 else data[: end + 4 - len(held)]
        self._held = (held + data)[-3:] if end < 0 else b""
        self._fed += len(piece)
        self._spaced = True
        if self._fed > self._limits.head:
            self._refuse(errors.HEADERS_TOO_LARGE)
            return b""
        self._parse(piece)
        return data[len(piece) :]

    def _feed_chunked(self, current: Incoming, data: bytes) -> bytes:
        """A part of a chunked body: its end is an empty line, but not each of them is its end."""
        held = self._held
        end = (held + data).find(b"\r\n\r\n")
        piece = data if end < 0 else data[: end + 4 - len(held)]
        self._held = (held + piece)[-3:]
        self._wire += len(piece)
        self._spaced = True  # its trailers
        self._parse(piece)
        allowed = current.size + _CHUNK_COST * (1 + current.size // 16) + _CHUNK_SLACK
        if self._wire > allowed and current.refusal is None:
            self.stopped = True
            current.refusal = errors.BAD_REQUEST_FRAMING
        if self._current is None:
            self._held = b""
        return data[len(piece) :]

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.stopped = True
        except httptools.HttpParserError as error:
            if not self.stopped:
                cause = error.__context__
                self._refuse(
                    cause.code if isinstance(cause, Refused) else errors.BAD_REQUEST_FRAMING
                )

    def _refuse(self, code: ErrorCode) -> None:
        self.stopped = True
        self._fed = 0
        current = self._current
        if current is None:
            current = self.request = Incoming()
        current.refusal = code

    # -- llhttp's callbacks ---------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        line = self._line
        assert line is not None
        fields = self._take_fields()
        method, target, version = line.groups()
        incoming = Incoming(
            method, target, version, fields, keep_alive=self._parser.should_keep_alive()
        )
        kinds = KINDS
        for name, value in fields:
            if kinds[name] & FRAMING:
                self._note(incoming, name.lower(), value)
        self._current = self.request = incoming
        self._line = None
        self._fed = self._wire = 0
        self._held = b""

    def _take_fields(self) -> Fields:
        """The fields since the last call, without the space that may stand after a value."""
        fields, self._fields = self._fields, []
        if len(fields) > self._limits.fields:
            raise Refused(errors.HEADERS_TOO_LARGE)
        return unspaced(fields) if self._spaced else tuple(fields)

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
        if self._fields:
            current.trailers = self._take_fields()
        current.complete = True
        self._current = None
        if not current.keep_alive:
            self.stopped = True
