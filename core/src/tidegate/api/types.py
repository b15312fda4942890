"""The small values that hooks take and give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, runtime_checkable

from mitmproxy import http

if TYPE_CHECKING:
    from .exchange import Exchange

NO_ATTRIBUTES: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Principal:
    """Who an exchange was authenticated as.

    `name` is unique within `team`; limits, logs and cache partitions are kept per `id`.
    `attributes` holds what the credential says besides (roles, claims, allowed models).
    """

    name: str
    team: str = ""
    attributes: Mapping[str, Any] = field(default=NO_ATTRIBUTES, hash=False, compare=False)

    @property
    def id(self) -> str:
        """`team/name`, or `name` where there is no team."""
        return f"{self.team}/{self.name}" if self.team else self.name


@dataclass(frozen=True, slots=True)
class Denial:
    """The answer "no": its HTTP status, its stable error code, a sentence for the caller.

    Core renders it in the error shape of the API that was called, with the request id.
    `retry_after` (seconds) becomes the `Retry-After` field (RFC 9110 §10.2.3).
    """

    status: int
    code: str
    message: str
    headers: tuple[tuple[str, str], ...] = ()
    retry_after: float | None = None

    def __post_init__(self) -> None:
        if not 400 <= self.status <= 599:
            raise ValueError(f"a denial's status is 4xx or 5xx, not {self.status}")


@dataclass(frozen=True, slots=True)
class Client:
    """The peer that opened the connection.

    `address` is its IP address as text, or the address that a trusted proxy reported for it
    (RFC 7239). `peer` is always the address of the TCP peer itself.
    """

    address: str
    port: int
    peer: str
    tls: bool = False
    sni: str | None = None
    certificate: bytes | None = None
    """The verified client certificate (DER), where the listener asks for one."""


@dataclass(frozen=True, slots=True)
class Body:
    """What `@hook(needs=…)` says: this hook must see whole bodies.

    Only in the scope of such a hook is a body gathered. `limit` (decoded bytes; None: the
    gateway's `limits.gather`) bounds it: a longer request is 413, a longer response is 502.
    `streams` False: event streams may pass it by, for it redacts nothing. `when` is asked of
    each exchange whose request is to be gathered, once the hooks before have run: False, and
    this hook is called without.
    """

    request: bool = False
    response: bool = False
    limit: int | None = None
    streams: bool = True
    when: Callable[[Exchange], bool] | None = None

    def wanted(self, exchange: Exchange) -> bool:
        """Whether the hook needs the body of this exchange."""
        return self.when is None or self.when(exchange)


class WsMessage:
    """One WebSocket message (RFC 6455 §5.6). Change `content` in place to rewrite it."""

    __slots__ = ("content", "from_client", "text")

    def __init__(self, content: bytes, *, from_client: bool, text: bool) -> None:
        self.content = content
        self.from_client = from_client
        self.text = text

    @property
    def direction(self) -> Literal["to-upstream", "to-client"]:
        return "to-upstream" if self.from_client else "to-client"


class SseEvent:
    """One server-sent event (WHATWG HTML §9.2). Change its fields in place to rewrite it.

    An event that nobody changed leaves with the very bytes it came in with: comments and
    retry fields before it included. A changed one is written anew, without them.
    """

    __slots__ = ("_origin", "_raw", "data", "event", "id")

    direction: Literal["to-client"] = "to-client"

    def __init__(
        self, data: str, event: str = "", id: str | None = None, *, raw: bytes | None = None
    ) -> None:
        self.data = data
        self.event = event
        self.id = id
        self._raw = raw
        self._origin = (data, event, id)

    @property
    def changed(self) -> bool:
        """Whether it differs from what came over the wire; True where it did not come so."""
        return self._raw is None or (self.data, self.event, self.id) != self._origin

    def encode(self) -> bytes:
        """The event in wire form, blank line included."""
        if self._raw is not None and (self.data, self.event, self.id) == self._origin:
            return self._raw
        text = self.data
        if self.id is None and "\n" not in text and "\r" not in text:  # the usual one: one line
            named = f"event: {self.event}\n" if self.event else ""
            return f"{named}data: {text}\n\n".encode()
        lines = []
        if self.event:
            lines.append(f"event: {self.event}\n")
        if self.id is not None:
            lines.append(f"id: {self.id}\n")
        data = self.data.replace("\r\n", "\n").replace("\r", "\n")  # CR ends a line as well
        lines.extend(f"data: {line}\n" for line in data.split("\n"))
        lines.append("\n")
        return "".join(lines).encode()

    def __repr__(self) -> str:
        return f"SseEvent(data={self.data!r}, event={self.event!r}, id={self.id!r})"


type Event = SseEvent | WsMessage
type EventResult = Event | Sequence[Event] | Denial | None


@runtime_checkable
class BodySink(Protocol):
    """What `cache_store` may return to watch a body pass. Called on the loop: be quick."""

    def write(self, chunk: bytes) -> None:
        """The next bytes of the body, as stored (after cacheable transforms)."""

    def close(self, *, complete: bool, trailers: http.Headers | None) -> None:
        """The end. `complete` is False where the body was cut or its length did not match."""
