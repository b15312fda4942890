"""Shadow mode: decides on a copy, records what it would have done, changes nothing."""

from __future__ import annotations

import pytest
from mitmproxy import http

from tidegate.api import Body, Denial, Plugin, Principal, StashKey, hook, upstream_from_url
from tidegate.testing import Harness, Use, make_answer, make_exchange
from tidegate.testing.contracts.base import on_the_wire
from tidegate.testing.faults import crash_plugin, plugin_with, wrong_type_plugin

RESULTS = {
    "authenticate": [(Principal("ada"), "authenticate"), (Denial(401, "no", "No."), "deny")],
    "authorize": [(Denial(403, "no", "No."), "deny"), (http.Response.make(200), "answer")],
    "transform_request": [(http.Response.make(200), "answer"), (Denial(400, "no", ""), "deny")],
    "cache_lookup": [(http.Response.make(200), "answer")],
    "route": [(upstream_from_url("http://127.0.0.1:1"), "route")],
}
ROWS = [(name, result, decision) for name, rows in RESULTS.items() for result, decision in rows]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(("name", "result", "decision"), ROWS)
async def test_a_result_is_recorded_and_has_no_effect(name, result, decision, is_async):
    plugin = plugin_with(name, lambda *_: result, is_async=is_async)
    async with Harness(Use(plugin, mode="shadow"), gateway={"anonymous": True}) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.response.content == b"ok"
        assert exchange.principal is None
        assert len(harness.sent) == 1
        assert [(s.phase, s.decision) for s in exchange.shadows] == [(name, decision)]
        assert harness.counters()[f"shadow_{decision}_total"] == 1


class Vandal(Plugin):
    """Changes all that it can reach, in every hook."""

    def spoil(self, exchange):
        request = exchange.request
        request.headers["x-spoilt"] = "1"
        request.path = "/spoilt"
        request.method = "DELETE"
        request.content = b"spoilt"
        exchange.principal = Principal("mallory")
        exchange.notes["spoilt"] = True
        exchange.attempts.append(None)
        exchange.upstream = upstream_from_url("http://127.0.0.1:1")
        if exchange.response is not None:
            exchange.response.headers["x-spoilt"] = "1"
            exchange.response.status_code = 500
            exchange.response.content = b"spoilt"
            if exchange.response.trailers:
                exchange.response.trailers["x-spoilt"] = "1"

    @hook
    def authenticate(self, exchange):
        self.spoil(exchange)

    @hook
    async def authorize(self, exchange):
        self.spoil(exchange)

    @hook(needs=Body(request=True))
    def transform_request(self, exchange):
        exchange.request_json()["a"] = "spoilt"
        self.spoil(exchange)

    @hook
    def cache_lookup(self, exchange):
        self.spoil(exchange)

    @hook
    def route(self, exchange):
        self.spoil(exchange)

    @hook
    def cache_store(self, exchange):
        self.spoil(exchange)

    @hook
    def transform_response(self, exchange):
        self.spoil(exchange)

    @hook
    def transform_event(self, exchange, event):
        event.data = "spoilt"
        return []

    @hook
    def log(self, exchange):
        self.spoil(exchange)


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
async def test_whatever_a_shadow_hook_changes_the_exchange_is_as_without_it(kind):
    answer = make_answer(200, b"data: 1\n\n", {"content-type": kind})
    answer.trailers = http.Headers([(b"x-sum", b"1")])
    results = []
    for uses in ([], [Use(Vandal, mode="shadow")]):
        exchange = make_exchange("POST", "http://api.test/x?q=1", {"x-a": "1"}, {"a": 1})
        async with Harness(*uses, answer=answer, gateway={"anonymous": True}) as harness:
            await harness.send(exchange)
            results.append(
                (
                    [on_the_wire(request) for request in harness.sent],
                    on_the_wire(exchange.response),
                    exchange.response.status_code,
                    exchange.response.trailers.fields,
                    exchange.principal,
                    exchange.notes,
                    len(exchange.attempts),
                    exchange.upstream.name,
                    exchange.outcome,
                )
            )
    assert results[0] == results[1]
    changes = [s for s in exchange.shadows if s.decision == "change"]
    assert {s.phase for s in changes} >= {"transform_request", "transform_response"}
    assert "spoilt" not in str([s.detail for s in changes if "x-spoilt" not in s.detail])


async def test_a_shadow_hook_that_fails_is_recorded_and_passed_over():
    for name in (*RESULTS, "transform_response", "cache_store"):
        for plugin in (crash_plugin(name, SystemExit), wrong_type_plugin(name)):
            use = Use(plugin, mode="shadow")
            async with Harness(use, gateway={"anonymous": True}) as harness:
                exchange = await harness.send(make_exchange())
                assert exchange.outcome == "answered", name
                assert [s.decision for s in exchange.shadows] == ["fail"], name


async def test_shadow_authentication_still_strips_credentials():
    def act(_, exchange):
        return Principal(exchange.consume_header("x-key"))

    use = Use(plugin_with("authenticate", act), mode="shadow")
    async with Harness(use, gateway={"anonymous": True}) as harness:
        await harness.send(make_exchange(headers={"x-key": "secret"}))
        assert "x-key" not in harness.sent[0].headers


async def test_the_credential_is_still_there_for_an_enforcing_authenticator():
    def act(_, exchange):
        return Principal(exchange.consume_header("x-key"))

    plugin = plugin_with("authenticate", act)
    uses = [Use(plugin, mode="shadow", name="new"), Use(plugin, name="old")]
    async with Harness(*uses) as harness:
        exchange = await harness.send(make_exchange(headers={"x-key": "ada"}))
        assert exchange.principal == Principal("ada")


async def test_what_a_shadow_hook_keeps_its_later_hooks_find_and_its_reservations_end():
    key = StashKey[int]("kept")
    found = []

    class Keeps(Plugin):
        @hook
        def authorize(self, exchange):
            exchange.stash[key] = 1
            exchange.at_end(lambda _: found.append("settled"))

        @hook
        def transform_response(self, exchange):
            found.append(exchange.stash[key])

    async with Harness(Use(Keeps, mode="shadow")) as harness:
        await harness.send(make_exchange())
    assert found == [1, "settled"]


async def test_a_shadow_cache_fills_so_that_its_hits_can_be_counted():
    class Sink:
        def __init__(self, plugin):
            self.plugin = plugin

        def write(self, chunk):
            self.plugin.kept = chunk

        def close(self, *, complete, trailers):
            pass

    class Memory(Plugin):
        kept = None

        @hook
        def cache_lookup(self, exchange):
            return None if self.kept is None else http.Response.make(200, self.kept)

        @hook
        def cache_store(self, exchange):
            return Sink(self)

    async with Harness(Use(Memory, mode="shadow")) as harness:
        for _ in range(2):
            exchange = await harness.send(make_exchange())
            assert not exchange.from_cache
        assert len(harness.sent) == 2
        assert ("cache_lookup", "answer") in [(s.phase, s.decision) for s in exchange.shadows]
