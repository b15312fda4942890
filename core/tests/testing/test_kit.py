"""The kit itself: light to load, true to the carriers, strict about its suites."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tidegate.testing
from tidegate.api import AddonConfig, Denial, ErrorCode, Plugin, Principal, Secret, hook
from tidegate.testing import (
    AuthContract,
    AuthorizeContract,
    CacheContract,
    Clock,
    Harness,
    LogContract,
    PluginContract,
    RouteContract,
    TransformContract,
    install_plugin,
    make_answer,
    make_exchange,
)
from tidegate.testing.faults import FAULTS, deny_plugin, fault_source, push_back_plugin


def python(code: str, env: dict[str, str] | None = None) -> str:
    import os

    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **(env or {})},
    )
    return done.stdout.strip()


def test_the_pytest_plugin_loads_nothing_heavy():
    code = (
        "import sys, pytest; before = set(sys.modules); import tidegate.testing.pytest_plugin; "
        "print([m for m in set(sys.modules) - before if m.split('.')[0] in "
        "('mitmproxy', 'pydantic', 'uvloop', 'httptools', 'orjson')])"
    )
    assert python(code) == "[]"


def test_every_name_of_the_kit_can_be_imported():
    for name in tidegate.testing.__all__:
        assert getattr(tidegate.testing, name) is not None
    with pytest.raises(AttributeError):
        _ = tidegate.testing.no_such_name


def test_the_clock_stands_still_until_it_is_told(clock, exchange):
    assert (exchange.now, exchange.started) == (clock.now, clock.monotonic)
    clock.advance(1.5)
    later = make_exchange(clock=clock)
    assert (later.now - exchange.now, later.started - exchange.started) == (1.5, 1.5)
    with pytest.raises(ValueError, match="backwards"):
        Clock().advance(-1)


def test_an_exchange_is_made_as_a_carrier_would():
    exchange = make_exchange("POST", "https://API.test:8443/v1?q=1", {"X-A": "1"}, {"a": 1})
    request = exchange.request
    assert (exchange.host, exchange.path) == ("api.test", "/v1")
    assert (request.method, request.port, request.path) == ("POST", 8443, "/v1?q=1")
    assert request.headers["content-type"] == "application/json"
    assert int(request.headers["content-length"]) == len(request.content)
    assert exchange.request_json() == {"a": 1}
    assert exchange.header("x-a") == "1"


def test_a_plugin_is_installed_for_another_process(tmp_path):
    env = install_plugin(tmp_path, "crash-test", fault_source("crash_plugin('route', SystemExit)"))
    env = install_plugin(tmp_path, "as-path", "tidegate.testing.contracts.auth:Witness")
    code = (
        "from tidegate.runtime.registry import available; "
        "print(available()['crash-test'].load().__name__, available()['as-path'].load().__name__)"
    )
    assert python(code, env) == "FaultyRoute Witness"


async def test_a_slow_consumer_sees_the_whole_body():
    async with Harness(push_back_plugin("cache_store", 0.001)) as harness:
        assert (await harness.send(make_exchange())).response.content == b"ok"
        assert harness.counters() == {FAULTS: 1}


async def test_deny_plugin_denies():
    async with Harness(deny_plugin()) as harness:
        assert (await harness.send(make_exchange())).denial.code == "closed"


def test_a_suites_test_can_not_be_overridden():
    with pytest.raises(TypeError, match="not to override"):

        class Cheat(AuthContract):
            def test_a_right_credential_names_a_principal(self) -> None: ...

    class Adds(AuthContract):
        def test_something_more(self) -> None: ...


# -- the suites, passed by a plugin that does it right ----------------------------------------


class TokenConfig(AddonConfig):
    token: Secret


class Token(Plugin[TokenConfig]):
    """Authenticates, authorizes, transforms: what the suites look at."""

    Config = TokenConfig
    codes = (ErrorCode("invalid_token", 401, "No."), ErrorCode("no_delete", 403, "No."))

    @hook
    def authenticate(self, exchange):
        token = exchange.consume_header("x-token")
        if token is None:
            return None
        if token != self.config.token.get_secret_value():
            return self.codes[0].denial()
        return Principal("ada")


class NoDelete(Plugin):
    codes = (ErrorCode("no_delete", 403, "Nothing is deleted here."),)

    @hook
    def authorize(self, exchange):
        if exchange.request.method == "DELETE":
            return self.codes[0].denial()
        return None


class Stamp(Plugin):
    @hook
    def transform_request(self, exchange):
        exchange.request.headers["x-stamp"] = "1"

    @hook
    def transform_event(self, exchange, event):
        event.data += "!"


class TestToken(AuthContract):
    name = "token"

    def plugin(self):
        return Token

    def options(self):
        return {"token": "s3cret-token"}

    def secrets(self):
        return ["s3cret-token", "wrong-token", "other-token"]

    def good_exchange(self):
        return make_exchange(headers={"x-token": "s3cret-token"})

    def bad_exchanges(self):
        return [make_exchange(headers={"x-token": t}) for t in ("wrong-token", "other-token")]


class TestNoDelete(AuthorizeContract):
    name = "no-delete"

    def plugin(self):
        return NoDelete

    def denied(self):
        return [make_exchange("DELETE")]


class TestStamp(TransformContract):
    name = "stamp"

    def plugin(self):
        return Stamp


class StaticRoute(Plugin):
    @hook
    def route(self, exchange):
        from tidegate.api import upstream_from_url

        if exchange.path.startswith("/v1"):
            return upstream_from_url("http://127.0.0.1:9000", name="static")
        return None


class TestStaticRoute(RouteContract):
    name = "static"

    def plugin(self):
        return StaticRoute

    def good_exchange(self):
        return make_exchange(url="http://api.test/v1/x")

    def unrouted_exchange(self):
        return make_exchange(url="http://api.test/v2")


class LinesConfig(AddonConfig):
    broken: bool = False


class Lines(Plugin[LinesConfig]):
    Config = LinesConfig

    @hook
    def log(self, exchange):
        if self.config.broken:
            raise OSError("disk full")
        TestLines.lines.append(f"{exchange.id} {exchange.path} {exchange.outcome}")


class TestLines(LogContract):
    name = "lines"
    lines: list[str] = []  # noqa: RUF012, the file that this log writes to

    def plugin(self):
        return Lines

    def written(self):
        return "\n".join(self.lines)

    def broken_options(self):
        return {"broken": True}


class Sink:
    def __init__(self, kept, key, response):
        self.kept, self.key, self.response, self.body = kept, key, response, b""

    def write(self, chunk):
        self.body += chunk

    def close(self, *, complete, trailers):
        if complete:
            self.kept[self.key] = (self.response.status_code, self.body)


class Memory(Plugin):
    def __init__(self, config, context):
        super().__init__(config, context)
        self.kept = {}

    def key(self, exchange):
        return exchange.principal, exchange.host, exchange.path

    @hook
    def cache_lookup(self, exchange):
        found = self.kept.get(self.key(exchange))
        return None if found is None else make_answer(*found)

    @hook
    def cache_store(self, exchange):
        response = exchange.response
        control = response.headers.get("cache-control", "")
        if response.status_code != 200 or "no-store" in control:
            return None
        return Sink(self.kept, self.key(exchange), response)


class TestMemory(CacheContract):
    name = "memory"

    def plugin(self):
        return Memory


# -- and failed by plugins that do it wrong ---------------------------------------------------


async def fails(contract: object, test: str, *arguments: object) -> bool:
    try:
        await getattr(contract, test)(*arguments)
    except AssertionError:
        return True
    return False


async def test_an_authenticator_that_leaves_the_credential_is_caught(caplog):
    class Leaky(Token):
        @hook
        def authenticate(self, exchange):
            return Principal("ada") if exchange.header("x-token") else None

    class Suite(TestToken):
        def plugin(self):
            return Leaky

    assert await fails(Suite(), "test_a_credential_goes_no_further", caplog)


async def test_an_authenticator_that_tells_why_is_caught():
    class Chatty(Token):
        @hook
        def authenticate(self, exchange):
            token = exchange.consume_header("x-token")
            return Denial(401, "invalid_token", f"Not {len(token)} {token[0]}.") if token else None

    class Suite(TestToken):
        def plugin(self):
            return Chatty

    assert await fails(Suite(), "test_a_wrong_credential_is_denied_alike_each_time")


async def test_a_transform_that_frames_is_caught():
    class Frames(Plugin):
        @hook
        def transform_response(self, exchange):
            exchange.response.headers["transfer-encoding"] = "chunked"

    class Suite(TestStamp):
        def plugin(self):
            return Frames

    assert await fails(Suite(), "test_framing_is_left_alone")


async def test_an_undocumented_code_is_caught():
    class Suite(TestNoDelete):
        def plugin(self):
            return deny_plugin()

    assert await fails(Suite(), "test_what_it_denies_is_not_sent_and_says_why")


async def test_a_cache_that_mixes_callers_is_caught():
    class Mixes(Memory):
        def key(self, exchange):
            return exchange.path

    class Suite(TestMemory):
        def plugin(self):
            return Mixes

    assert await fails(Suite(), "test_one_callers_answer_is_not_anothers")


WRONG_IMPORT = """
from tidegate.api import *

class Nosy(Plugin):
    @hook
    def log(self, exchange):
        from tidegate.runtime import pipeline
        import tidegate_auth_key.keys
"""


async def test_a_plugin_that_imports_more_than_the_api_is_caught(tmp_path, monkeypatch):
    install_plugin(tmp_path, "nosy", WRONG_IMPORT)
    monkeypatch.syspath_prepend(tmp_path)

    class Suite(PluginContract):
        name = "nosy"

    assert await fails(Suite(), "test_it_imports_nothing_of_ours_but_the_api")
    assert await fails(Suite(), "test_the_example_of_its_readme_loads", tmp_path, monkeypatch)
    await Suite().test_it_is_installed_under_its_name()
    await Suite().test_its_class_is_a_plugin_with_well_formed_hooks()
