"""The table of `hookspecs.py`: what each hook may return, and whose result counts."""

from __future__ import annotations

from mitmproxy import http

from tidegate.api import Denial, Plugin, Principal, Upstream, hook, upstream_from_url
from tidegate.testing import Harness, Use, make_answer, make_exchange
from tidegate.testing.faults import FAULTS, deny_plugin, pass_plugin, plugin_with

BLUE = upstream_from_url("http://127.0.0.1:9001", name="blue")
GREEN = upstream_from_url("http://127.0.0.1:9002", name="green")


def returning(name: str, result: object, *, is_async: bool = False) -> type[Plugin]:
    return plugin_with(name, lambda *_: result, is_async=is_async)


def two(name: str, first: object, second: object, *, is_async: bool = False) -> list[Use]:
    return [
        Use(returning(name, first, is_async=is_async), name="first"),
        Use(returning(name, second, is_async=is_async), name="second"),
    ]


def adding_header(name: str, *, on: str) -> type[Plugin]:
    def act(_: Plugin, exchange) -> None:
        message = exchange.request if on == "transform_request" else exchange.response
        message.headers.add("x-trace", name)

    return plugin_with(on, act)


async def test_the_first_principal_counts_and_the_rest_are_not_asked():
    for is_async in (False, True):
        uses = two("authenticate", Principal("ada"), Principal("bob"), is_async=is_async)
        async with Harness(*uses) as harness:
            exchange = await harness.send(make_exchange())
            assert exchange.principal == Principal("ada")
            assert harness.counters("second") == {}


async def test_none_leaves_the_caller_to_the_next_authenticator():
    for is_async in (False, True):
        uses = two("authenticate", None, Principal("bob"), is_async=is_async)
        async with Harness(*uses) as harness:
            assert (await harness.send(make_exchange())).principal == Principal("bob")


async def test_a_denial_of_an_authenticator_ends_it_before_the_next_is_asked():
    uses = two("authenticate", Denial(401, "invalid_api_key", "No."), Principal("bob"))
    async with Harness(*uses) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.response.status_code == 401
        assert exchange.outcome == "denied"
        assert harness.counters("second") == {}
        assert harness.sent == []


async def test_every_authorizer_must_pass_and_the_first_denial_counts():
    uses = [
        Use(pass_plugin("authorize"), name="passes"),
        Use(deny_plugin(), name="denies"),
        Use(pass_plugin("authorize"), name="unasked"),
    ]
    async with Harness(*uses) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.denial.code == "closed"
        assert harness.counters("passes") == {FAULTS: 1}
        assert harness.counters("unasked") == {}


async def test_request_transforms_run_in_file_order_response_transforms_in_reverse():
    class Both(Plugin):
        @hook
        def transform_request(self, exchange):
            exchange.request.headers.add("x-trace", self.context.name)

        @hook
        async def transform_response(self, exchange):
            exchange.response.headers.add("x-trace", self.context.name)

    async with Harness(*(Use(Both, name=name) for name in "abc")) as harness:
        exchange = await harness.send(make_exchange())
        assert harness.sent[0].headers.get_all("x-trace") == ["a", "b", "c"]
        assert exchange.response.headers.get_all("x-trace") == ["c", "b", "a"]


async def test_a_denial_of_a_request_transform_ends_the_exchange():
    async with Harness(returning("transform_request", Denial(400, "bad_model", "No."))) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.response.status_code == 400
        assert harness.sent == []


async def test_the_first_upstream_counts():
    async with Harness(*two("route", BLUE, GREEN), routed=False) as harness:
        assert (await harness.send(make_exchange())).upstream is BLUE
    async with Harness(*two("route", None, GREEN), routed=False) as harness:
        assert (await harness.send(make_exchange())).upstream is GREEN


async def test_without_any_upstream_it_is_404():
    async with Harness(pass_plugin("authorize"), routed=False) as harness:
        exchange = await harness.send(make_exchange())
        assert (exchange.denial.status, exchange.denial.code) == (404, "no_route")


