"""Scripts in the patterns of mitmproxy's own documentation, run through the real pipeline."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mitmproxy.ctx
import pytest
from mitmproxy import eventsequence, hooks, http
from mitmproxy.proxy import layers
from tidegate_mitmproxy_script import MitmproxyScript
from tidegate_mitmproxy_script.names import CONNECTION, FLOW, IGNORED, LIFE, REFUSED

from tidegate.api import Exchange, WsMessage
from tidegate.api.errors import UPSTREAM_UNREACHABLE
from tidegate.runtime.problems import ConfigError
from tidegate.testing import Harness, Use, make_answer, make_exchange

SCRIPTS = Path(__file__).parent / "scripts"


def use(script: str, mode: str = "enforce", **options: Any) -> Use:
    file = script if "/" in script else str(SCRIPTS / f"{script}.py")
    table: dict[str, Any] = {"script": file}
    return Use(MitmproxyScript, {**table, **options}, mode=mode, name="script")


def script_of(harness: Harness) -> Any:
    return harness.plugin("script").script


async def run(
    script: str, exchange: Exchange | None = None, answer: Any = None, **options: Any
) -> tuple[Exchange, list[http.Request]]:
    """One exchange through a script; also what went upstream."""
    async with Harness(use(script, **options), answer=answer) as harness:
        done = await harness.send(exchange or make_exchange())
        return done, harness.sent


def test_every_hook_of_mitmproxy_is_known() -> None:
    assert eventsequence
    assert layers
    known = {*FLOW, *LIFE, *IGNORED, *REFUSED, *CONNECTION}
    assert set(hooks.all_hooks) - known == set()


# -- requests ---------------------------------------------------------------------------------


async def test_query_parameters_are_modified() -> None:
    _, sent = await run("http_modify_query_string", make_exchange(url="http://api.test/a?b=1"))
    assert sent[0].path == "/a?b=1&mitmproxy=rocks"


@pytest.mark.parametrize(
    ("body", "expected"),
    [(b"a=1", "a=1&mitmproxy=rocks"), (b"", "foo=bar")],
)
async def test_a_form_is_modified(body: bytes, expected: str) -> None:
    exchange = make_exchange(
        "POST", headers={"content-type": "application/x-www-form-urlencoded"}, body=body
    )
    _, sent = await run("http_modify_form", exchange)
    assert sent[0].text == expected


async def test_a_reply_from_the_proxy_is_the_answer() -> None:
    done, sent = await run("http_reply_from_proxy", make_exchange(url="http://api.test/path"))
    assert done.response is not None
    assert done.response.content == b"Hello World"
    assert sent == []
    done, sent = await run("http_reply_from_proxy", make_exchange(url="http://api.test/other"))
    assert len(sent) == 1


async def test_a_request_is_redirected_to_another_server() -> None:
    options = {"options": {"elsewhere": 8123}}
    exchange = make_exchange(url="http://example.org/x")
    done, _ = await run("http_redirect_requests", exchange, **options)
    assert done.upstream is not None
    assert done.upstream.url == "http://127.0.0.1:8123"
    assert done.upstream.preserve_host
    assert not done.upstream.trusted
    done, _ = await run("http_redirect_requests", **options, private_upstreams=True)
    assert done.upstream is not None
    assert done.upstream.name == "scripted"


async def test_a_killed_flow_is_denied_and_told_to_the_error_hook() -> None:
    done, sent = await run("filter_flows", make_exchange(url="http://api.test/secret"))
    assert done.denial is not None
    assert (done.denial.status, done.denial.code) == (403, "flow_killed")
    assert sent == []
    done, _ = await run("filter_flows", make_exchange(url="http://api.test/open"))
    assert done.denial is None
    done, _ = await run("filter_flows", options={"flowfilter": "~m GET"})
    assert done.denial is not None


async def test_trailers_are_read_and_added() -> None:
    answer = make_answer()
    answer.trailers = http.Headers([(b"x-checksum", b"1")])
    done, sent = await run("http_trailers", answer=answer)
    assert sent[0].trailers is not None
    assert sent[0].trailers["x-my-trailer"] == "foobar"
    assert done.response is not None
    assert done.response.trailers is not None
    assert done.response.trailers["x-server-trailer"] == "bar"
    assert done.response.headers["seen"] == "x-checksum"


# -- responses --------------------------------------------------------------------------------


async def test_a_header_is_added_and_the_addon_keeps_its_state() -> None:
    async with Harness(use("http_add_header")) as harness:
        counts = []
        for _ in range(3):
            done = await harness.send(make_exchange())
            assert done.response is not None
            counts.append(done.response.headers["count"])
        assert counts == ["1", "2", "3"]


async def test_a_stream_function_gets_the_whole_body() -> None:
    done, _ = await run("http_stream_modify", answer=make_answer(body=b"foo foo"))
    assert done.response is not None
    assert done.response.content == b"bar bar"
    assert done.response.headers["content-length"] == "7"


async def test_a_script_that_needs_no_body_lets_it_stream_by() -> None:
    async with Harness(use("http_stream_simple"), answer=make_answer(body=b"foo")) as harness:
        assert harness.runtime.current.addons[0].needs == {}
        done = await harness.send(make_exchange())
        assert done.response is not None
        assert done.response.headers["streamed"] == "yes"
        assert done.response.content == b"foo"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("http_add_header", {"transform_response"}),
        ("http_modify_form", {"transform_request", "route"}),
        ("websocket_simple", {"transform_event"}),
        ("errors", {"log"}),
        ("contentview", set()),
    ],
)
async def test_a_script_has_the_hooks_that_it_needs_and_no_others(
    script: str, expected: set[str]
) -> None:
    async with Harness(use(script)) as harness:
        assert set(harness.runtime.current.addons[0].steps) == expected


async def test_bodies_are_bounded_where_a_limit_is_given() -> None:
    done, _ = await run("http_modify_form", make_exchange("POST", body=b"x" * 50), body_limit="10B")
    assert done.denial is not None
    assert done.denial.status == 413


# -- life -------------------------------------------------------------------------------------


async def test_options_and_the_events_of_a_life() -> None:
    options = {"start": 100, "label": "n"}
    async with Harness(use("counter", options=options)) as harness:
        done = await harness.send(make_exchange())
        assert done.request.headers["x-count"] == "n101"
        counter = script_of(harness).addons[1]
        assert counter.life == ["made", "load", "configure", "running"]
    assert counter.life == ["made", "load", "configure", "running", "done"]


async def test_two_scripts_do_not_share_options() -> None:
    one, other = use("counter", options={"start": 1}), use("counter", options={"start": 50})
    async with Harness(one, Use(MitmproxyScript, other.options, name="other")) as harness:
        done = await harness.send(make_exchange())
        assert done.request.headers["x-count"] == "51"
        assert script_of(harness).addons[1].count == 2


async def test_mitmproxy_itself_is_as_it_was(tmp_path: Path) -> None:
    before, path = sys.modules["mitmproxy.ctx"], sys.path.copy()
    await run("imports_neighbour")
    assert sys.modules["mitmproxy.ctx"] is before is mitmproxy.ctx
    assert sys.path == path


async def test_a_neighbour_is_imported_and_the_client_is_told() -> None:
    done, _ = await run("imports_neighbour")
    assert done.response is not None
    assert done.response.headers["x-from-neighbour"] == done.client.address


async def test_async_and_concurrent_hooks_wait_without_blocking() -> None:
    done, _ = await run("nonblocking")
    assert done.denial is None
    assert done.request.headers["waited"] == "1"
    assert done.response is not None
    assert done.response.headers["slept"] == "1"


async def test_the_error_hook_is_told_of_an_upstream_that_failed() -> None:
    async with Harness(use("errors"), answer=UPSTREAM_UNREACHABLE) as harness:
        await harness.send(make_exchange(url="http://api.test/gone"))
        seen = script_of(harness).addons[0].seen
        assert seen == [("/gone", UPSTREAM_UNREACHABLE.message, ("upstream.test", 80))]
        harness.answer = make_answer()
        await harness.send(make_exchange())
        assert len(seen) == 1


async def test_websocket_messages_are_changed_and_dropped() -> None:
    async with Harness(use("websocket_simple")) as harness:
        exchange = make_exchange(url="http://api.test/ws")
        pipeline = harness.runtime.begin("gateway", exchange.host, exchange.path, "GET")

        def message(text: str, *, from_client: bool = True) -> list[bytes]:
            one = WsMessage(text.encode(), from_client=from_client, text=True)
            return [e.content for e in pipeline.event(exchange, one) if isinstance(e, WsMessage)]

        assert message("Hello you") == [b"HAPPY you"]
        assert message("Hello me", from_client=False) == [b"Hello me"]
        assert message("a FOOBAR") == []
        pipeline.finish(exchange)
        assert script_of(harness).addons[0].ended == ["/ws"]


# -- what is not here -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("duplicate_modify_replay", "replay.client: mitmproxy's commands"),
        ("intercepts", "flow.intercept: nobody is there"),
    ],
)
async def test_what_needs_a_console_ends_the_exchange_and_says_so(
    script: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    done, sent = await run(script)
    assert done.denial is not None
    assert done.denial.status == 502
    assert sent == []
    assert text in caplog.text


async def refusal(script: str, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        async with Harness(use(script, **options)):
            pass
    return str(caught.value)


async def test_an_application_in_the_proxy_answers_for_its_host() -> None:
    done, sent = await run("wsgi_app", make_exchange(url="http://example.com/"))
    assert done.response is not None
    assert done.response.content == b"hello"
    assert sent == []
    _, sent = await run("wsgi_app", make_exchange(url="http://api.test/"))
    assert len(sent) == 1


async def test_hooks_without_a_meaning_are_refused_or_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert "tls_clienthello: clients' TLS is mitmproxy's in" in await refusal("tls_passthrough")
    done, _ = await run("tls_passthrough", unsupported="warn")
    assert done.request.headers["seen"] == "1"
    assert "these hooks are not called: tls_clienthello" in caplog.text


async def test_commands_and_views_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    done, _ = await run("commands_simple")
    assert done.denial is None
    assert "left out: command myaddon.inc" in caplog.text
    done, _ = await run("contentview")
    assert done.denial is None


async def test_a_script_that_fails_to_load_says_where() -> None:
    text = await refusal("broken")
    assert f"""{SCRIPTS / "broken.py"}:3: `LIMIT = {{}}["limit"]`: KeyError: 'limit'""" in text
    assert "No such file" in await refusal("absent")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"strat": 1}, 'it has no option "strat" (did you mean "start"?)'),
        ({"start": "one"}, "start"),
        ({"start": -1}, "start must not be negative"),
    ],
)
async def test_options_that_make_no_sense_are_refused(options: dict[str, Any], text: str) -> None:
    assert text in await refusal("counter", options=options)


def write(tmp_path: Path, text: str) -> str:
    file = tmp_path / "mine.py"
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import mitmproxy.ctx\n", "mine.py:1: write `from mitmproxy import ctx`"),
        ("def request(flow):\n    from mitmproxy import ctx\n", "mine.py:2: write `from"),
        ("async def websocket_message(flow): ...\n", "websocket hooks must be plain def"),
        ("request = 1\n", "request of"),
        ("def f(:\n", "mine.py:1: `def f(:`:"),
    ],
)
async def test_other_scripts_that_can_not_run_here(tmp_path: Path, text: str, message: str) -> None:
    assert message in await refusal(write(tmp_path, text))


async def test_a_script_that_raises_does_not_let_the_request_through(tmp_path: Path) -> None:
    file = write(tmp_path, "def request(flow):\n    raise ValueError('x')\n")
    done, sent = await run(file)
    assert done.denial is not None
    assert done.denial.status == 502
    assert sent == []


async def test_a_flow_killed_in_its_response_hook_is_denied(tmp_path: Path) -> None:
    file = write(tmp_path, "def response(flow):\n    flow.kill()\n")
    done, sent = await run(file)
    assert len(sent) == 1
    assert done.denial is not None
    assert done.denial.code == "flow_killed"


async def test_an_answer_of_a_script_meets_its_own_response_hook(tmp_path: Path) -> None:
    text = """
