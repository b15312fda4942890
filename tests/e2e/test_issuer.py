"""Tokens of an issuer that nobody here wrote, through a running gateway, on both carriers."""

import asyncio
import base64
import json
import shutil
import signal
import socket
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from joserfc.jwk import ECKey, RSAKey

NODE = Path(__file__).parent / "issuer"
pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (NODE / "node_modules/oidc-provider").is_dir(),
    reason="needs Node.js (apt-get install nodejs npm) and `npm ci --prefix tests/e2e/issuer`",
)
API = "urn:tidegate:test"


@asynccontextmanager
async def issuer(port, folder, key):
    """The issuer, signing with `key`."""
    file = folder / "issuer.json"
    file.write_text(json.dumps({"keys": [key.as_dict(private=True)]}))
    process = await asyncio.create_subprocess_exec(
        "node", NODE / "issuer.mjs", str(port), file, stdout=asyncio.subprocess.PIPE,
        stderr=(folder / "issuer.log").open("ab"), env={"PATH": "/usr/bin:/usr/local/bin"},
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            assert (await process.stdout.readline()).strip() == b"ready"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


async def token_of(client, url):
    """A token by the client credentials grant (RFC 6749 §4.4)."""
    form = {"grant_type": "client_credentials", "resource": API, "scope": "read"}
    answer = await client.post(f"{url}/token", data=form, auth=("batch", "a-secret-of-a-test"))
    assert answer.status_code == 200, answer.text
    return answer.json()["access_token"]


CONFIG = """
[[addon]]
use = "auth-jwt"
refresh = "1s"
[[addon.issuers]]
issuer = "{issuer}"
audience = ["{api}"]
type = "at+jwt"
claims = {{ name = "client_id", team = "team", roles = "roles" }}

[[addon]]
use = "access-policy"
default = "deny"
[[addon.rules]]
name = "developers"
for = {{ teams = ["ml"], roles = ["dev"] }}
operations = ["GET /*"]

[[addon]]
use = "route-static"
routes = [{{ path = "/", upstream = "{upstream}" }}]
"""


@pytest.mark.parametrize("carrier", ["lane", "engine"])
async def test_tokens_pass_through_rotation_and_while_the_issuer_is_down(
    gateway, upstream, tmp_path, carrier
):
    port = free_port()
    config = CONFIG.format(issuer=f"http://127.0.0.1:{port}", api=API, upstream=upstream.url)
    rsa = RSAKey.generate_key(2048, parameters={"kid": "one", "use": "sig", "alg": "RS256"})
    curve = ECKey.generate_key("P-256", parameters={"kid": "two", "use": "sig", "alg": "ES256"})
    async with httpx.AsyncClient(timeout=30) as client:
        async with issuer(port, tmp_path, rsa) as url:
            running = await gateway(config, carrier=carrier)
            first = await token_of(client, url)

            async def call(token, method="GET"):
                headers = {"authorization": f"Bearer {token}"}
                return await client.request(method, f"{running.url}/x", headers=headers)

            assert (await call(first)).status_code == 200
            assert (await call(first, "POST")).json()["error"]["code"] == "operation_not_allowed"
            head, body, signature = first.split(".")
            claims = json.loads(base64.urlsafe_b64decode(body + "=="))
            forged = base64.urlsafe_b64encode(json.dumps({**claims, "roles": ["x"]}).encode())
            answer = await call(f"{head}.{forged.decode().rstrip('=')}.{signature}")
            assert answer.status_code == 401
            assert 'error="invalid_token"' in answer.headers["www-authenticate"]
        assert (await call(first)).status_code == 200, "the issuer is down"
        async with issuer(port, tmp_path, curve) as url:
            second = await token_of(client, url)
            async with asyncio.timeout(60):
                while (await call(first)).status_code != 401:  # its key was withdrawn
                    await asyncio.sleep(0.2)
            assert (await call(second)).status_code == 200
    assert len(upstream.requests) > 2
    for request in upstream.requests:
        assert "authorization" not in {name.lower() for name, _ in request.headers}
    assert signature not in running.logs
