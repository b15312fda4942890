"""`Exchange`: one request and its response, with what the plugins learned on the way."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, Final, cast, overload

import orjson
from mitmproxy import http

from .types import Client, Denial, Principal

if TYPE_CHECKING:
    from .types import WsMessage
    from .upstream import Attempt, Upstream


class StashKey[T]:
    """A key under which a plugin keeps private state on an exchange; no one can forge it.

    >>> STARTED = StashKey[float]("started")
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"StashKey({self.name!r})"


class Stash:
    """A typed dictionary: `stash[KEY]` has the type that `StashKey[T]` names."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[StashKey[Any], Any] = {}

    def __setitem__[T](self, key: StashKey[T], value: T) -> None:
        self._values[key] = value

    def __getitem__[T](self, key: StashKey[T]) -> T:
        return cast(T, self._values[key])

    @overload
    def get[T](self, key: StashKey[T]) -> T | None: ...
    @overload
    def get[T](self, key: StashKey[T], default: T) -> T: ...
    def get[T](self, key: StashKey[T], default: T | None = None) -> T | None:
        return cast("T | None", self._values.get(key, default))

    def __contains__(self, key: StashKey[Any]) -> bool:
        return key in self._values


type Push = Callable[[Exchange, WsMessage], None]
PUSH: Final = StashKey[Push]("push")
"""On a WebSocket, from its first message on: sends a message of one's own, either way, past all
hooks. Callable at any time until the WebSocket's end; in shadow mode it does nothing."""


class Shadow:
    """What an addon in shadow mode would have done to one exchange.

    `decision`: authenticate, deny, answer, route, store, change or fail. `detail` may be given as
    a function: it is called when someone asks, off the request's path.
    """

    __slots__ = ("_detail", "addon", "decision", "phase")

    def __init__(
        self, addon: str, phase: str, decision: str, detail: str | Callable[[], str] = ""
    ) -> None:
        self.addon = addon
        self.phase = phase
        self.decision = decision
        self._detail = detail

    @property
    def detail(self) -> str:
        """The error code, the name of an upstream, or what would change; values are hashed."""
        if not isinstance(self._detail, str):
            self._detail = self._detail()
        return self._detail

    def __repr__(self) -> str:
        return f"Shadow({self.addon!r}, {self.phase!r}, {self.decision!r}, {self.detail!r})"