from mitmproxy import http

def request(flow):
    flow.response = http.Response.make(200, b"mine")

def response(flow):
    flow.response.headers["x-met"] = "1"
"""
    done, _ = await run(write(tmp_path, text))
    assert done.response is not None
    assert done.response.headers["x-met"] == "1"


async def test_in_shadow_mode_a_script_changes_nothing_and_is_recorded() -> None:
    async with Harness(use("filter_flows", mode="shadow")) as harness:
        done = await harness.send(make_exchange(url="http://api.test/secret"))
        assert done.denial is None
        assert [(s.decision, s.detail) for s in done.shadows] == [("deny", "flow_killed")]


async def test_a_request_body_that_streams_through_a_function_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = "def requestheaders(flow):\n    flow.request.stream = lambda data: data\n"
    done, _ = await run(write(tmp_path, text))
    assert done.denial is not None
    assert "request.stream" in caplog.text


def test_log_levels_of_old_scripts() -> None:
    from tidegate_mitmproxy_script.surroundings import Log

    log = logging.getLogger("tidegate.addon.old")
    said: list[tuple[str, str]] = []
    log.addFilter(lambda r: bool(said.append((r.levelname, r.getMessage()))) or True)
    log.setLevel(logging.DEBUG)
    old: Callable[..., Any] = Log(log)
    old("one")
    old("two", "warn")
    assert said == [("INFO", "one"), ("WARNING", "two")]
