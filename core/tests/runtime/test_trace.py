"""Tracing: what a trace tells, what it must not, and that a traced exchange is no different."""

from __future__ import annotations

import asyncio

import pytest
from mitmproxy import http

from tidegate.api import Body, Client, Denial, Plugin, Principal, hook
from tidegate.runtime.faults import TRIPS, BreakerOpen
from tidegate.runtime.guard import HookBlocked
from tidegate.runtime.heads import open_exchange
from tidegate.runtime.trace import SUMMARY, Trace
from tidegate.testing import Harness, Use, make_exchange
from tidegate.testing.contracts.base import on_the_wire
from tidegate.testing.faults import plugin_with


class Team(Plugin):
    @hook
    def authenticate(self, exchange):
        return Principal("ada")

    @hook
    def transform_request(self, exchange):
        exchange.request.headers["x-team"] = "s3cr3t"
        exchange.request.path = "/s3cr3t"
        exchange.request.content = b"s3cr3t"

    @hook
    async def transform_response(self, exchange):
        await asyncio.sleep(0)
        exchange.response.status_code = 203


async def traced(*uses, exchange=None, **options):
    exchange = exchange or make_exchange(body=b"first")
    trace = exchange.trace = Trace(forced=True)
    async with Harness(*uses, **options) as harness:
        await harness.send(exchange)
        return exchange, trace.to_json(), harness


def step_of(trace, phase, addon):
    steps = next(p["steps"] for p in trace["phases"] if p["phase"] == phase)
    return next(s for s in steps if s["addon"] == addon)


async def test_changes_are_told_by_name_and_hash():
    _, trace, _ = await traced(Team)
    names = [text.split()[0] for text in step_of(trace, "transform_request", "Team")["changed"]]
    assert set(names) >= {"+x-team", "body", "path"}
    assert step_of(trace, "transform_response", "Team")["changed"] == ["status 200→203"]
    assert "s3cr3t" not in str(trace)


async def test_a_traced_exchange_is_as_one_that_is_not():
    results = []
    for trace in (None, Trace(forced=True)):
        exchange = make_exchange(body=b"first")
        exchange.trace = trace
        async with Harness(Team) as harness:
            await harness.send(exchange)
            results.append((on_the_wire(harness.sent[0]), on_the_wire(exchange.response)))
    assert results[0] == results[1]


RESULTS = [
    ("authorize", Denial(403, "no", "No."), "403 no - addon said no in authorize: No."),
    ("route", http.Response.make(418), "418 - answered here by addon in route"),
    ("cache_lookup", http.Response.make(200), "200 - answered from the cache of addon"),
    ("authenticate", None, "401 unauthenticated - no addon recognised a credential"),
]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(("name", "result", "decision"), RESULTS)
async def test_the_decision_is_a_sentence(name, result, decision, is_async):
    plugin = plugin_with(name, lambda *_: result, is_async=is_async)
    _, trace, _ = await traced(Use(plugin, name="addon"))
    assert trace["decision"] == decision


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("name", ["authenticate", "authorize", "route", "transform_response"])
async def test_a_hook_that_raises_fails_as_untraced_and_is_named(name, is_async):
    def act(*_):
        raise KeyError("s3cr3t")

    plugin = plugin_with(name, act, is_async=is_async)
    exchange, trace, harness = await traced(Use(plugin, name="bad"))
    assert exchange.denial.status in (502, 503)
    assert trace["decision"].endswith(f"bad raised KeyError in {name}")
    assert harness.counters()["hook_failures_total"] == 1
    assert "s3cr3t" not in str(trace)


class Waiting(Plugin):
    """Hooks that wait, written both ways."""

    def __init__(self, config, context):
        super().__init__(config, context)
        self.logged = 0

    @hook
    def authorize(self, exchange):
        return self.decide()

    @hook
    async def log(self, exchange):
        await asyncio.sleep(0)
        self.logged += 1

    async def decide(self):
        await asyncio.sleep(0)
        return Denial(403, "no", "No.")


class WaitingLog(Waiting):
    @hook
    def log(self, exchange):
        return super().log(exchange)


