"""Where an exchange is sent, and how its attempts are chosen and judged.

An `Upstream` is a leaf: one origin with its timeouts, TLS and codec. Combinators in
`tidegate.api.balance` wrap others; retry and failover are theirs, not hooks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable
from urllib.parse import SplitResult, urlsplit

from mitmproxy import http

from .types import Event, EventResult

if TYPE_CHECKING:
    from .exchange import Exchange


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `total` (None: no bound) counts from the first attempt to the last byte."""

    connect: float = 5.0
    first_byte: float = 60.0
    idle: float = 60.0
    total: float | None = None


@dataclass(frozen=True, slots=True)
class Tls:
    """How an `https` origin is verified and what is shown to it. Paths are PEM files.

    `sni` None means the origin's host. Verification can't be switched off; a private CA is
    named in `ca`.
    """

    ca: str | None = None
    sni: str | None = None
    certificate: str | None = None
    key: str | None = None


@dataclass(slots=True)
class Attempt:
    """How one attempt to send an exchange upstream ended.

    `error` is an error code of `tidegate.api.errors` or "" ; `status` is None where no
    response head arrived. Times are monotonic seconds; 0.0 means "did not happen".
    """

    upstream: Upstream
    started: float
    connected: float = 0.0
    first_byte: float = 0.0
    ended: float = 0.0
    status: int | None = None
    error: str = ""
    reused: bool = False
    """True where the connection had carried an exchange before."""
    bytes_sent: int = 0
    bytes_received: int = 0


@runtime_checkable
class Codec(Protocol):
    """A translator nearest to the wire, applied anew to each attempt (lane only).

    A codec that has `decode_head` is a `StreamCodec`: it may take any body piece by piece.
    """

    def encode(self, exchange: Exchange, request: http.Request) -> http.Request | http.Response:
        """What is sent: `request` is a copy of the exchange's, as the transforms left it.

        A response refuses it, in the caller's shape: nothing is sent in this attempt.
        """

    def decode(self, exchange: Exchange, response: http.Response) -> http.Response:
        """The answer for one that is there whole: an error, any body but an event stream, or
        an event stream that was gathered for a hook."""

    def decode_event(self, exchange: Exchange, event: Event) -> EventResult:
        """The events for one of an event stream that passes."""

    def decode_end(self, exchange: Exchange) -> EventResult:
        """The events at its end."""


class BodyStream(Protocol):
    """A body on its way, piece by piece. ValueError: the upstream's bytes make no sense."""

    def feed(self, data: bytes) -> bytes:
        """What is sent for these bytes, now."""

    def end(self) -> bytes:
        """What is sent at the end of the body."""


@runtime_checkable
class StreamCodec(Codec, Protocol):
    """A codec that translates streams which are not server-sent events on both sides.

    One may have a `limit` besides: decoded bytes of a body that it bears whole, where no hook
    says less; without it, the gateway's `limits.gather`. And
    `decode_first(exchange, data) -> http.Response | bool`, which is asked of a stream's first bytes
    before any is passed on, where the upstream `judges`: True, it has begun; False, more must come;
    a response: it began with this failure, which `rejects` is asked of then.
    """

    def decode_head(self, exchange: Exchange, response: http.Response) -> BodyStream | None:
        """Asked of each head below 400, which it may change: what the body passes through.

        None: the body is decoded as that of any codec.
        """


@dataclass(slots=True, eq=False)
class Upstream:
    """One origin: scheme, host, port, and how to talk to it.

    `path` is put before the request's path. `headers` are set on each attempt, nearest to
    the wire, so that secrets in them are seen by no hook and no log. `strip` is the prefix
    that is removed from the request's path first. `preserve_host` sends the caller's Host.
    `trusted` says that the operator wrote this address; others are checked after resolution
    (RELIABILITY, SSRF). `max_connections` and `max_requests` bound the pool of a worker.
    """

    name: str
    scheme: str
    host: str
    port: int
    path: str = ""
    strip: str = ""
    preserve_host: bool = False
    headers: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)
    timeouts: Timeouts = field(default_factory=Timeouts)
    tls: Tls = field(default_factory=Tls)
    codec: Codec | None = None
    websocket: bool = False
    safe_to_retry: bool = False
    trusted: bool = True
    max_connections: int = 256
    weight: int = 1
    judges: bool = False
    """Whether `rejects` is asked of answers with a status of 400 and up (lane only)."""
    authority: bytes = field(init=False)
    """The Host field value of an attempt where the caller's is not preserved."""

    def __post_init__(self) -> None:
        default = 443 if self.scheme == "https" else 80
        host = f"[{self.host}]" if ":" in self.host else self.host
        self.authority = (host if self.port == default else f"{host}:{self.port}").encode()

    def pick(self, exchange: Exchange, tried: Sequence[Attempt]) -> Upstream | None:
        """The leaf for the next attempt, or None where there is nothing (more) to try.

        Called before the first attempt (`tried` empty) and again after each failure before
        the first byte, when `ended` was told of it. Must not block.
        """
        return None if tried else self

    def rejects(self, exchange: Exchange, attempt: Attempt, response: http.Response) -> bool:
        """Whether an error, gathered and decoded, shall be one more failed attempt.

        True: `ended` is told (with the status, without an error code), then `pick` is asked.
        Where that has nothing more to try, the caller gets this very answer. Must not block.
        """
        return False

    def delay(self, exchange: Exchange) -> float:
        """Seconds to wait before the attempt that `pick` gave last; asked after a retry's pick."""
        return 0.0

    def ended(self, exchange: Exchange, attempt: Attempt) -> None:
        """Told once of each attempt's end: breakers, cooldowns and pools live here.

        The carrier tells `exchange.upstream`; a combinator tells the member that it picked.
        """

    @property
    def url(self) -> str:
        """`scheme://authority/path`, without secrets."""
        return f"{self.scheme}://{self.authority.decode()}{self.path}"


def parse_url(url: str) -> SplitResult:
    """Split an upstream URL; ValueError says what is wrong with it."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{url!r}: an upstream's URL starts with http:// or https://")
    if not parts.hostname:
        raise ValueError(f"{url!r}: this URL has no host")
    if parts.username or parts.password:
        raise ValueError("credentials don't belong in an upstream's URL: use `headers`")
    if parts.query or parts.fragment:
        raise ValueError(f"{url!r}: an upstream's URL has no query and no fragment")
    _ = parts.port  # urllib checks the range here and raises ValueError
    return parts


def upstream_from_url(url: str, **options: object) -> Upstream:
    """An `Upstream` for `url`; `options` are its other fields.

    >>> upstream_from_url("https://api.example.com/v1").authority
    b'api.example.com'
    """
    parts = parse_url(url)
    assert parts.hostname is not None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    options.setdefault("name", f"{parts.hostname}:{port}")
    return Upstream(
        scheme=parts.scheme,
        host=parts.hostname,
        port=port,
        path=parts.path.rstrip("/"),
        **options,  # type: ignore[arg-type]
    )
