"""What a key check costs, with few keys and with many: lines of the same kind should be equal.

A key of the platform's store is hashed on each exchange, so that its last use is known.
"""

import hmac

import pytest
from tidegate_auth_key import AuthKey, AuthKeyConfig
from tidegate_auth_key.keys import Key, KeyRing, hash_key, principal
from tidegate_store_sql.snapshot import Compiled, Parts

from tidegate.api import AddonContext, Client, Exchange, Principal
from tidegate.api.keys import new_key, well_formed
from tidegate.api.platform import SNAPSHOT
from tidegate.runtime.messages import make_request
from tidegate.testing import make_consumer

PEPPER = "a pepper of some length"


@pytest.fixture
def addon(tmp_path):
    return AuthKey(AuthKeyConfig.model_validate({"pepper": PEPPER}), AddonContext("a", tmp_path))


def exchange_with(key):
    fields = (
        (b"Host", b"gw"),
        (b"User-Agent", b"OpenAI/Python 2.0"),
        (b"Accept", b"application/json"),
        (b"Content-Type", b"application/json"),
        (b"Authorization", b"Bearer " + key.encode()),
        (b"Content-Length", b"300"),
    )
    request = make_request(b"POST", b"http", b"", "gw", 80, b"/v1/x", fields, b"", 0.0)
    return Exchange("id", request, Client("127.0.0.1", 1, "127.0.0.1"))


def check(addon, exchange):
    exchange.credentials.clear()
    return addon.authenticate(exchange)


@pytest.mark.parametrize("count", [10, 100_000])
def test_auth_key(benchmark, addon, count):
    key = new_key()
    keys = [Key(f"{number:064x}", principal(f"k{number}", "", "")) for number in range(count - 1)]
    keys.append(Key(hash_key(PEPPER.encode(), key), principal("dev", "", "")))
    addon._ring = KeyRing(keys)
    exchange = exchange_with(key)
    assert check(addon, exchange) == Principal("dev")
    benchmark(check, addon, exchange)


@pytest.mark.parametrize("count", [10, 100_000])
def test_auth_key_of_the_store(benchmark, addon, count):
    key, consumer, pepper = new_key(), make_consumer(), PEPPER.encode()
    keys = {f"k{number}": (f"{number:064x}", consumer) for number in range(count - 1)}
    keys["k"] = (hmac.digest(pepper, key.encode(), "sha256").hex(), consumer)
    exchange = exchange_with(key)
    exchange.stash[SNAPSHOT] = Compiled(1, pepper, Parts(keys=keys))
    assert check(addon, exchange) == Principal("shop", "web")
    benchmark(check, addon, exchange)


def test_auth_key_hash(benchmark):
    """What a check of a stored key is measured against."""
    key, pepper = new_key().encode(), PEPPER.encode()
    benchmark(lambda: hmac.digest(pepper, key, "sha256").hex())


def test_auth_key_form(benchmark):
    assert benchmark(well_formed, new_key())
