"""What a hook that fails, blocks the way or gives nonsense means for the exchange."""

from __future__ import annotations

import asyncio

import pytest

from tidegate.api import Denial, Plugin
from tidegate.testing import Harness, Use, make_exchange
from tidegate.testing.faults import (
    FAULTS,
    bad_answer_plugin,
    bad_header_plugin,
    crash_plugin,
    pass_plugin,
    plugin_with,
    wrong_type_plugin,
)

GATES = {
    "authenticate": 503,
    "authorize": 503,
    "transform_request": 502,
    "route": 503,
    "transform_response": 502,
}
OBSERVERS = ("cache_lookup", "cache_store", "log")
ERRORS = (RuntimeError, SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit)
KINDS = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


@KINDS
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", GATES)
async def test_a_gate_that_raises_fails_closed_and_the_next_exchange_works(name, error, is_async):
    scope = {"paths": ["/crash"]}
    crash = Use(crash_plugin(name, error, is_async=is_async), name="crash", scope=scope)
    async with Harness(crash, Use(pass_plugin("authorize"), name="neighbour")) as harness:
        exchange = await harness.send(make_exchange(url="http://api.test/crash"))
        assert exchange.response.status_code == GATES[name]
        assert exchange.denial.code == "plugin_failed"
        assert exchange.failed_addon == "crash"
        assert exchange.outcome == "failed"
        assert harness.counters("crash")["hook_failures_total"] == 1
        if name != "transform_response":
            assert harness.sent == []
        after = await harness.send(make_exchange(url="http://api.test/fine"))
        assert after.outcome == "answered"


@KINDS
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", OBSERVERS)
async def test_an_observer_that_raises_is_counted_and_passed_over(name, error, is_async):
    async with Harness(crash_plugin(name, error, is_async=is_async)) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.outcome == "answered"
        assert harness.counters()["hook_failures_total"] == 1


@KINDS
@pytest.mark.parametrize("name", GATES)
async def test_a_gate_that_returns_a_wrong_type_is_500(name, is_async):
    async with Harness(wrong_type_plugin(name, is_async=is_async)) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.response.status_code == 500
        assert exchange.denial.code == "plugin_invalid_output"
        assert exchange.failed_addon


@KINDS
@pytest.mark.parametrize("name", OBSERVERS)
async def test_an_observer_that_returns_a_wrong_type_is_counted(name, is_async):
    async with Harness(wrong_type_plugin(name, is_async=is_async)) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.outcome == "answered"
        assert harness.counters()["hook_failures_total"] == 1


async def test_a_denial_from_a_cache_is_a_wrong_type_and_the_next_cache_is_asked():
    wrong = Use(wrong_type_plugin("cache_lookup", Denial(403, "no", "No.")), name="wrong")
    other = Use(pass_plugin("cache_lookup"), name="other")
    async with Harness(wrong, other) as harness:
        assert (await harness.send(make_exchange())).outcome == "answered"
        assert harness.counters("other") == {FAULTS: 1}


async def test_a_coroutine_from_a_plain_def_is_a_wrong_type(caplog):
    async def later() -> None: ...

    async with Harness(plugin_with("transform_request", lambda *_: later())) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.denial.code == "plugin_invalid_output"
    assert "write `async def`" in caplog.text


@pytest.mark.parametrize("name", ["transform_request", "transform_response"])
async def test_a_line_end_in_a_field_does_not_get_out(name):
    async with Harness(bad_header_plugin(name)) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.response.status_code == 500
        assert exchange.denial.code == "plugin_invalid_output"
        assert "set-cookie" not in exchange.response.headers
        assert all("x-bad" not in request.headers for request in harness.sent)


@pytest.mark.parametrize("name", ["authorize", "transform_request", "route"])
async def test_a_line_end_in_a_field_of_a_local_answer_does_not_get_out(name):
    async with Harness(bad_answer_plugin(name)) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.response.status_code == 500
        assert "x-bad" not in exchange.response.headers


