"""The console of a running node: its start, its reload, a verb, its end; and over TLS."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tidegate_console_api import ConsoleApi
from tidegate_console_api.config import ConsoleApiConfig

from tidegate.api import AddonContext, Node, Plugin
from tidegate.testing.gateway import Gateway, ReloadRefused

from .conftest import PASSWORD, Console

CONFIG = """
[gateway]
workers = 1

[[addon]]
use = "store-sql"

[[addon]]
use = "console-api"
listen = "127.0.0.1:0"
idle = "{idle}"
"""
ILL = """
[[addon]]
file = "ill.py"
"""
POLICY = '''
"""Has routes that can't be had."""
from tidegate.api import Plugin, hook

class Ill(Plugin):
    @hook
    def console_routes(self, router):
        raise RuntimeError("no routes today")
'''


def tidegate(folder: Path, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "tidegate.cli.main", "console", *arguments, "--json"],
        cwd=folder, env={**os.environ, "TIDEGATE_STATE": str(folder / "state")}, text=True,
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def test_a_node_has_a_console_that_follows_its_file_and_ends_with_it(tmp_path):
    (tmp_path / "ill.py").write_text(POLICY)
    async with Gateway(tmp_path, CONFIG.format(idle="1h")) as gateway:
        console, password = gateway.ready["console"], gateway.ready["admin_password"]
        assert gateway.ready["admin_user"] == "admin"
        async with httpx.AsyncClient(base_url=f"{console}/api/v1", timeout=30) as client:
            login = {"user": "admin", "password": password}
            assert (await client.post("/session", json=login)).json()["admin"]

            with pytest.raises(ReloadRefused, match="no routes today"):
                await gateway.reload(CONFIG.format(idle="1h") + ILL)
            assert (await client.get("/session")).status_code == 200
            await gateway.reload(CONFIG.format(idle="2h"))
            assert (await client.get("/session")).status_code == 200

            token = await asyncio.to_thread(
                tidegate, tmp_path, "token", "admin", "--scope", "platform"
            )
            bearer = {"authorization": f"Bearer {token['token']}"}
            client.cookies.clear()
            assert (await client.get("/users", headers=bearer)).status_code == 200
        for secret in (password, token["token"]):
            assert secret not in gateway.logs
        assert await gateway.stop() == 0
        with pytest.raises(httpx.ConnectError):
            await httpx.AsyncClient().get(f"{console}/api/health")


def certificate(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "console")])
    now = datetime.now(UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "console.pem").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    (folder / "console.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


async def test_over_tls_the_cookie_goes_nowhere_else(state, tmp_path):
    certificate(tmp_path)
    console = Console(state, tls={"cert": "console.pem", "key": "console.key"})
    console.addon.context.base = tmp_path
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"https://127.0.0.1:{listener.getsockname()[1]}/api/v1"
    trusted = ssl.create_default_context(cafile=str(tmp_path / "console.pem"))
    async with (
        console.addon.serve(listener),
        httpx.AsyncClient(base_url=url, verify=trusted, timeout=30) as client,
    ):
        answer = await client.post("/session", json={"user": "root", "password": PASSWORD})
        assert "secure" in answer.headers["set-cookie"].lower()
        assert answer.headers["strict-transport-security"]
        assert (await client.get("/session")).json()["user"] == "root"


def bootstrapped(state: Path, **options: Any) -> dict[str, str]:
    """What a start announces, with a store that has no user yet."""
    from tidegate_store_sql import StoreSql
    from tidegate_store_sql.plugin import StoreSqlConfig

    addons: dict[str, Plugin[Any]] = {}
    store = StoreSql(StoreSqlConfig(), AddonContext("store-sql", state, addons=lambda: addons))
    config = ConsoleApiConfig.model_validate(options)
    addon = ConsoleApi(config, AddonContext("console-api", state, addons=lambda: addons))
    addons |= {"store-sql": store, "console-api": addon}
    node = Node(state, state, "development", lambda address: address)
    addon.bootstrap(node)
    return node.announcements


def test_a_password_that_is_given_is_not_told(tmp_path):
    told = bootstrapped(tmp_path, admin="ada", admin_password="a fine password")
    assert told == {"console": "http://127.0.0.1:8090"}
    assert bootstrapped(tmp_path) == told  # there is a user now


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"`tls`: there is no file no\.pem"):
        bootstrapped(tmp_path, tls={"cert": "no.pem", "key": "no.key"})


def test_a_short_password_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 10"):
        bootstrapped(tmp_path, admin_password="short")