class Exchange:
    """One request and its response. Hooks read it, and change it where their phase may.

    `answered_by`, `credentials`, `endings`, `expired`, `seed`, `sinks` and `trace` are core's.

    Attributes:
        anonymous: set in `authenticate` where the service that it is for serves callers without
            a credential: who has none then passes.
        background: it renews what a cache holds, beside another exchange: no client waits for
            it, no transform that a cache does not store runs on it, and it is not logged.
        fallback: set by a cache in `cache_lookup`: what answers where no upstream did. It is
            called at most once, with the exchange and the upstream's error; None: the error.
        id: the request id, sent to the caller as `X-Request-Id`.
        listener: name of the listener that accepted it.
        client: the peer.
        host: the request's host, lower case, without port, as it was matched.
        path: the request's path without query, normalised, as it was matched.
        request: mitmproxy's request; its body is there only after a hook that `needs` it.
        response: mitmproxy's response, from `cache_lookup` or the upstream's head on.
        principal: who the caller is, after `authenticate`; None: anonymous.
        upstream: what `route` chose.
        attempts: how each attempt ended, in order.
        denial: the denial or error that ended it, if one did.
        outcome: "" while it lasts, then answered | denied | failed | client_cancelled.
        failed_addon: the addon whose fault ended it, or "".
        notes: what plugins want logged: JSON-able values by name.
        shadows: what addons in shadow mode would have done.
        now: wall-clock time of its arrival, Unix seconds. Use it instead of `time.time()`.
        started, first_byte, ended: monotonic seconds; 0.0 where it did not come to that.
        bytes_in, bytes_out: body bytes from and to the client.
    """

    __slots__ = (
        "_json",
        "_random",
        "_stash",
        "anonymous",
        "answered_by",
        "attempts",
        "background",
        "bytes_in",
        "bytes_out",
        "client",
        "credentials",
        "denial",
        "ended",
        "endings",
        "expired",
        "failed_addon",
        "fallback",
        "first_byte",
        "from_cache",
        "host",
        "id",
        "listener",
        "notes",
        "now",
        "outcome",
        "path",
        "principal",
        "request",
        "response",
        "seed",
        "shadows",
        "sinks",
        "started",
        "trace",
        "upstream",
    )

    def __init__(
        self,
        id: str,
        request: http.Request,
        client: Client,
        *,
        listener: str = "gateway",
        host: str = "",
        path: str = "/",
        now: float = 0.0,
        started: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.id = id
        self.request = request
        self.client = client
        self.listener = listener
        self.host = host
        self.path = path
        self.now = now
        self.started = started
        self.seed = seed
        self.response: http.Response | None = None
        self.principal: Principal | None = None
        self.anonymous = False
        self.upstream: Upstream | None = None
        self.attempts: list[Attempt] = []
        self.denial: Denial | None = None
        self.outcome = ""
        self.failed_addon = ""
        self.from_cache = False
        self.expired = False
        self.credentials: list[tuple[str, str, str]] = []
        self.notes: dict[str, Any] = {}
        self.shadows: list[Shadow] = []
        self.first_byte = 0.0
        self.ended = 0.0
        self.bytes_in = 0
        self.bytes_out = 0
        self.answered_by: Any = None
        self.sinks: tuple[Any, ...] = ()
        self.background = False
        self.fallback: Callable[[Exchange, Denial], http.Response | None] | None = None
        self.trace: Any = None
        self.endings: list[Callable[[Exchange], None]] = []
        self._json: tuple[bytes, Any] | None = None
        self._stash: Stash | None = None
        self._random: Random | None = None

    @property
    def random(self) -> Random:
        """Chance of this exchange: the same on replay. Use it instead of `random`."""
        if self._random is None:
            self._random = Random(self.seed)
        return self._random

    @property
    def stash(self) -> Stash:
        """Private state of plugins, by `StashKey`."""
        if self._stash is None:
            self._stash = Stash()
        return self._stash

    def stashed[T](self, key: StashKey[T]) -> T | None:
        """What is in the stash under `key`, or None: for hot paths, it makes nothing."""
        return None if self._stash is None else self._stash.get(key)

    def at_end(self, fn: Callable[[Exchange], None]) -> None:
        """Call `fn(exchange)` when this exchange ends, however it ends.

        Sync, exactly once, in reverse order of registration, before `log`; never dropped.
        Settle reservations here.
        """
        self.endings.append(fn)

    def header(self, name: str) -> str | None:
        """The first value of a request field, or None. `name` is lower case.

        Cheaper than `request.headers.get`: one walk, no regular expression.
        """
        wanted = name.encode()
        size = len(wanted)
        for key, value in self.request.headers.fields:
            if len(key) == size and key.lower() == wanted:
                return value.decode("utf-8", "surrogateescape")
        return None

    def consume_header(self, name: str) -> str | None:
        """`header(name)`, which then is a credential: it never goes upstream or to a log."""
        value = self.header(name)
        if value is not None:
            self.credentials.append(("header", name, value))
        return value

    def consume_query(self, name: str) -> str | None:
        """The first value of a query parameter, which then is a credential (see above)."""
        value = self.request.query.get(name)
        if value is not None:
            self.credentials.append(("query", name, value))
        return value

    def consume_cookie(self, name: str) -> str | None:
        """The first value of a cookie, as it was sent: a credential; other cookies go on."""
        wanted = name.encode()
        values = []
        for key, value in self.request.headers.fields:
            if key.lower() == b"cookie":
                pairs = [pair.partition(b"=") for pair in value.split(b";")]
                values += [v.strip() for k, _, v in pairs if k.strip() == wanted]
        texts = [value.decode("utf-8", "surrogateescape") for value in values]
        self.credentials += [("cookie", name, text) for text in texts]
        return texts[0] if texts else None

    def request_json(self) -> Any:
        """The request's body as JSON, parsed once for all hooks. Needs `Body(request=True)`.

        Raises ValueError where the body is not JSON. Don't change the value: to send another
        body, set `request.content`.
        """
        content = self.request.content or b""
        if self._json is None or self._json[0] is not content:
            self._json = (content, orjson.loads(content))
        return self._json[1]

    def response_json(self) -> Any:
        """The response's body as JSON. Needs `Body(response=True)`. ValueError as above."""
        return orjson.loads((self.response and self.response.content) or b"")

    @property
    def status(self) -> int | None:
        """The status that the caller got or will get; None: nothing has answered yet."""
        if self.denial is not None:
            return self.denial.status
        return None if self.response is None else self.response.status_code

    def __repr__(self) -> str:
        return f"<Exchange {self.id} {self.request.method} {self.host}{self.path} {self.outcome}>"
