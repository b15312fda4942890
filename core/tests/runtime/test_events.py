"""Event transforms: order, replacement, what may come back, and what cuts the stream."""

from __future__ import annotations

import pytest

from tidegate.api import Denial, Plugin, SseEvent, WsMessage, hook
from tidegate.testing import Harness, Use, make_answer, make_exchange
from tidegate.testing.faults import crash_plugin, plugin_with, wrong_type_plugin

STREAM = make_answer(200, b": hi\n\nid: 7\ndata: a\n\n", {"content-type": "text/event-stream"})


async def stream(*uses: Use | type[Plugin]) -> tuple[bytes, object]:
    async with Harness(*uses, answer=STREAM) as harness:
        exchange = await harness.send(make_exchange())
        return exchange.response.content, exchange.denial


def on_event(act) -> type[Plugin]:
    return plugin_with("transform_event", lambda _, exchange, event: act(event))


def appending(text: str) -> Use:
    def act(event):
        event.data += text

    return Use(on_event(act), name=f"appends-{text}")


async def test_event_transforms_run_in_reverse_file_order():
    content, _ = await stream(appending("1"), appending("2"))
    assert content == b": hi\n\nid: 7\ndata: a21\n\n"


async def test_an_event_that_no_one_changes_keeps_its_bytes():
    content, _ = await stream(on_event(lambda event: None))
    assert content == STREAM.content


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ([], b": hi\n\n"),
        ([SseEvent("x"), SseEvent("y", "e")], b": hi\n\ndata: x\n\nevent: e\ndata: y\n\n"),
        (SseEvent("one\ntwo"), b": hi\n\ndata: one\ndata: two\n\n"),
        (SseEvent("one\rdata: two"), b": hi\n\ndata: one\ndata: data: two\n\n"),
    ],
)
async def test_a_result_takes_the_place_of_the_event(result, expected):
    content, _ = await stream(on_event(lambda _: result))
    assert content == expected


@pytest.mark.parametrize(
    "result",
    [
        42,
        [SseEvent("x"), 42],
        WsMessage(b"x", from_client=False, text=True),
        SseEvent("x", "name\ndata: injected"),
        SseEvent("x", id="7\rdata: injected"),
        SseEvent(b"bytes"),
    ],
)
async def test_what_is_not_an_event_cuts_the_stream(result):
    content, denial = await stream(on_event(lambda _: result))
    assert denial.code == "plugin_invalid_output"
    assert b"injected" not in content


async def test_an_event_spoilt_in_place_cuts_the_stream():
    def spoil(event):
        event.event = "a\nb"

    _, denial = await stream(on_event(spoil))
    assert denial.code == "plugin_invalid_output"


@pytest.mark.parametrize("error", [ValueError, SystemExit])
async def test_a_transform_that_raises_cuts_the_stream(error):
    _, denial = await stream(crash_plugin("transform_event", error))
    assert (denial.status, denial.code) == (502, "plugin_failed")


async def test_on_error_skip_lets_the_event_by():
    content, denial = await stream(Use(crash_plugin("transform_event"), on_error="skip"))
    assert denial is None
    assert content == STREAM.content


async def test_in_shadow_every_change_is_counted_and_one_is_recorded():
    answer = make_answer(200, b"data: 1\n\n" * 3, {"content-type": "text/event-stream"})

    class Shouts(Plugin):
        @hook
        def transform_event(self, exchange, event):
            event.data += "!"

    async with Harness(Use(Shouts, mode="shadow"), answer=answer) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.response.content == answer.content
        assert [s.decision for s in exchange.shadows] == ["change"]
        assert harness.counters()["shadow_change_total"] == 3


async def test_a_shadow_event_transform_that_fails_changes_nothing():
    for plugin in (crash_plugin("transform_event"), wrong_type_plugin("transform_event")):
        content, denial = await stream(Use(plugin, mode="shadow"))
        assert denial is None
        assert content == STREAM.content


async def test_a_denial_ends_the_stream_and_is_nobodys_fault():
    async with Harness(
        on_event(lambda _: Denial(403, "enough", "That is enough.")), answer=STREAM
    ) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.denial.code == "enough"
        assert exchange.outcome == "denied"
        assert "hook_failures_total" not in harness.counters()