async def test_the_first_cached_answer_counts_and_nothing_is_sent():
    hit, other = make_answer(200, "hit"), make_answer(200, "other")
    async with Harness(*two("cache_lookup", hit, other)) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.response.content == b"hit"
        assert exchange.from_cache
        assert harness.sent == []
        assert harness.counters("second") == {}


async def test_all_caches_may_store_and_see_the_body_pass():
    class Sink:
        def __init__(self) -> None:
            self.seen: list[object] = []

        def write(self, chunk: bytes) -> None:
            self.seen.append(chunk)

        def close(self, *, complete: bool, trailers: object) -> None:
            self.seen.append(complete)

    sinks = [Sink(), Sink()]
    async with Harness(*two("cache_store", *sinks), answer=make_answer(200, "body")) as harness:
        await harness.send(make_exchange())
        assert [sink.seen for sink in sinks] == [[b"body", True], [b"body", True]]


async def test_log_hooks_all_run_after_the_end():
    seen = []

    def act(plugin: Plugin, exchange) -> None:
        seen.append((plugin.context.name, exchange.outcome, exchange.ended > 0))

    uses = [Use(plugin_with("log", act), name="a"), Use(plugin_with("log", act), name="b")]
    async with Harness(*uses) as harness:
        await harness.send(make_exchange())
    assert seen == [("a", "answered", True), ("b", "answered", True)]


# -- local answers ----------------------------------------------------------------------------


async def transforms_met(answering: Use) -> list[str]:
    """Which response transforms an answer meets that `answering`, in the middle, gives."""
    outer = Use(adding_header("outer", on="transform_response"), name="outer")
    inner = Use(adding_header("inner", on="transform_response"), name="inner")
    async with Harness(outer, answering, inner) as harness:
        exchange = await harness.send(make_exchange())
        assert harness.sent == []
        assert exchange.outcome == "answered"
        return exchange.response.headers.get_all("x-trace")


async def test_an_answer_of_authorize_or_a_transform_meets_the_transforms_listed_before_it():
    for name in ("authorize", "transform_request"):
        answering = Use(returning(name, http.Response.make(200, b"local")), name="local")
        assert await transforms_met(answering) == ["outer"]


async def test_an_answer_of_route_meets_every_response_transform():
    answering = Use(returning("route", http.Response.make(200, b"local")), name="local")
    assert await transforms_met(answering) == ["inner", "outer"]


async def test_a_cached_answer_meets_every_response_transform():
    answering = Use(returning("cache_lookup", http.Response.make(200, b"local")), name="local")
    assert await transforms_met(answering) == ["inner", "outer"]


async def test_the_addon_that_answered_does_not_transform_its_own_answer():
    class Answers(Plugin):
        @hook
        def authorize(self, exchange):
            return http.Response.make(200, b"mine")

        @hook
        def transform_response(self, exchange):
            exchange.response.headers["x-own"] = "1"

    async with Harness(Answers) as harness:
        exchange = await harness.send(make_exchange())
        assert "x-own" not in exchange.response.headers


async def test_a_local_answer_is_logged_and_not_stored():
    logged, stored = [], []
    uses = [
        Use(plugin_with("log", lambda _, e: logged.append(e.id)), name="log"),
        Use(plugin_with("cache_store", lambda _, e: stored.append(e.id)), name="cache"),
        Use(returning("authorize", http.Response.make(200)), name="local"),
    ]
    async with Harness(*uses) as harness:
        exchange = await harness.send(make_exchange())
    assert logged == [exchange.id]
    assert stored == []


# -- the place of the cache -------------------------------------------------------------------


def marking(mark: str, *, cacheable: bool) -> type[Plugin]:
    class Marks(Plugin):
        @hook(cacheable=cacheable)
        def transform_response(self, exchange):
            exchange.response.headers.add("x-trace", mark)

    return Marks


class Memory(Plugin):
    """Keeps the head that it is shown, and answers with it."""

    def __init__(self, config, context) -> None:
        super().__init__(config, context)
        self.kept: list[str] | None = None

    @hook
    def cache_lookup(self, exchange):
        if self.kept is not None:
            return make_answer(200, "hit", [("x-trace", mark) for mark in self.kept])
        return None

    @hook
    def cache_store(self, exchange):
        self.kept = exchange.response.headers.get_all("x-trace")


