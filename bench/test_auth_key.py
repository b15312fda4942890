"""What a key check costs, with few keys and with many: the two lines should be equal."""

import pytest
from tidegate_auth_key import AuthKey, AuthKeyConfig
from tidegate_auth_key.keys import Key, KeyRing, hash_key, principal

from tidegate.api import AddonContext, Client, Exchange, Principal
from tidegate.api.keys import new_key
from tidegate.runtime.messages import make_request

PEPPER = "a pepper of some length"


@pytest.mark.parametrize("count", [10, 100_000])
def test_auth_key(benchmark, tmp_path, count):
    key = new_key()
    keys = [Key(f"{number:064x}", principal(f"k{number}", "", "")) for number in range(count - 1)]
    keys.append(Key(hash_key(PEPPER.encode(), key), principal("dev", "", "")))
    addon = AuthKey(AuthKeyConfig.model_validate({"pepper": PEPPER}), AddonContext("a", tmp_path))
    addon._ring = KeyRing(keys)
    fields = (
        (b"Host", b"gw"),
        (b"User-Agent", b"OpenAI/Python 2.0"),
        (b"Accept", b"application/json"),
        (b"Content-Type", b"application/json"),
        (b"Authorization", b"Bearer " + key.encode()),
        (b"Content-Length", b"300"),
    )
    request = make_request(b"POST", b"http", b"", "gw", 80, b"/v1/x", fields, b"", 0.0)
    client = Client("127.0.0.1", 1, "127.0.0.1")
    exchange = Exchange("id", request, client)

    def check():
        exchange.credentials.clear()
        return addon.authenticate(exchange)

    assert check() == Principal("dev")
    benchmark(check)
