"""Who gets in where nobody is named: the rules of anonymous scopes."""

from __future__ import annotations

import pytest

from tidegate.api import Plugin, Principal, hook
from tidegate.runtime import settings
from tidegate.runtime.lifecycle import Host, Runtime
from tidegate.runtime.pipeline import Pipeline
from tidegate.testing import Harness, Use, install_plugin, make_exchange
from tidegate.testing.faults import pass_plugin, plugin_with

SAYS_NOTHING = plugin_with("authenticate", lambda *_: None)


async def status(*uses: Use, **gateway: object) -> int:
    async with Harness(*uses, gateway=gateway) as harness:
        return (await harness.send(make_exchange())).response.status_code


async def test_a_scope_without_an_authenticator_is_anonymous():
    assert await status(Use(pass_plugin("authorize"))) == 200


async def test_where_one_is_listed_and_names_no_one_it_is_401():
    assert await status(Use(SAYS_NOTHING)) == 401
    assert await status(Use(SAYS_NOTHING, mode="shadow")) == 401


async def test_the_gateway_may_allow_anonymous_callers():
    assert await status(Use(SAYS_NOTHING), anonymous=True) == 200


@pytest.mark.parametrize(("mode", "expected"), [("enforce", 200), ("shadow", 401)])
async def test_a_service_may_serve_callers_without_a_credential(mode, expected):
    class Service(Plugin):
        @hook
        def authenticate(self, exchange):
            exchange.anonymous = True

    assert await status(Use(Service, mode=mode), Use(SAYS_NOTHING)) == expected


async def test_401_says_how_to_authenticate():
    async with Harness(SAYS_NOTHING) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.response.headers["www-authenticate"] == "Bearer"


async def test_an_authenticator_elsewhere_does_not_close_this_scope():
    use = Use(SAYS_NOTHING, scope={"paths": ["/closed/*"]})
    async with Harness(use) as harness:
        here = await harness.send(make_exchange(url="http://api.test/here"))
        there = await harness.send(make_exchange(url="http://api.test/closed/x"))
        assert (here.response.status_code, there.response.status_code) == (200, 401)


AUTH = """
from tidegate.api import *

class Auth(Plugin):
    @hook
    def authenticate(self, exchange):
        return None
"""


@pytest.mark.parametrize("switch", ['mode = "off"', 'if_env = "TG_NO_SUCH_VARIABLE"'])
async def test_an_authenticator_that_is_listed_but_off_still_closes_the_scope(
    switch, tmp_path, monkeypatch
):
    install_plugin(tmp_path / "plugins", "auth-test", AUTH)
    monkeypatch.syspath_prepend(tmp_path / "plugins")
    text = f'[[addon]]\nuse = "auth-test"\n{switch}\n'
    runtime = Runtime(Host(tmp_path))
    runtime.commit(await runtime.prepare(settings.parse(text)))
    pipeline = runtime.begin("gateway", "api.test", "/", "GET")
    assert isinstance(pipeline, Pipeline)
    exchange = make_exchange()
    assert not await pipeline.request(exchange)
    assert exchange.denial.code == "unauthenticated"
    pipeline.finish(exchange)
    await runtime.close()


async def test_a_credential_in_the_query_is_stripped_and_the_rest_keeps_its_bytes():
    class Key(Plugin):
        @hook
        def authenticate(self, exchange):
            return Principal(exchange.consume_query("key"))

    async with Harness(Key) as harness:
        await harness.send(make_exchange(url="http://api.test/v1?a=%7e&key=s3&b=1+2&k%65y=s4"))
        assert harness.sent[0].data.path == b"/v1?a=%7e&b=1+2"


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        (["session=s3cr3t"], []),
        (["theme=dark; session=s3cr3t;lang=en"], ["theme=dark;lang=en"]),
        (["session=s3cr3t; a=1", " session =s4; xsession=2"], ["a=1", "xsession=2"]),
        (["b==; session=s3cr3t; session=s4"], ["b=="]),
    ],
)
async def test_a_credential_in_a_cookie_is_stripped_and_other_cookies_go_on(fields, kept):
    class Key(Plugin):
        @hook
        def authenticate(self, exchange):
            return Principal(exchange.consume_cookie("session"))

    headers = [("cookie", field) for field in fields]
    async with Harness(Key) as harness:
        exchange = await harness.send(make_exchange(headers=headers))
        assert exchange.principal.name == "s3cr3t"
        assert harness.sent[0].headers.get_all("cookie") == kept


def test_a_cookie_that_is_not_there_is_no_credential():
    for headers in ({}, {"cookie": "other=session; session2=1"}, {"cookie": "session"}):
        exchange = make_exchange(headers=headers)
        value = exchange.consume_cookie("session")
        assert value == ("" if headers.get("cookie") == "session" else None)