@pytest.mark.parametrize("plugin", [Waiting, WaitingLog])
async def test_hooks_that_wait_run_as_untraced(plugin):
    exchange = make_exchange()
    trace = exchange.trace = Trace(forced=True)
    async with Harness(Use(plugin, name="addon")) as harness:
        await harness.send(exchange)
        assert harness.plugin().logged == 1
        assert harness.counters() == {}
    assert trace.to_json()["decision"] == "403 no - addon said no in authorize: No."


async def test_a_result_of_a_wrong_type_is_told_as_one():
    exchange, trace, _ = await traced(Use(plugin_with("route", lambda *_: "blue"), name="bad"))
    assert exchange.denial.status == 500
    assert trace["decision"] == "500 plugin_invalid_output - bad returned str in route"


async def test_transforms_of_an_answer_from_a_cache_are_told_too():
    cache = plugin_with("cache_lookup", lambda *_: http.Response.make(200))
    status = plugin_with("transform_response", lambda _, e: setattr(e.response, "status_code", 203))
    _, trace, _ = await traced(Use(status, name="status"), Use(cache, name="cache"))
    assert trace["decision"] == "203 - answered from the cache of cache"
    assert step_of(trace, "transform_response", "status")["changed"] == ["status 200→203"]


async def test_steps_that_did_not_run_say_why():
    first = plugin_with("authenticate", lambda *_: Principal("ada"))
    second = plugin_with("authenticate", lambda *_: Principal("bob"))
    no = plugin_with("authorize", lambda *_: Denial(403, "no", "No."))
    late = plugin_with("route", lambda *_: None)
    uses = [Use(p, name=n) for p, n in ((first, "a"), (second, "b"), (no, "c"), (late, "d"))]
    _, trace, _ = await traced(*uses)
    assert step_of(trace, "authenticate", "b")["why"] == "not asked: a had the answer"
    assert step_of(trace, "route", "d")["why"] == "not reached"


async def test_addons_outside_are_listed_with_the_part_of_their_scope():
    uses = [
        Use(Team, name="paths", scope={"paths": ["/v1/*"]}),
        Use(Team, name="hosts", scope={"hosts": ["*.corp"], "methods": ["GET"]}),
        Use(Team, name="methods", scope={"methods": ["POST", "PUT"]}),
        Use(Team, name="off", mode="off"),
    ]
    _, trace, _ = await traced(*uses, exchange=make_exchange(url="http://api.test/x"))
    assert {one["addon"]: one["why"] for one in trace["left_out"]} == {
        "paths": "its scope: path /x is not in /v1/*",
        "hosts": "its scope: host api.test is not in *.corp",
        "methods": "its scope: method GET is not in POST, PUT",
        "off": "it is off",
    }


async def test_shadow_decisions_stand_at_their_hook():
    _, trace, _ = await traced(Use(Team, mode="shadow"), gateway={"anonymous": True})
    assert step_of(trace, "authenticate", "Team")["shadows"] == ["authenticate ada"]
    assert step_of(trace, "authenticate", "Team")["mode"] == "shadow"
    assert "s3cr3t" not in str(trace)


async def test_an_explanation_that_fails_costs_nothing_but_a_count():
    class Bad(Plugin):
        @hook
        def authorize(self, exchange):
            return None

        def explain(self, hook, exchange):
            raise RuntimeError

    exchange, _, harness = await traced(Bad)
    assert exchange.outcome == "answered"
    assert harness.counters()["hook_failures_total"] == 1


async def test_the_summary_is_one_bounded_line_of_ascii():
    plugin = plugin_with("authenticate", lambda *_: Principal("å\r\nx: y"))
    long = [
        Use(plugin_with("authorize", lambda *_: None), name=f"{'n' * 40}{i}") for i in range(40)
    ]
    exchange = make_exchange()
    trace = exchange.trace = Trace(asked=True)
    async with Harness(
        Use(plugin), *long, gateway={"explain": {"principals": ["å\r\nx: y"]}}
    ) as harness:
        await harness.send(exchange)
    ((name, value),) = trace.fields(exchange)
    assert name == b"x-tidegate-explain"
    assert len(value) <= SUMMARY
    assert value.isascii()
    assert not set(value) & {10, 13}


