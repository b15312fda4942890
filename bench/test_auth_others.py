"""What a known caller costs by password, by signature and by certificate."""

import re
import runpy
import ssl
import time
from base64 import b64encode
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from tidegate_auth_basic import AuthBasic, AuthBasicConfig
from tidegate_auth_hmac import AuthHmac, AuthHmacConfig
from tidegate_auth_hmac.nonces import Nonces
from tidegate_auth_mtls import AuthMtls, AuthMtlsConfig

from tidegate.api import AddonContext, Client, Principal
from tidegate.testing import make_exchange
from tidegate.testing.certificates import Authority

README = Path(__file__).parents[1] / "plugins/auth-hmac/README.md"
SECRET = "a secret of more than thirty-two bytes"


def basic(folder):
    users = [{"name": "ada", "hash": PasswordHasher(1, 8, 1).hash("pass")}]
    return AuthBasic(AuthBasicConfig.model_validate({"users": users}), AddonContext("a", folder))


async def test_auth_basic(benchmark, tmp_path):
    addon = basic(tmp_path)
    await addon.startup(None)
    value = b64encode(b"ada:pass").decode()
    exchange = make_exchange(headers={"accept": "*/*", "authorization": f"Basic {value}"})
    assert await addon.authenticate(exchange) == Principal("ada")

    def known():
        exchange.credentials.clear()
        return addon.authenticate(exchange)

    assert benchmark(known) == Principal("ada")
    addon.shutdown()


def test_auth_mtls(benchmark, tmp_path):
    config = AuthMtlsConfig.model_validate({"clients": [{"name": "ada", "dns": "ada.test"}]})
    addon = AuthMtls(config, AddonContext("a", tmp_path))
    pem, _ = Authority().issue("ada.test")
    client = Client("192.0.2.1", 1, "192.0.2.1", certificate=ssl.PEM_cert_to_DER_cert(pem.decode()))
    exchange = make_exchange(headers={"accept": "*/*"}, client=client, now=time.time())
    assert benchmark(addon.authenticate, exchange) == Principal("ada")


@pytest.mark.parametrize("nonces", ["checked", "not reached"])
def test_auth_hmac(benchmark, tmp_path, nonces):
    source = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[1]
    script = tmp_path / "example.py"
    script.write_text(source.partition("\nurl, body = ")[0])
    sign = runpy.run_path(str(script))["signed"]
    secret = SECRET if nonces == "checked" else "x" * 40
    key = {"id": "k1", "secret": SECRET, "name": "ada"}
    addon = AuthHmac(AuthHmacConfig.model_validate({"keys": [key]}), AddonContext("a", tmp_path))
    addon._nonces = Nonces(tmp_path / "nonces")
    fields = sign("GET", "http://api.test/v1/x?a=1", "k1", secret)
    created = int(re.search(r"created=(\d+)", fields["signature-input"])[1])
    exchange = make_exchange("GET", "http://api.test/v1/x?a=1", fields, now=created)

    def check():
        exchange.credentials.clear()
        return addon.authenticate(exchange)

    first = check()
    assert first == Principal("ada") if nonces == "checked" else first.code == "signature_invalid"
    benchmark(check)
    addon.shutdown()
