"""Every hook of Tidegate, in the order in which an exchange meets them.

A plugin is a class; a hook is a method of it, marked with `@hook` and named as below. Write
`def` or `async def` as you like (event hooks are sync). Take what you need from the exchange
and from `self.config`; return what the table says, or None for "nothing to say".

| hook | returns | whose result counts | if it raises or hangs |
| --- | --- | --- | --- |
| authenticate | Principal, Denial, None | the first | 503 |
| authorize | Denial, Response, None | the first denial | 503 |
| transform_request | Response, Denial, None | all run, in file order | 502 |
| cache_lookup | Response, None | the first | counted as a miss |
| route | Upstream, Response, Denial, None | the first; none: 404 | 503 |
| cache_store | BodySink, None | all | counted |
| transform_response | Denial, None | all run, in reverse order | 502 |
| transform_event | event, list, Denial, None | all run, in reverse order | the stream is cut |
| log | None | all, off the request path | counted |

A `Response` from `authorize`, `transform_request` or `route` answers the exchange here: the
response transforms of the addons listed before, and `log`, still run.

authenticate, authorize and route see the head before a byte of the body is read. A hook that
must see a body says so: `@hook(needs=Body(request=True))`.

The examples are whole plugins; they run in the tests.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

import pluggy

from .plugin import PROJECT

if TYPE_CHECKING:
    from mitmproxy import http

    from .exchange import Exchange
    from .plugin import Node, Plugin
    from .types import BodySink, Denial, Event, EventResult, Principal
    from .upstream import Upstream

_spec = pluggy.HookspecMarker(PROJECT)

type Maybe[T] = T | Awaitable[T | None] | None
"""What a hook may return: a value or None, from `def` or from `async def`."""


class HookSpecs:
    """The signatures. `self` of an implementation is the addon's instance."""

    @_spec
    def authenticate(self, exchange: Exchange) -> Maybe[Principal | Denial]:
        """Say who is calling.

        None means "not my kind of credential"; if every addon says so the caller gets 401.
        Read the credential with `exchange.consume_header`, `consume_cookie` or `consume_query`,
        so that it goes no further. A plain `def` may return a coroutine where there is something
        to wait for, such as an issuer's keys: most exchanges then need no task.

        Example:
            class HouseKey(Plugin):
                @hook
                def authenticate(self, exchange):
                    key = exchange.consume_header("x-house-key")
                    if key is None:
                        return None
                    if not hmac.compare_digest(key.encode(), b"open-sesame"):
                        return Denial(401, "invalid_api_key", "This key is not known.")
                    return Principal("house")
        """

    @_spec
    def authorize(self, exchange: Exchange) -> Maybe[Denial | http.Response]:
        """Say no, or nothing. All must pass; the first `Denial` ends the exchange.

        Limits and quotas live here; give back what they reserved in `exchange.at_end`. A plain
        `def` may return a coroutine where there is something to wait for, such as a share of a
        limit: most exchanges then need no task.

        Example:
            class WeekdaysOnly(Plugin):
                @hook
                def authorize(self, exchange):
                    if time.gmtime(exchange.now).tm_wday >= 5:
                        return Denial(403, "closed", "We are open from Monday to Friday.")
        """

    @_spec
    def transform_request(self, exchange: Exchange) -> Maybe[http.Response | Denial]:
        """Change `exchange.request` before it is looked up in a cache and routed.

        Example:
            class Team(Plugin):
                @hook
                def transform_request(self, exchange):
                    if exchange.principal is not None:
                        exchange.request.headers["x-team"] = exchange.principal.team
        """

    @_spec
    def cache_lookup(self, exchange: Exchange) -> Maybe[http.Response]:
        """Answer from memory. The response transforms then run as for a fresh answer.

        They change it: give a response of its own each time, not the one that is kept.

        A plain `def` may return a coroutine where there is something to wait for, such as the
        same answer on its way for another: most exchanges then need no task.
        `exchange.request.headers` may be changed for the upstream (conditions), and
        `exchange.fallback` set: it answers where no upstream does.

        Example:
            class Robots(Plugin):
                @hook
                def cache_lookup(self, exchange):
                    if exchange.path == "/robots.txt":
                        return http.Response.make(200, b"User-agent: *\\nDisallow: /\\n")
        """

    @_spec
    def route(self, exchange: Exchange) -> Maybe[Upstream | http.Response | Denial]:
        """Say where the exchange goes. None leaves it to the next addon; none at all is 404.

        A plain `def` may return a coroutine where there is something to wait for.

        Example:
            class Blue(Plugin):
                @hook
                def route(self, exchange):
                    return upstream_from_url("http://127.0.0.1:9000", name="blue")
        """

    @_spec
    def cache_store(self, exchange: Exchange) -> Maybe[BodySink]:
        """See a fresh answer's head, and by the `BodySink` returned, its body pass.

        It may put another response with content into `exchange.response`, such as the stored
        one for a 304: then that is the answer, and no more of the upstream's is read.

        Example:
            class Sizes(Plugin):
                @hook
                def cache_store(self, exchange):
                    return Meter(self.context.counters)

            class Meter:
                def __init__(self, counters):
                    self.counters = counters
                def write(self, chunk):
                    self.counters.add("body_bytes", len(chunk))
                def close(self, *, complete, trailers):
                    self.counters.add("bodies_total")
        """

    @_spec
    def transform_response(self, exchange: Exchange) -> Maybe[Denial]:
        """Change `exchange.response` on its way to the caller; a `Denial` takes its place.

        `response.content` is None where the body streams.

        An addon that needs response bodies (`needs=Body(response=True)`) but has no
        `transform_event` makes event streams in its scope be gathered as well: it may be a
        redactor, and nothing passes a redactor.

        Example:
            class NoServerHeader(Plugin):
                @hook
                def transform_response(self, exchange):
                    exchange.response.headers.pop("server", None)
        """

    @_spec
    def transform_event(self, exchange: Exchange, event: Event) -> EventResult:
        """Change one server-sent event or WebSocket message, as it passes. Sync.

        None passes `event` on, with the changes made to it; a list replaces it: `[]` drops it.
        A `Denial` ends the stream with an error event.

        Example:
            class Shout(Plugin):
                @hook
                def transform_event(self, exchange, event):
                    if isinstance(event, SseEvent) and event.data != "[DONE]":
                        event.data = event.data.upper()
        """

    @_spec
    def log(self, exchange: Exchange) -> Maybe[None]:
        """Write down an exchange that has ended. It may be dropped under load (and is counted).

        A plain `def` may return a coroutine where there is something to wait for: the hooks of
        addons listed later then wait for it too, other exchanges do not.

        Example:
            class Slow(Plugin):
                @hook
                def log(self, exchange):
                    if exchange.ended - exchange.started > 1.0:
                        self.context.log.warning("slow: %s", exchange.path)
        """

    @_spec
    def startup(self, previous: Plugin[Any] | None) -> Maybe[None]:
        """Open what the addon needs, on a worker's loop. An exception refuses to load.

        `previous` is the instance that this one replaces on a reload, or None.

        Example:
            class Memory(Plugin):
                @hook
                def startup(self, previous):
                    self.seen = previous.seen if previous else set()
        """

    @_spec
    def shutdown(self) -> Maybe[None]:
        """Close it: once, when the last exchange that holds the instance has ended.

        Example:
            class File(Plugin):
                @hook
                def startup(self, previous):
                    self.file = open(os.devnull, "ab")
                @hook
                def shutdown(self):
                    self.file.close()
        """

    @_spec
    def bootstrap(self, node: Node) -> Maybe[None]:
        """Prepare the node: once per start, in the supervisor, before any worker. Sync.

        Example:
            class Greeter(Plugin):
                @hook
                def bootstrap(self, node):
                    node.announce("greeting", "hello")
        """

    @_spec
    def cli_commands(self, app: Any) -> Maybe[None]:
        """Add verbs to the `tidegate` command: `app` is a Typer application. Sync.

        Example:
            class Fortune(Plugin):
                @hook
                def cli_commands(self, app):
                    @app.command()
                    def fortune() -> None:
                        print("A key expires when you least expect it.")
        """

    @_spec
    def console_routes(self, router: Any) -> Maybe[None]:
        """Add routes to the console: `router` is a FastAPI router, at `/api/v1`. Sync.

        Called in the console's process, on an addon that was made but not started. Who calls is
        known before a route runs; what he may do is for the route to require: see
        `tidegate.api.console`. Routes stand in a module that is imported here, because they need
        FastAPI. An exception refuses the configuration.

        Example:
            class Pulse(Plugin):
                @hook
                def console_routes(self, router):
                    @router.get("/pulse")
                    def pulse() -> str:
                        return "ok"
        """


HOOKS: tuple[str, ...] = tuple(n for n in vars(HookSpecs) if not n.startswith("_"))
"""The names of all hooks, in the order above."""
