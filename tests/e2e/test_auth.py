"""Every way to say who is calling, in one pipeline, on both carriers."""

import asyncio
import json
import os
import re
import shutil
import ssl
import time
from base64 import b64encode
from pathlib import Path

import httpx
import pytest
from argon2 import PasswordHasher
from joserfc import jwt
from joserfc.jwk import RSAKey
from tidegate_auth_key.keys import hash_key

from tidegate.api.keys import new_key
from tidegate.testing.certificates import Authority

ROOT = Path(__file__).parents[2]
HMAC_README = (ROOT / "plugins/auth-hmac/README.md").read_text()
PEPPER = "a pepper of some length"
SECRET = "a secret of more than thirty-two bytes"
ISSUER = "https://login.test"
WAYS = ("certificate", "key", "token", "password", "signature")

CONFIG = """
[[gateway.listen]]
name = "plain"
address = "127.0.0.1:0"
[[gateway.listen]]
name = "mutual"
address = "127.0.0.1:0"
cert = "{folder}/server.pem"
key = "{folder}/server.pem"
client_ca = "{folder}/ca.pem"

[[addon]]
use = "auth-mtls"
clients = [{{ name = "certificate", dns = "client.test" }}]
[[addon]]
use = "auth-key"
pepper = "{pepper}"
keys = [{{ name = "key", hash = "{key_hash}" }}]
[[addon]]
use = "auth-jwt"
issuers = [{{ issuer = "{issuer}", audience = ["api"], jwks_file = "{folder}/keys.json" }}]
[[addon]]
use = "auth-basic"
users = [{{ name = "password", hash = "{password_hash}" }}]
[[addon]]
use = "auth-hmac"
keys = [{{ id = "k1", secret = "${{HMAC_SECRET}}", name = "signature" }}]

[[addon]]
use = "access-policy"
default = "deny"
rules = [
  {rules}
]
[[addon]]
use = "route-static"
routes = [{{ path = "/", upstream = "{upstream}" }}]
"""


def signed(method, url):
    """The fields of the README's example."""
    source = re.search(r"```python\n(.*?)```", HMAC_README, re.DOTALL)[1]
    scope: dict = {}
    exec(source.partition("\nurl, body = ")[0], scope)
    return scope["signed"](method, url, "k1", SECRET)


class Callers:
    """A gateway with all of them on, and a credential of each kind."""

    def __init__(self, folder: Path, upstream: str) -> None:
        self.folder = folder
        authority = Authority()
        (folder / "ca.pem").write_bytes(authority.pem)
        (folder / "server.pem").write_bytes(b"".join(authority.issue("127.0.0.1")))
        (folder / "client.pem").write_bytes(b"".join(authority.issue("client.test")))
        (folder / "other.pem").write_bytes(b"".join(authority.issue("other.test")))
        signer = RSAKey.generate_key(2048, parameters={"kid": "one"})
        public = {"keys": [signer.as_dict(private=False)]}
        (folder / "keys.json").write_text(json.dumps(public))
        self.key = new_key()
        claims = {"iss": ISSUER, "aud": "api", "sub": "token", "exp": int(time.time()) + 600}
        self.token = jwt.encode({"alg": "RS256", "kid": "one"}, claims, signer)
        self.password = b64encode(b"password:correct horse").decode()
        own = {way: [f"/{way}"] for way in WAYS}
        own["signature"].append("GET /v1/models")
        self.config = CONFIG.format(
            folder=folder,
            pepper=PEPPER,
            key_hash=hash_key(PEPPER.encode(), self.key),
            issuer=ISSUER,
            password_hash=PasswordHasher(1, 8, 1).hash("correct horse"),
            upstream=upstream,
            rules="\n  ".join(
                f'{{ name = "{way}", for = {{ principals = ["{way}"] }},'
                f" operations = {json.dumps(paths)} }},"
                for way, paths in own.items()
            ),
        )

    def fields(self, way, method, url):
        """The credential of a kind for a request."""
        return {
            "certificate": lambda: {},
            "key": lambda: {"x-api-key": self.key},
            "token": lambda: {"authorization": f"Bearer {self.token}"},
            "password": lambda: {"authorization": f"Basic {self.password}"},
            "signature": lambda: signed(method, url),
        }[way]()

    def client(self, certificate):
        """An HTTP client that shows a certificate."""
        context = ssl.create_default_context(cafile=self.folder / "ca.pem")
        context.load_cert_chain(self.folder / f"{certificate}.pem")
        return httpx.AsyncClient(timeout=60, verify=context)


