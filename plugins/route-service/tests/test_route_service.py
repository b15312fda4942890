"""The addon on exchanges: where a service is served from."""

import pytest
from pydantic import ValidationError
from tidegate_route_service import RouteService, RouteServiceConfig

from tidegate.api import AddonContext, Timeouts
from tidegate.api.platform import Service, Team
from tidegate.runtime.heads import upstream_target
from tidegate.testing import Platform, make_exchange
from tidegate.testing.contracts import PluginContract, RouteContract

CORE = Team("core", "core")


def service(name="orders", **fields):
    fields = {"upstream": "https://orders.test/base", "path": f"/{name}", **fields}
    return Service(f"core/{name}", name, CORE, **fields)


@pytest.fixture
def addon(tmp_path):
    def make(**options):
        config = RouteServiceConfig.model_validate(options)
        return RouteService(config, AddonContext("route-service", tmp_path))

    return make


def ask(offered, path="/orders/7"):
    return Platform(offered).put(make_exchange(url=f"http://api.test{path}"))


@pytest.mark.parametrize(
    ("fields", "target"),
    [
        ({}, b"/base/orders/7"),
        ({"strip": True}, b"/base/7"),
        ({"strip": True, "path": "/orders/*"}, b"/base/7"),
        ({"strip": True, "path": "/"}, b"/base/orders/7"),
    ],
)
def test_it_goes_to_the_services_upstream(addon, fields, target):
    upstream = addon().route(ask(service(**fields)))
    assert (upstream.name, upstream.host, upstream.port) == ("core/orders", "orders.test", 443)
    assert upstream_target(b"/orders/7", upstream) == target


def test_a_service_without_an_upstream_and_what_is_for_none_are_left_to_others(addon):
    plugin = addon()
    models, nothing = ask(service(upstream="")), ask(service(), "/other")
    assert (plugin.route(models), plugin.route(nothing)) == (None, None)
    assert plugin.explain("route", models) == "core/orders names no upstream"
    assert plugin.explain("route", nothing) == "the request is for no service"


def test_an_upstream_lives_while_nothing_of_it_changes(addon):
    plugin = addon()
    first = plugin.route(ask(service()))
    assert plugin.route(ask(service(anonymous=True, policy="true"))) is first
    moved = plugin.route(ask(service(upstream="https://orders.test/new")))
    assert moved is not first
    assert moved.path == "/new"


@pytest.mark.parametrize(
    ("url", "trusted"),
    [
        ("http://api.corp.test", True),
        ("http://a.b.corp.test", True),
        ("http://API.corp.test", True),
        ("http://corp.test", False),
        ("http://evilcorp.test", False),
        ("http://corp.test.evil.test", False),
        ("http://db.test", True),
        ("http://x.db.test", False),
        ("http://10.1.2.3", True),
        ("http://[::ffff:10.1.2.3]", True),
        ("http://11.1.2.3", False),
        ("http://[fd00::1]", True),
        ("http://169.254.169.254", False),
    ],
)
def test_only_what_the_operator_vouches_for_is_trusted(addon, url, trusted):
    plugin = addon(internal=["*.corp.test", "db.test", "10.0.0.0/8", "fd00::1"])
    assert plugin.route(ask(service(upstream=url))).trusted is trusted


def test_options_reach_the_upstream(addon):
    plugin = addon(timeouts={"connect": "1s", "total": "9s"}, max_connections=3, websocket=True)
    upstream = plugin.route(ask(service()))
    assert upstream.timeouts == Timeouts(connect=1.0, total=9.0)
    assert (upstream.max_connections, upstream.websocket) == (3, True)


@pytest.mark.parametrize("inside", ["*", "http://x", "10.0.0.0/33", "*corp.test", ""])
def test_what_is_no_host_and_no_network_is_refused(inside):
    with pytest.raises(ValidationError, match="neither a host nor a network"):
        RouteServiceConfig.model_validate({"internal": [inside]})


class TestPlugin(PluginContract):
    name = "route-service"


class TestRoute(RouteContract):
    name = "route-service"

    def good_exchange(self):
        return ask(service())

    def unrouted_exchange(self):
        return ask(service(), "/other")