LOCAL = Client("127.0.0.1", 1, "127.0.0.1")
AWAY = Client("192.0.2.1", 1, "192.0.2.1")
PROXIED = Client("192.0.2.1", 1, "127.0.0.1")


@pytest.mark.parametrize(
    ("gateway", "client", "seen"),
    [
        ({}, LOCAL, True),
        ({}, AWAY, False),
        ({}, PROXIED, False),
        ({"explain": {"header": False}}, LOCAL, False),
        ({"environment": "production"}, LOCAL, False),
        ({"environment": "production", "explain": {"principals": ["ada"]}}, AWAY, True),
        ({"environment": "production", "explain": {"principals": ["bob"]}}, LOCAL, False),
    ],
)
async def test_a_trace_is_denied_to_all_but_those_named(gateway, client, seen):
    exchange = make_exchange(client=client)
    exchange.trace = Trace(asked=True)
    async with Harness(Team, gateway=gateway) as harness:
        await harness.send(exchange)
        assert (exchange.trace is not None and bool(exchange.trace.fields(exchange))) is seen
        assert (harness.runtime.traces.get(exchange.id) is not None) is seen


async def test_samples_are_kept_within_bounds_and_others_are_not_traced():
    async with Harness(Team, gateway={"explain": {"sample": 0.5, "keep": 3}}) as harness:
        below, above = 1, 2**96 - 1
        for seed in (above, below, below, below, below):
            exchange = await harness.send(make_exchange(seed=seed, client=AWAY))
            assert (exchange.trace is not None) is (seed == below)
        assert len(harness.runtime.traces.recent()) == 3


def test_only_the_field_with_the_value_1_asks():
    for fields, asked in (
        (((b"X-Tidegate-Explain", b"1"),), True),
        (((b"x-tidegate-explain", b"0"),), False),
        ((), False),
    ):
        head = ((b"host", b"api.test"), *fields)
        exchange = open_exchange(b"GET", b"/", head, LOCAL, listener="gateway")
        assert (exchange.trace is not None) is asked
    old = open_exchange(
        b"GET",
        b"/",
        ((b"x-tidegate-explain", b"1"),),
        LOCAL,
        listener="g",
        http_version=b"HTTP/1.0",
    )
    assert (old.host, old.trace.asked) == ("", True)


async def test_a_breaker_that_opens_under_trace_opens_for_all():
    plugin = plugin_with("authorize", lambda *_: None)
    async with Harness(Use(plugin, name="slow")) as harness:
        exchange = make_exchange()
        exchange.trace = Trace(forced=True)
        tracing = harness.runtime.enter(exchange)
        plain = harness.runtime.begin("gateway", "api.test", "/", "GET")
        step = next(s for s in tracing.steps if s.addon == "slow")
        for _ in range(TRIPS):
            step.breaker.failed(step, HookBlocked())
        with pytest.raises(BreakerOpen):
            next(s for s in plain.steps if s.addon == "slow").call(exchange)
        for pipeline in (tracing, plain):
            pipeline.finish(make_exchange() if pipeline is plain else exchange)


async def test_a_caller_outside_a_rollout_is_told_of_a_shadow():
    _, trace, _ = await traced(Use(Team, {"percent": 0}))
    assert step_of(trace, "authenticate", "Team")["mode"] == "shadow"


class Whole(Plugin):
    @hook(needs=Body(response=True, limit=10))
    def transform_response(self, exchange):
        return self.decide(exchange)

    def decide(self, exchange):
        assert exchange.response.content == b"ok"
        return Denial(403, "no_ok", "No.")


class WholeAsync(Whole):
    @hook(needs=Body(response=True, limit=10))
    async def transform_response(self, exchange):
        return self.decide(exchange)


@pytest.mark.parametrize("plugin", [Whole, WholeAsync])
async def test_what_a_shadow_addon_decides_at_the_end_of_an_answer_is_told_too(plugin):
    exchange = make_exchange()
    trace = exchange.trace = Trace(forced=True)
    async with Harness(Use(plugin, mode="shadow", name="whole")) as harness:
        await harness.send(exchange)
    assert exchange.denial is None
    assert [(s.decision, s.detail) for s in exchange.shadows] == [("deny", "no_ok")]
    assert "+whole shadow" in trace.summary()
    assert "(would deny no_ok)" in trace.summary()