async def code_of(client, url, fields):
    answer = await client.get(url, headers=fields)
    return "passes" if answer.status_code == 200 else answer.json()["error"]["code"]


async def test_each_credential_is_its_own_caller_and_none_goes_further(
    gateway, upstream, tmp_path, carrier
):
    callers = Callers(tmp_path, upstream.url)
    running = await gateway(callers.config, carrier=carrier, env={"HMAC_SECRET": SECRET})
    plain, mutual = running.ready["gateway"]
    wrong = {
        "key": ({"x-api-key": new_key()}, "invalid_api_key"),
        "token": ({"authorization": f"Bearer {callers.token[:-8]}AAAAAAAA"}, "token_invalid"),
        "password": ({"authorization": "Basic " + b64encode(b"a:b").decode()},
                     "invalid_credentials"),
        "signature": ({**signed("POST", f"{plain}/x")}, "signature_invalid"),
    }  # fmt: skip
    async with callers.client("client") as known, callers.client("other") as other:
        for way in WAYS:
            base, client = (mutual, known) if way == "certificate" else (plain, other)
            for path in WAYS:
                url = f"{base}/{path}"
                said = await code_of(client, url, callers.fields(way, "GET", url))
                assert said == ("passes" if path == way else "operation_not_allowed"), (way, path)
        for way, (fields, code) in wrong.items():
            assert await code_of(other, f"{plain}/{way}", fields) == code
        # A certificate of nobody's leaves it to the others; without one of them it is 401.
        url = f"{mutual}/token"
        assert await code_of(other, url, {}) == "unauthenticated"
        assert await code_of(other, url, callers.fields("token", "GET", url)) == "passes"
    assert len(upstream.requests) == len(WAYS) + 1
    sent = "".join(repr(r.headers) for r in upstream.requests).lower()
    for name in ("authorization", "x-api-key", "signature", "client-cert"):
        assert f"'{name}" not in sent
    for secret in (callers.key, callers.token[-40:], callers.password, SECRET):
        assert secret not in running.logs


async def run(*command, **env):
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, env={**os.environ, **env}
    )
    output, _ = await process.communicate()
    return output.decode().strip()


@pytest.mark.skipif(
    shutil.which("curl") is None or shutil.which("openssl") is None,
    reason="needs curl and openssl: apt-get install curl openssl",
)
async def test_the_examples_of_signed_requests_run(gateway, upstream, tmp_path, carrier):
    callers = Callers(tmp_path, upstream.url)
    running = await gateway(callers.config, carrier=carrier, env={"HMAC_SECRET": SECRET})
    plain = running.ready["gateway"][0]
    python = re.search(r"```python\n(.*?)```", HMAC_README, re.DOTALL)[1]
    shell = re.search(r"```bash\n(.*?)```", HMAC_README, re.DOTALL)[1]
    known = {"KEY_ID": "k1", "SECRET": SECRET}
    assert await run("python3", "-c", python, URL=f"{plain}/signature", **known) == "200"
    assert await run("bash", "-c", shell, HOST=plain.removeprefix("http://"), **known) == "200"
    assert await run("bash", "-c", shell, HOST=plain.removeprefix("http://"), KEY_ID="k1",
                     SECRET="x" * 32) == "401"  # fmt: skip
    assert [r.method for r in upstream.requests] == ["POST", "GET"]