async def test_what_cacheable_transforms_next_to_the_upstream_made_is_what_is_stored():
    uses = [
        Use(marking("outer-cacheable", cacheable=True), name="outer-cacheable"),
        Use(marking("personal", cacheable=False), name="personal"),
        Use(Memory, name="memory"),
        Use(marking("inner-cacheable", cacheable=True), name="inner-cacheable"),
    ]
    async with Harness(*uses) as harness:
        fresh = await harness.send(make_exchange())
        assert harness.plugin("memory").kept == ["inner-cacheable"]
        hit = await harness.send(make_exchange())
        assert hit.from_cache
        for exchange in (fresh, hit):
            assert exchange.response.headers.get_all("x-trace") == [
                "inner-cacheable",
                "personal",
                "outer-cacheable",
            ]


async def test_where_all_transforms_are_cacheable_a_hit_pays_for_none():
    uses = [Use(marking("a", cacheable=True), name="a"), Use(Memory, name="memory")]
    async with Harness(*uses) as harness:
        await harness.send(make_exchange())
        hit = await harness.send(make_exchange())
        assert hit.from_cache
        assert hit.response.headers.get_all("x-trace") == ["a"]


# -- scopes -----------------------------------------------------------------------------------


async def test_an_addon_listed_late_in_the_file_works_in_a_scope_of_few_addons():
    elsewhere = [
        Use(pass_plugin("authorize"), name=f"elsewhere-{n}", scope={"paths": ["/other"]})
        for n in range(5)
    ]
    late = Use(adding_header("late", on="transform_response"), name="late")
    async with Harness(*elsewhere, late) as harness:
        exchange = await harness.send(make_exchange(url="http://api.test/here"))
        assert exchange.response.headers.get_all("x-trace") == ["late"]


async def test_scopes_that_share_an_addon_do_not_disturb_each_other():
    """One scope has one authenticator, the other two: each skips exactly its own."""

    class Key(Plugin):
        @hook
        def authenticate(self, exchange):
            key = exchange.consume_header("x-key")
            return None if key is None else Principal(key)

    shared = Use(Key, name="shared")
    further = Use(pass_plugin("authenticate"), name="further", scope={"paths": ["/v1/*"]})
    closed = Use(deny_plugin(), name="closed", scope={"methods": ["DELETE"]})
    async with Harness(shared, further, closed) as harness:
        for path in ("/plain", "/v1/x", "/plain", "/v1/x"):
            exchange = make_exchange(url=f"http://api.test{path}", headers={"x-key": "ada"})
            await harness.send(exchange)
            assert exchange.principal == Principal("ada")
            assert "x-key" not in harness.sent[-1].headers
            denied = await harness.send(
                make_exchange("DELETE", f"http://api.test{path}", {"x-key": "ada"})
            )
            assert denied.denial is not None, path
        assert harness.counters("further") == {}


async def test_an_upstream_is_asked_for_each_attempt_and_told_of_each_end():
    told = []

    class Pair(Upstream):
        def pick(self, exchange, tried):
            return (BLUE, GREEN)[len(tried)] if len(tried) < 2 else None

        def ended(self, exchange, attempt):
            told.append((attempt.upstream.name, attempt.error, attempt.status))

    from tidegate.api.errors import UPSTREAM_UNREACHABLE

    answers = [UPSTREAM_UNREACHABLE, make_answer(200, "second")]
    pair = Pair("pair", "http", "pair.test", 80)
    harness = Harness(returning("route", pair), answer=lambda _: answers.pop(0))
    async with harness:
        exchange = await harness.send(make_exchange())
        assert exchange.response.content == b"second"
    assert told == [("blue", "upstream_unreachable", None), ("green", "", 200)]


async def test_a_response_transform_may_deny_in_place_of_the_answer():
    class NoSecrets(Plugin):
        @hook
        def transform_response(self, exchange):
            return Denial(451, "withheld", "This answer is withheld.")

    async with Harness(NoSecrets) as harness:
        exchange = await harness.send(make_exchange())
        assert (exchange.status, exchange.outcome) == (451, "denied")
        assert exchange.failed_addon == ""
