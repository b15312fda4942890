"""The addon on exchanges, and what its options refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tidegate_route_static import RouteStatic, RouteStaticConfig

from tidegate.api import ROUTE_PARAMS, AddonContext, Upstream
from tidegate.api.balance import Balanced, Failover, Retry
from tidegate.api.errors import UPSTREAM_UNREACHABLE
from tidegate.testing import Harness, Use, make_answer, make_exchange
from tidegate.testing.contracts import PluginContract, RouteContract

A = "http://127.0.0.1:9001"
B = "http://127.0.0.1:9002"
C = "https://c.test/base/"


class TestContract(PluginContract, RouteContract):
    name = "route-static"

    def options(self):
        return {"routes": [{"path": "/v1", "upstream": A}]}

    def good_exchange(self):
        return make_exchange("GET", "http://api.test/v1/x")

    def unrouted_exchange(self):
        return make_exchange("GET", "http://api.test/v2")


class TestPoolContract(RouteContract):
    name = "route-static"

    def options(self):
        return {"routes": [{"path": "/", "upstreams": [A, B], "failover": [C], "retries": 2}]}


def addon(*routes: dict[str, Any], base: Path = Path()) -> RouteStatic:
    config = RouteStaticConfig.model_validate({"routes": routes})
    return RouteStatic(config, AddonContext("route-static", base, base=base))


def upstream(route: dict[str, Any], base: Path = Path()) -> Upstream:
    found = addon({"path": "/", **route}, base=base).route(make_exchange())
    assert isinstance(found, Upstream)
    return found


def test_a_route_gives_the_same_prebuilt_upstream_each_time():
    plugin = addon({"path": "/v1", "upstream": A}, {"path": "/", "upstream": B})
    first = plugin.route(make_exchange(url="http://x.test/v1/chat"))
    assert first is plugin.route(make_exchange(url="http://y.test/v1"))
    assert isinstance(first, Upstream)
    assert first.url == A
    other = plugin.route(make_exchange(url="http://x.test/"))
    assert isinstance(other, Upstream)
    assert other.url == B


def test_captures_are_in_the_stash_under_the_public_key():
    plugin = addon({"path": "/teams/{team}", "upstream": A})
    exchange = make_exchange(url="http://x.test/teams/red/apps")
    assert plugin.route(exchange) is not None
    assert exchange.stash[ROUTE_PARAMS] == {"team": "red"}


async def test_only_a_wrong_method_is_405_with_allow():
    use = Use(RouteStatic, {"routes": [{"path": "/v1", "methods": ["get", "PUT"], "upstream": A}]})
    async with Harness(use, routed=False) as harness:
        exchange = await harness.send(make_exchange("POST", "http://x.test/v1/x"))
        assert exchange.response is not None
        assert exchange.response.status_code == 405
        assert exchange.response.headers["allow"] == "GET, PUT"
        missing = await harness.send(make_exchange("POST", "http://x.test/v2"))
        assert missing.response is not None
        assert missing.response.status_code == 404


def test_options_reach_the_leaf():
    leaf = upstream(
        {
            "upstream": C,
            "strip": True,
            "preserve_host": True,
            "websocket": True,
            "safe_to_retry": True,
            "max_connections": 7,
            "sni": "other.test",
            "headers": {"X-Api-Key": " sesame "},
            "timeouts": {"connect": "1s", "first_byte": "2s", "idle": "3s", "total": "4s"},
        }
    )
    assert (leaf.scheme, leaf.host, leaf.port, leaf.path) == ("https", "c.test", 443, "/base")
    assert (leaf.preserve_host, leaf.websocket, leaf.safe_to_retry) == (True, True, True)
    assert (leaf.max_connections, leaf.tls.sni) == (7, "other.test")
    assert leaf.headers == ((b"X-Api-Key", b"sesame"),)
    bounds = leaf.timeouts
    assert (bounds.connect, bounds.first_byte, bounds.idle, bounds.total) == (1.0, 2.0, 3.0, 4.0)


@pytest.mark.parametrize(
    ("path", "exact", "wanted"),
    [("/v1", False, "/v1"), ("/v1/*", False, "/v1"), ("/", False, ""), ("/v1/", True, "/v1/")],
)
def test_strip_removes_the_literal_prefix(path, exact, wanted):
    route = {"path": path, "exact": exact, "upstream": A, "strip": True}
    found = addon(route).route(make_exchange(url=f"http://x.test{path.removesuffix('*')}"))
    assert isinstance(found, Upstream)
    assert found.strip == wanted


@pytest.mark.parametrize(("timeout", "connect"), [("30s", 5.0), ("2s", 2.0)])
def test_timeout_bounds_silence_and_not_the_length_of_an_answer(timeout, connect):
    bounds = upstream({"upstream": A, "timeout": timeout}).timeouts
    assert bounds.connect == connect
    assert bounds.first_byte == bounds.idle == float(timeout[:-1])
    assert bounds.total is None


def test_upstreams_become_a_pool_with_retries_and_a_chain():
    assert type(upstream({"upstream": A})) is Upstream
    assert isinstance(upstream({"upstream": A, "retries": 1}), Retry)
    pool = upstream({"upstreams": [A, {"url": B, "weight": 3}]})
    assert isinstance(pool, Retry)
    balanced = pool.members[0].upstream
    assert isinstance(balanced, Balanced)
    assert [m.weight for m in balanced.members] == [1, 3]
    chain = upstream({"upstreams": [A, B], "failover": [C], "name": "all"})
    assert isinstance(chain, Failover)
    assert chain.name == "all"
    assert [type(m.upstream) for m in chain.members] == [Retry, Upstream]


def test_backups_get_the_routes_headers_unless_they_have_their_own():
    route = {
        "upstream": A,
        "headers": {"authorization": "Bearer one"},
        "failover": [B, {"url": C, "headers": {"x-api-key": "two"}}],
    }
    chain = upstream(route)
    assert isinstance(chain, Failover)
    assert [m.upstream.headers for m in chain.members] == [
        ((b"authorization", b"Bearer one"),),
        ((b"authorization", b"Bearer one"),),
        ((b"x-api-key", b"two"),),
    ]


async def test_with_its_first_upstream_down_the_next_one_answers():
    routes = [{"path": "/", "upstreams": [A, B], "failover": [C]}]
    async with Harness(Use(RouteStatic, {"routes": routes}), routed=False) as harness:
        answers = iter([UPSTREAM_UNREACHABLE, UPSTREAM_UNREACHABLE, make_answer()])
        harness.answer = lambda _: next(answers)
        exchange = await harness.send(make_exchange("POST"))
        assert exchange.outcome == "answered"
        urls = [attempt.upstream.url for attempt in exchange.attempts]
        assert urls == [A, B, "https://c.test/base"]
        assert exchange.upstream is not None
        assert exchange.upstream.active == 0


def test_files_are_found_beside_the_configuration_or_refused(tmp_path):
    (tmp_path / "ca.pem").write_text("x")
    leaf = upstream({"upstream": C, "ca": "ca.pem"}, tmp_path)
    assert leaf.tls.ca == str(tmp_path / "ca.pem")
    with pytest.raises(ValueError, match=r"routes\.0\.ca \(route /\): there is no file 'gone.pem'"):
        upstream({"upstream": C, "ca": "gone.pem"}, tmp_path)


def test_secrets_are_in_no_text():
    config = RouteStaticConfig.model_validate(
        {"routes": [{"path": "/", "upstream": A, "headers": {"authorization": "Bearer sesame"}}]}
    )
    assert "sesame" not in repr(config)
    assert "sesame" not in config.model_dump_json()


@pytest.mark.parametrize(
    ("route", "key", "complaint"),
    [
        ({}, (), "`upstream` or `upstreams`"),
        ({"upstream": A, "upstreams": [B]}, (), "`upstream` or `upstreams`"),
        ({"upstream": "ftp://x"}, ("upstream",), "starts with http"),
        ({"upstream": "http://u:p@x"}, ("upstream",), "credentials"),
        ({"upstream": "http://x/?q"}, ("upstream",), "no query"),
        ({"upstream": "http://x:99999"}, ("upstream",), "[Pp]ort"),
        ({"upstreams": [{"url": "x", "weight": 1}]}, ("upstreams", 0, "url"), "starts with http"),
        ({"upstreams": [{"url": A, "weight": 0}]}, ("upstreams", 0, "weight"), "greater"),
        ({"failover": ["x"], "upstream": A}, ("failover", 0, "url"), "starts with http"),
        ({"upstream": A, "hots": "x"}, ("hots",), "Extra inputs"),
        ({"upstream": A, "host": "http://x"}, (), "not a host"),
        ({"upstream": A, "path": "v1"}, (), "starts with"),
        ({"upstream": A, "methods": []}, (), "`methods` is empty"),
        ({"upstream": A, "timeout": "1s", "timeouts": {}}, (), "not both"),
        ({"upstream": A, "timeout": 0}, ("timeout",), "greater"),
        ({"upstream": A, "timeouts": {"read": 1}}, ("timeouts", "read"), "Extra inputs"),
        ({"upstream": A, "path": "/{x}", "strip": True}, (), "`strip` needs"),
        ({"upstream": A, "sticky": "address"}, (), "several"),
        ({"upstreams": [A, B], "sticky": "ip"}, ("sticky",), "header:NAME"),
        ({"upstream": A, "ca": "x"}, (), "https"),
        ({"upstream": C, "cert": "x"}, (), "come together"),
        ({"upstream": A, "headers": {"host": "x"}}, ("headers", "host", "[key]"), "preserve_host"),
        ({"upstream": A, "headers": {"a b": "x"}}, ("headers", "a b", "[key]"), "field name"),
        ({"upstream": A, "headers": {"x": "a\nb"}}, ("headers", "x"), "control"),
        ({"upstream": A, "retries": 11}, ("retries",), "less"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(route, key, complaint):
    with pytest.raises(ValidationError, match=complaint) as caught:
        RouteStaticConfig.model_validate({"routes": [{"path": "/v1", **route}]})
    assert caught.value.errors()[0]["loc"] == ("routes", 0, *key)


def test_routes_in_conflict_are_both_named():
    routes = [{"path": "/v1", "upstream": A}, {"path": "/v1/*", "upstream": B}]
    with pytest.raises(ValidationError, match=r'"/v1" and "/v1/\*"'):
        RouteStaticConfig.model_validate({"routes": routes})
