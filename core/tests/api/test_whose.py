"""Whose an exchange is."""

from __future__ import annotations

import pytest

from tidegate.api import Client, Principal
from tidegate.api.platform import CONSUMER, SERVICE, Application, Consumer, Service, Team
from tidegate.api.whose import KEYS
from tidegate.testing import make_exchange

RED = Team("t1", "red")
ADA = Principal("ada", "red")
SHOP = Application("a1", "shop", RED)


@pytest.mark.parametrize(
    ("per", "principal", "key"),
    [
        ("gateway", ADA, ""),
        ("team", ADA, "red"),
        ("team", Principal("ada"), "principal ada"),
        ("team", None, "address 192.0.2.1"),
        ("principal", ADA, "red/ada"),
        ("principal", None, "address 192.0.2.1"),
        ("address", ADA, "address 192.0.2.1"),
        ("application", ADA, "red/ada"),
        ("key", ADA, "red/ada"),
        ("service", ADA, ""),
        ("model", ADA, None),
    ],
)
def test_a_key_without_the_platform_says_who_it_is(per, principal, key):
    exchange = make_exchange(principal=principal, client=Client("192.0.2.1", 1, "192.0.2.1"))
    assert KEYS[per](exchange) == key


@pytest.mark.parametrize(
    ("per", "key"),
    [("application", "red/shop"), ("key", "key tg_abc"), ("service", "red/orders")],
)
def test_a_key_with_the_platform_is_that_of_its_entities(per, key):
    exchange = make_exchange(principal=ADA)
    exchange.stash[CONSUMER] = Consumer(ADA, SHOP, "k1", "tg_abc")
    exchange.stash[SERVICE] = Service("s1", "orders", RED)
    assert KEYS[per](exchange) == key


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("2001:db8:0:0:ffff::2", "address 2001:db8::/64"),
        ("::ffff:192.0.2.1", "address 192.0.2.1"),
        ("fe80::1%eth0", "address fe80::/64"),
        ("not:an:address", "address not:an:address"),
    ],
)
def test_of_an_address_counts_what_one_caller_has(address, key):
    assert KEYS["address"](make_exchange(client=Client(address, 1, address))) == key


@pytest.mark.parametrize(
    ("body", "key"),
    [({"model": "gpt-4o", "messages": []}, "gpt-4o"), (b"no call", ""), ({"messages": []}, "")],
)
def test_of_a_model_it_is_the_name_in_the_call(body, key):
    call = make_exchange("POST", "http://api.test/v1/chat/completions", body=body)
    assert KEYS["model"](call) == key
