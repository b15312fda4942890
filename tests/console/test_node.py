"""From the first password to an answer: all through the console of a running node."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx

from tidegate.testing.gateway import Gateway

CONFIG = """
[gateway]
workers = 1

[[addon]]
use = "store-sql"

[[addon]]
use = "auth-key"

[[addon]]
use = "access-grant"

[[addon]]
use = "route-service"
internal = ["127.0.0.1"]

[[addon]]
use = "console-api"
listen = "127.0.0.1:0"
admin_password = "${TIDEGATE_ADMIN_PASSWORD}"
"""
PASSWORD = "given by the operator"


async def upstream() -> tuple[asyncio.Server, str]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\norders")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


class Session(httpx.AsyncClient):
    async def make(self, path: str, /, **body: Any) -> dict[str, Any]:
        answer = await self.post(path, json=body)
        assert answer.status_code in (200, 201), answer.text
        told: dict[str, Any] = answer.json()
        return told


async def until(url: str, key: str, status: int) -> httpx.Response:
    """The first answer of the gateway with this status; a change is in force within a second."""
    async with asyncio.timeout(30), httpx.AsyncClient(timeout=30) as client:
        while True:
            answer = await client.get(url, headers={"authorization": f"Bearer {key}"})
            if answer.status_code == status:
                return answer
            await asyncio.sleep(0.05)


async def test_what_is_decided_in_the_console_is_so_at_the_gateway(tmp_path: Path):
    server, origin = await upstream()
    env = {"TIDEGATE_ADMIN_PASSWORD": PASSWORD}
    async with server, Gateway(tmp_path, CONFIG, env=env) as gateway:
        assert "admin_password" not in gateway.ready
        base = f"{gateway.ready['console']}/api/v1"
        async with Session(base_url=base, timeout=30) as root, Session(base_url=base) as ada:
            await root.make("/session", user="admin", password=PASSWORD)
            seller = (await root.make("/teams", name="seller"))["id"]
            buyer = (await root.make("/teams", name="buyer"))["id"]
            service = await root.make(
                f"/teams/{seller}/services", name="orders", path="/orders", upstream=origin,
                visibility="internal",
            )  # fmt: skip
            password = (await root.make("/users", name="ada"))["password"]
            await root.make(f"/teams/{buyer}/members", user="ada", role="developer")

            await ada.make("/session", user="ada", password=password)
            assert (await ada.get(f"/catalogue/{service['id']}")).json()["ref"] == "seller/orders"
            application = (await ada.make(f"/teams/{buyer}/applications", name="shop"))["id"]
            keys = f"/teams/{buyer}/applications/{application}/keys"
            key = (await ada.make(keys, name="first"))["key"]
            wanted = {"application_id": application, "service_id": service["id"]}
            asked = await ada.make(f"/teams/{buyer}/subscriptions", **wanted, reason="the shop")
            assert asked["status"] == "requested"
            own = await ada.post(f"/teams/{buyer}/subscriptions/{asked['id']}/approve", json={})
            assert own.status_code == 403  # a developer decides nothing

            url = f"{gateway.url}/orders"
            assert (await until(url, key, 403)).json()["error"]["code"] == "not_subscribed"
            decide = f"/teams/{seller}/subscriptions/{asked['id']}"
            assert (await root.make(f"{decide}/approve"))["decided_by"] == "admin"
            assert (await until(url, key, 200)).text == "orders"
            await root.make(f"{decide}/revoke", decision="no longer")
            await until(url, key, 403)
        assert await gateway.stop() == 0
        for secret in (PASSWORD, password, key):
            assert secret not in gateway.logs
