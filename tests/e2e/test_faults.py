"""Plugins and upstreams that fail, each in a running gateway: what the caller gets, that the next
exchange works, and that the log names the culprit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tidegate.testing import Gateway, ScriptedUpstream, install_plugin
from tidegate.testing.faults import fault_source
from tidegate.testing.script import (
    Action,
    body,
    chunk,
    close,
    cut_body,
    cut_chunk,
    head,
    reset,
    send,
    silence,
    sleep,
    switch_protocols,
)

from .raw import Answer, Raw

pytestmark = pytest.mark.asyncio(loop_scope="module")

GATES = {"authenticate": 503, "authorize": 503, "route": 503}
TRANSFORMS = {"transform_request": 502, "transform_response": 502}
OBSERVERS = ("cache_lookup", "cache_store", "log")
HOOKS = (*GATES, *TRANSFORMS, *OBSERVERS)

FAULTS = {
    **{f"crash-{h.replace('_', '-')}": f"crash_plugin({h!r})" for h in HOOKS},
    "exit-authenticate": "crash_plugin('authenticate', SystemExit)",
    "interrupt-authorize": "crash_plugin('authorize', KeyboardInterrupt)",
    "cancel-route": "crash_plugin('route', asyncio.CancelledError)",
    "cancel-async-authorize": "crash_plugin('authorize', asyncio.CancelledError, is_async=True)",
    **{f"wrong-{h.replace('_', '-')}": f"wrong_type_plugin({h!r})" for h in (*GATES, *TRANSFORMS)},
    "crlf-transform-request": "bad_header_plugin('transform_request')",
    "crlf-transform-response": "bad_header_plugin('transform_response')",
    "crlf-authorize": "bad_answer_plugin('authorize')",
    "hang-authorize": "hang_plugin('authorize')",
    "hang-transform-response": "hang_plugin('transform_response')",
    "hang-cache-lookup": "hang_plugin('cache_lookup')",
    "sleep-authorize": "block_plugin('authorize', 'sleep', 30)",
    "loop-transform-request": "block_plugin('transform_request', 'loop', 30)",
    "regex-authenticate": "block_plugin('authenticate', 'regex')",
    "sleep-async-route": "block_plugin('route', 'sleep', 30, is_async=True)",
}


def fault_addons() -> str:
    """One addon per fault, each in a scope of its own: `/NAME`."""
    return "".join(
        f'[[addon]]\nuse = "{name}"\nscope = {{ paths = ["/{name}"] }}\n' for name in FAULTS
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def origin() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["engine", "lane"])
async def served(
    request: pytest.FixtureRequest,
    origin: ScriptedUpstream,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Gateway]:
    folder = tmp_path_factory.mktemp("faults")
    env: dict[str, str] = {}
    for name, call in FAULTS.items():
        env = install_plugin(folder / "plugins", name, fault_source(call))
    # A port that is taken but refuses: bound, not listening.
    config = (
        '[gateway]\nworkers = 1\nanonymous = true\ndeadlines = { hooks = "1s" }\n\n'
        '[[addon]]\nuse = "log-access"\nfile = "-"\n'.replace('file = "-"\n', "")
        + fault_addons()
        + '[[addon]]\nuse = "route-static"\nroutes = [\n'
        f'  {{ path = "/", upstream = "{origin.url}" }},\n'
        f'  {{ path = "/impatient", upstream = "{origin.url}", timeout = "1s" }},\n'
        '  { path = "/refused", upstream = "http://127.0.0.1:1" },\n]\n'
    )
    async with Gateway(folder / "gateway", config, carrier=request.param, env=env) as running:
        yield running


@pytest.fixture
def upstream(origin: ScriptedUpstream) -> ScriptedUpstream:
    origin.requests.clear()
    origin.answer(*body(b"ok"))
    return origin


async def ask(served: Gateway, path: str, method: str = "GET") -> Answer:
    async with Raw(served.url) as raw:
        await raw.send(f"{method} {path} HTTP/1.1\r\nHost: api.test\r\n\r\n".encode())
        return await raw.answer()


async def assert_next_works(served: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.answer(*body(b"fine"))
    assert (await ask(served, "/next")).body == b"fine"


def code(answer: Answer) -> str:
    error = json.loads(answer.body)["error"]
    assert error["message"]
    assert error["request_id"] == answer.get("x-request-id")
    return str(error["code"])


@pytest.mark.parametrize("hook", HOOKS)
async def test_a_hook_that_raises(served: Gateway, upstream: ScriptedUpstream, hook: str) -> None:
    name = f"crash-{hook.replace('_', '-')}"
    answer = await ask(served, f"/{name}")
    if hook in OBSERVERS:
        assert (answer.status, answer.body) == (200, b"ok")
    else:
        assert answer.status == {**GATES, **TRANSFORMS}[hook]
        assert code(answer) == "plugin_failed"
    if hook in GATES or hook == "transform_request":
        assert upstream.requests == [], "a failed gate lets nothing through"
    await assert_next_works(served, upstream)
    assert (await served.counters(name))["hook_failures_total"] >= 1
    assert name in served.logs


@pytest.mark.parametrize(
    "name", ["exit-authenticate", "interrupt-authorize", "cancel-route", "cancel-async-authorize"]
)
async def test_not_even_a_base_exception_passes_or_kills(
    served: Gateway, upstream: ScriptedUpstream, name: str
) -> None:
    before = [w["pid"] for w in (await served.status())["workers"]]
    answer = await ask(served, f"/{name}")
    assert answer.status == 503
    assert code(answer) in {"plugin_failed", "plugin_timeout"}
    assert upstream.requests == []
    await assert_next_works(served, upstream)
    assert [w["pid"] for w in (await served.status())["workers"]] == before


@pytest.mark.parametrize("name", [n for n in FAULTS if n.startswith(("wrong-", "crlf-"))])
async def test_output_that_can_t_be_used(
    served: Gateway, upstream: ScriptedUpstream, name: str
) -> None:
    answer = await ask(served, f"/{name}")
    assert (answer.status, code(answer)) == (500, "plugin_invalid_output")
    assert answer.get("set-cookie") is None
    await assert_next_works(served, upstream)


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("hang-authorize", 503),
        ("hang-transform-response", 502),
        ("sleep-authorize", 503),
        ("loop-transform-request", 502),
        ("regex-authenticate", 503),
        ("sleep-async-route", 503),
    ],
)
async def test_a_hook_that_takes_too_long(
    served: Gateway, upstream: ScriptedUpstream, name: str, status: int
) -> None:
    answer = await ask(served, f"/{name}")
    assert (answer.status, code(answer)) == (status, "plugin_timeout")
    await assert_next_works(served, upstream)
    assert (await served.counters(name))["hook_timeouts_total"] >= 1
    assert f"addon {name}" in served.logs


async def test_an_observer_that_hangs_costs_the_deadline_and_nothing_else(
    served: Gateway, upstream: ScriptedUpstream
) -> None:
    assert (await ask(served, "/hang-cache-lookup")).body == b"ok"
    await assert_next_works(served, upstream)


async def test_a_blocking_hook_holds_others_up_for_less_than_a_second(
    served: Gateway, upstream: ScriptedUpstream
) -> None:
    blocked = asyncio.create_task(ask(served, "/sleep-authorize"))
    await asyncio.sleep(0.05)
    others = await asyncio.gather(*(ask(served, "/other") for _ in range(5)))
    assert [a.status for a in others] == [200] * 5
    assert (await blocked).status == 503


UPSTREAM_FAULTS: dict[str, tuple[tuple[Action, ...], int, str]] = {
    "reset before the head": ((reset(),), 502, "upstream_protocol_error"),
    "close before the head": ((close(),), 502, "upstream_protocol_error"),
    "garbage": ((send(b"\x00\x01 nonsense\r\n\r\n"), close()), 502, "upstream_protocol_error"),
    "half a head": ((send(b"HTTP/1.1 200 OK\r\nx-"), close()), 502, "upstream_protocol_error"),
    "unasked 101": ((switch_protocols(), silence()), 502, "unexpected_upgrade"),
    "length and chunked": (
        (head(200, {"content-length": "5", "transfer-encoding": "chunked"}), chunk(b"x"), close()),
        502,
        "upstream_protocol_error",
    ),
}


@pytest.mark.parametrize("fault", UPSTREAM_FAULTS, ids=str)
async def test_an_upstream_that_fails_before_its_answer(
    served: Gateway, upstream: ScriptedUpstream, fault: str
) -> None:
    actions, status, expected = UPSTREAM_FAULTS[fault]
    upstream.answer(*actions)
    answer = await ask(served, "/x", method="POST")
    assert answer.status == status
    assert code(answer) in {expected, "upstream_unreachable"}
    assert b"127.0.0.1" not in answer.body
    assert answer.get("server") is None
    await assert_next_works(served, upstream)


async def test_an_upstream_that_refuses(served: Gateway, upstream: ScriptedUpstream) -> None:
    answer = await ask(served, "/refused")
    assert (answer.status, code(answer)) == (502, "upstream_unreachable")
    await assert_next_works(served, upstream)


async def test_an_upstream_that_is_silent(served: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.answer(silence())
    answer = await ask(served, "/impatient")
    assert (answer.status, code(answer)) == (504, "upstream_timeout")
    await assert_next_works(served, upstream)


CUTS: dict[str, tuple[Action, ...]] = {
    "reset": (head(200, {"content-length": "200000"}), send(b"x" * 100_000), sleep(0.2), reset()),
    "short body": cut_body(b"x" * 100_000, 100_000),
    "cut chunk": cut_chunk(b"x" * 100_000),
}


@pytest.mark.parametrize("cut", CUTS, ids=str)
async def test_a_cut_answer_is_not_passed_on_as_a_whole_one(
    served: Gateway, upstream: ScriptedUpstream, cut: str
) -> None:
    upstream.answer(*CUTS[cut])
    async with Raw(served.url) as raw:
        await raw.send(b"GET /cut HTTP/1.1\r\nHost: api.test\r\n\r\n")
        try:
            answer = await raw.answer()
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            pass
        else:
            assert answer.status == 502
    await assert_next_works(served, upstream)


async def test_a_cut_event_stream_ends_with_an_error_event(
    served: Gateway, upstream: ScriptedUpstream
) -> None:
    upstream.answer(
        head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"}),
        chunk(b"data: 1\n\n"), sleep(0.1), reset(),
    )  # fmt: skip
    async with Raw(served.url) as raw:
        await raw.send(b"GET /cut HTTP/1.1\r\nHost: api.test\r\n\r\n")
        await raw.head()
        seen = await asyncio.wait_for(raw.reader.read(), 20)
    assert b"data: 1\n\n" in seen
    assert b"event: error\ndata: {" in seen
    assert not seen.endswith(b"\r\n0\r\n\r\n"), "the normal end mark"
    await assert_next_works(served, upstream)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_kept_alive_connection_that_closes_as_it_is_reused(
    served: Gateway, upstream: ScriptedUpstream, method: str
) -> None:
    async with Raw(served.url) as raw:
        for _ in range(5):
            upstream.answer(*body(b"first"), sleep(0.01), close())
            await raw.send(f"{method} /a HTTP/1.1\r\nHost: api.test\r\n\r\n".encode())
            assert (await raw.answer()).status == 200
            await asyncio.sleep(0.05)


async def test_secrets_are_in_no_log(served: Gateway, upstream: ScriptedUpstream) -> None:
    canary = "canary8f3e2a7711"
    async with Raw(served.url) as raw:
        await raw.send(
            f"GET /crash-authorize?key={canary} HTTP/1.1\r\nHost: api.test\r\n"
            f"Authorization: Bearer {canary}\r\nX-Api-Key: {canary}\r\n"
            f"Cookie: s={canary}\r\n\r\n".encode()
        )
        answer = await raw.answer()
    assert canary.encode() not in answer.body
    async with Raw(served.url) as raw:
        await raw.send(f"GET /{canary} HTP/1.1\r\nAuthorization: {canary}\r\n\r\n".encode())
        await raw.answer()
    await asyncio.sleep(0.3)
    written = served.logs
    for path in Path(served.folder).rglob("*.jsonl"):
        written += path.read_text()
    assert canary not in written
