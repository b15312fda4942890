"""What the platform's rights cost on an exchange: nothing asked of a service, and all of it."""

import pytest
from tidegate_access_grant import AccessGrant, AccessGrantConfig
from tidegate_route_service import RouteService, RouteServiceConfig

from tidegate.api import AddonContext
from tidegate.api.platform import CONSUMER, Service, Team
from tidegate.testing import Platform, make_consumer, make_exchange

ASKED = {
    "plain": {},
    "operations": {"operations": ("GET /", "GET /{id}")},
    "policy": {"policy": 'method == "GET" && team == "web"'},
}


def ask(**fields):
    core, consumer = Team("core", "core"), make_consumer()
    service = Service("s", "orders", core, path="/orders", upstream="https://o.test", **fields)
    grants = [(consumer.application, service)]
    exchange = Platform(service, grants=grants).put(make_exchange(url="http://gw/orders/7"))
    exchange.principal, exchange.stash[CONSUMER] = consumer.principal, consumer
    return exchange


@pytest.mark.parametrize("asked", ASKED)
def test_access_grant(benchmark, tmp_path, asked):
    addon = AccessGrant(AccessGrantConfig(), AddonContext("access-grant", tmp_path))
    exchange = ask(**ASKED[asked])
    assert addon.authorize(exchange) is None
    benchmark(addon.authorize, exchange)


def test_route_service(benchmark, tmp_path):
    addon = RouteService(RouteServiceConfig(), AddonContext("route-service", tmp_path))
    assert benchmark(addon.route, ask()) is not None
