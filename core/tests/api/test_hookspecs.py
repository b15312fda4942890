"""Every hook is documented, and every example in the documentation is a plugin that works."""

from __future__ import annotations

import hmac
import inspect
import os
import re
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from mitmproxy import http

import tidegate.api
from tidegate.api import Node, Plugin, Principal
from tidegate.api.hookspecs import HOOKS, HookSpecs
from tidegate.runtime.registry import SIGNATURES, SYNC_ONLY, check_class
from tidegate.runtime.step import RULES
from tidegate.testing import Harness, Use, make_answer, make_exchange

COLD = ("startup", "shutdown", "bootstrap", "cli_commands", "console_routes")


def example(name: str) -> type[Plugin]:
    """The plugin class of a hook's docstring, with what `tidegate.api` exports at hand."""
    doc = inspect.cleandoc(getattr(HookSpecs, name).__doc__)
    code = textwrap.dedent(doc.partition("Example:\n")[2])
    namespace: dict[str, Any] = {n: getattr(tidegate.api, n) for n in tidegate.api.__all__}
    namespace |= {"http": http, "hmac": hmac, "os": os, "time": time, "__name__": "example"}
    exec(compile(code, f"<example of {name}>", "exec"), namespace)
    return next(
        v for v in namespace.values()
        if isinstance(v, type) and issubclass(v, Plugin) and v.__module__ == "example"
    )  # fmt: skip


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_a_text_and_an_example_that_is_a_valid_plugin(name):
    doc = inspect.cleandoc(getattr(HookSpecs, name).__doc__)
    text, _, code = doc.partition("Example:\n")
    assert len(text.split()) >= 5
    assert "class " in code
    plugin = example(name)
    assert check_class(plugin, name) == []
    assert hasattr(getattr(plugin, name), "tidegate_hook")


def test_there_are_at_most_fifteen_hooks_and_each_has_a_rule_or_is_cold():
    assert len(HOOKS) <= 15
    assert set(HOOKS) == set(RULES) | set(COLD)
    assert set(HOOKS) >= SYNC_ONLY


def test_the_table_at_the_top_has_each_hook_of_an_exchange():
    doc = inspect.getmodule(HookSpecs).__doc__
    rows = re.findall(r"^\| ([a-z_]+) \| (.*?) \| (.*?) \| (.*?) \|$", doc, re.MULTILINE)
    assert [row[0] for row in rows if row[0] != "hook"] == list(RULES)
    for name, _, _, failing in rows:
        rule = RULES.get(name)
        if rule is not None and rule.failed is not None and failing.isdigit():
            assert rule.failed.status == rule.timed_out.status == int(failing), name


@pytest.mark.parametrize("name", HOOKS)
def test_hooks_take_an_exchange_or_say_otherwise(name):
    special = {
        "transform_event": ("exchange", "event"),
        "startup": ("previous",),
        "shutdown": (),
        "bootstrap": ("node",),
        "cli_commands": ("app",),
        "console_routes": ("router",),
    }
    assert SIGNATURES[name] == special.get(name, ("exchange",))


# -- the examples at work ---------------------------------------------------------------------


async def test_the_example_of_authenticate():
    async with Harness(example("authenticate")) as harness:
        good = await harness.send(make_exchange(headers={"x-house-key": "open-sesame"}))
        assert good.principal == Principal("house")
        assert "x-house-key" not in harness.sent[0].headers
        bad = await harness.send(make_exchange(headers={"x-house-key": "guess"}))
        assert (bad.denial.status, bad.denial.code) == (401, "invalid_api_key")
        assert (await harness.send(make_exchange())).denial.code == "unauthenticated"


async def test_the_example_of_authorize():
    tuesday, sunday = 1_750_161_600.0, 1_749_988_800.0
    async with Harness(example("authorize")) as harness:
        assert (await harness.send(make_exchange(now=tuesday))).outcome == "answered"
        assert (await harness.send(make_exchange(now=sunday))).denial.code == "closed"


async def test_the_example_of_transform_request():
    class Ada(Plugin):
        @tidegate.api.hook
        def authenticate(self, exchange):
            return Principal("ada", "engines")

    async with Harness(Ada, example("transform_request")) as harness:
        await harness.send(make_exchange())
        assert harness.sent[0].headers["x-team"] == "engines"


async def test_the_example_of_cache_lookup():
    async with Harness(example("cache_lookup")) as harness:
        exchange = await harness.send(make_exchange(url="http://api.test/robots.txt"))
        assert exchange.response.content == b"User-agent: *\nDisallow: /\n"
        assert harness.sent == []


async def test_the_example_of_route():
    async with Harness(example("route"), routed=False) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.upstream.url == "http://127.0.0.1:9000"


async def test_the_example_of_cache_store():
    async with Harness(example("cache_store"), answer=make_answer(200, "12345")) as harness:
        await harness.send(make_exchange())
        assert harness.counters() == {"body_bytes": 5, "bodies_total": 1}


async def test_the_example_of_transform_response():
    answer = make_answer(200, "x", {"server": "secret/1.0"})
    async with Harness(example("transform_response"), answer=answer) as harness:
        exchange = await harness.send(make_exchange())
        assert "server" not in exchange.response.headers


async def test_the_example_of_transform_event():
    body = b"data: hello\n\ndata: [DONE]\n\n"
    answer = make_answer(200, body, {"content-type": "text/event-stream"})
    async with Harness(example("transform_event"), answer=answer) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.response.content == b"data: HELLO\n\ndata: [DONE]\n\n"


async def test_the_example_of_log(caplog):
    async with Harness(example("log")) as harness:
        await harness.send(make_exchange(started=time.monotonic() - 5.0))
        await harness.send(make_exchange(started=time.monotonic() + 5.0))
    assert caplog.text.count("slow: /") == 1


async def test_the_example_of_startup_hands_its_state_to_the_next():
    cls = example("startup")
    async with Harness(Use(cls, name="memory")) as harness:
        old = harness.plugin()
        old.seen.add("x")
        new = cls(old.config, old.context)
        new.startup(old)
        assert new.seen == {"x"}


async def test_the_example_of_shutdown():
    async with Harness(example("shutdown")) as harness:
        file = harness.plugin().file
        assert not file.closed
    assert file.closed


async def test_the_example_of_bootstrap(tmp_path: Path):
    async with Harness(example("bootstrap")) as harness:
        node = Node(tmp_path, tmp_path, "development")
        harness.plugin().bootstrap(node)
        assert node.announcements == {"greeting": "hello"}


async def test_the_example_of_cli_commands():
    from typer.testing import CliRunner

    app = typer.Typer()
    app.callback()(lambda: None)
    async with Harness(example("cli_commands")) as harness:
        harness.plugin().cli_commands(app)
    assert "expire" in CliRunner().invoke(app, ["fortune"]).output


async def test_the_example_of_console_routes_answers():
    fastapi = pytest.importorskip("fastapi", reason="comes with tidegate-console-api")
    router = fastapi.APIRouter()
    async with Harness(example("console_routes")) as harness:
        harness.plugin().console_routes(router)
    assert [(route.path, route.endpoint()) for route in router.routes] == [("/pulse", "ok")]


def test_every_example_is_exercised_here():
    tests = {n.removeprefix("test_the_example_of_") for n in globals()}
    missing = [name for name in HOOKS if not any(t.startswith(name) for t in tests)]
    assert missing == []