async def test_a_line_end_in_a_field_of_a_denial_does_not_get_out():
    denial = Denial(403, "no", "No.", (("x-bad", "a\r\nset-cookie: evil=1"),))
    async with Harness(wrong_type_plugin("authorize", denial)) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.denial.code == "plugin_invalid_output"
        assert "x-bad" not in exchange.response.headers


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("method", b"GE T"), ("path", b"/a b"), ("path", b"http://evil.test/"), ("path", b"/\r\nx")],
)
async def test_a_request_line_that_can_not_be_sent_is_500(attribute, value):
    plugin = plugin_with(
        "transform_request", lambda _, exchange: setattr(exchange.request.data, attribute, value)
    )
    async with Harness(plugin) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.denial.code == "plugin_invalid_output"
        assert harness.sent == []


async def test_a_response_replaced_by_something_else_is_500():
    plugin = plugin_with(
        "transform_response", lambda _, exchange: setattr(exchange, "response", "text")
    )
    async with Harness(plugin) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.denial.code == "plugin_invalid_output"


@pytest.mark.parametrize("name", GATES)
async def test_on_error_skip_passes_over_a_failing_hook(name):
    crash = Use(crash_plugin(name), name="crash", on_error="skip")
    async with Harness(crash, gateway={"anonymous": True}) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.outcome == "answered"
        assert exchange.failed_addon == ""
        assert harness.counters("crash")["hook_failures_total"] == 1


async def test_a_skipped_authenticator_admits_no_one():
    crash = Use(crash_plugin("authenticate"), name="crash", on_error="skip")
    async with Harness(crash) as harness:
        assert (await harness.send(make_exchange())).response.status_code == 401


async def test_the_log_names_addon_hook_and_place_but_no_secret(caplog):
    class Leaks(Plugin):
        pass

    def act(_, exchange):
        key = exchange.consume_header("x-key")
        raise ValueError(f"bad key {key}")

    async with Harness(Use(plugin_with("authenticate", act), name="leaks")) as harness:
        secret = "tg_live_0123456789abcdef"
        await harness.send(make_exchange(headers={"x-key": secret}))
    (record,) = [r for r in caplog.records if r.name == "tidegate.pipeline"]
    text = record.getMessage()
    assert "leaks failed in authenticate" in text
    assert "ValueError" in text
    assert "test_failures.py" in text
    assert secret not in text


async def test_credentials_are_gone_before_the_log_where_authenticate_ended_it():
    seen = []
    for outcome in (Denial(401, "invalid_api_key", "No."), RuntimeError):

        def act(_, exchange, outcome=outcome):
            exchange.consume_header("x-key")
            if outcome is RuntimeError:
                raise outcome("no")
            return outcome

        uses = [
            Use(plugin_with("authenticate", act), name="auth"),
            Use(
                plugin_with("log", lambda _, e: seen.append("x-key" in e.request.headers)),
                name="log",
            ),
        ]
        async with Harness(*uses) as harness:
            await harness.send(make_exchange(headers={"x-key": "secret"}))
    assert seen == [False, False]


# -- at_end -----------------------------------------------------------------------------------


@pytest.mark.parametrize("crash", [None, "authorize", "transform_request", "route", "log"])
async def test_at_end_runs_once_in_reverse_order_however_it_ends(crash):
    order = []

    def act(_, exchange):
        exchange.at_end(lambda e: order.append(("first", e.outcome)))
        exchange.at_end(lambda e: order.append(("second", e.outcome)))

    uses = [Use(plugin_with("authorize", act), name="reserves")]
    if crash:
        uses.append(Use(crash_plugin(crash), name="crash"))
    async with Harness(*uses) as harness:
        exchange = await harness.send(make_exchange())
    assert order == [("second", exchange.outcome), ("first", exchange.outcome)]


async def test_an_ending_that_raises_does_not_keep_the_others_from_running():
    ran = []

    def broken(_):
        raise SystemExit

    def act(_, exchange):
        exchange.at_end(lambda _: ran.append(1))
        exchange.at_end(broken)

    async with Harness(plugin_with("authorize", act)) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.outcome == "answered"
        assert ran == [1]
        assert harness.runtime.counters.values["at_end_failures_total"] == 1


async def test_a_sink_that_fails_costs_no_one_the_answer():
    class Sink:
        def write(self, chunk):
            raise OSError("disk full")

        def close(self, *, complete, trailers):
            raise AssertionError("a failed sink is not called again")

    async with Harness(wrong_type_plugin("cache_store", Sink())) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.response.content == b"ok"
        assert harness.counters()["hook_failures_total"] == 1
