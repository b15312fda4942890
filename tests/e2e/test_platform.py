"""The platform's rights on traffic: one node, both carriers, a platform that changes under it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from argon2 import PasswordHasher

from tidegate.api.keys import new_key
from tidegate.testing import Gateway, Received, ScriptedUpstream
from tidegate.testing.script import body

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONFIG = """
[gateway]
workers = 2
[[gateway.listen]]
name = "lane"
address = "127.0.0.1:0"
carrier = "lane"
[[gateway.listen]]
name = "engine"
address = "127.0.0.1:0"
carrier = "engine"

[[addon]]
use = "log-access"
[[addon]]
use = "store-sql"
[[addon]]
use = "auth-key"
[[addon]]
use = "auth-basic"
users = [{{ name = "eve", team = "web", hash = "{hash}" }}]
[[addon]]
use = "access-grant"
[[addon]]
use = "access-policy"
rules = [{{ name = "never", on = ["/core/night/*"], hours = {never} }}]
[[addon]]
use = "cache-http"
partition = "identity"
[[addon]]
use = "route-service"
internal = ["127.0.0.1"]
"""
NEVER = """[
  { days = ["mon"], from = "00:00", to = "00:01", zone = "Asia/Tokyo" },
]"""
"""A minute of the week."""

NAMES = ("shop", "narrow", "expired", "revoked", "outside", "blog", "rival", "unknown")
KEYS = {name: new_key() for name in NAMES}

PLATFORM = """
[[team]]
name = "core"

[[team.service]]
name = "orders"
path = "/core/orders"
upstream = "{upstream}/orders"
strip = true
visibility = "internal"
operations = ["GET /", "GET /{{id}}", "POST /"]

[[team.service]]
name = "models"
kind = "ai"
path = "/core/ai/v1"
upstream = "{upstream}"
visibility = "internal"
models = ["fast", "openai/*"]

[[team.service]]
name = "inside"
path = "/core/inside"
upstream = "{upstream}"
visibility = "internal"
policy = 'address.startsWith("10.")'

[[team.service]]
name = "night"
path = "/core/night"
upstream = "{upstream}"
visibility = "internal"

[[team.service]]
name = "ledger"
path = "/core/ledger"
upstream = "{upstream}"
methods = ["GET"]

[[team.service]]
name = "status"
path = "/core/status"
upstream = "{upstream}"
anonymous = true

[[team.policy]]
name = "read-only"
title = "No one writes here"
text = 'method != "POST"'
services = ["night", "sta*"]

[[team]]
name = "web"

[[team.service]]
name = "cart"
path = "/web/cart"
upstream = "{upstream}"

[[team.application]]
name = "shop"
key = [
  {{ name = "main", key = "{shop}" }},
  {{ name = "narrow", key = "{narrow}", services = ["core/models"], models = ["fast"] }},
  {{ name = "expired", key = "{expired}", expires = 2020-01-01T00:00:00Z }},
  {{ name = "revoked", key = "{revoked}", revoked = 2020-01-01T00:00:00Z }},
  {{ name = "outside", key = "{outside}", networks = ["192.0.2.0/24"] }},
]
subscription = [
  {{ service = "core/orders" }},
  {{ service = "core/models" }},
  {{ service = "core/inside" }},
  {{ service = "core/night" }},
]

[[team.application]]
name = "blog"
key = [{{ name = "main", key = "{blog}" }}]
subscription = [{{ service = "core/orders", status = "requested" }}]

[[team]]
name = "rival"

[[team.application]]
name = "rival"
key = [{{ name = "main", key = "{rival}" }}]
subscription = [{{ service = "core/orders" }}]
"""


class Node:
    """A gateway with a platform, and its upstream."""

    def __init__(self, gateway: Gateway, upstream: ScriptedUpstream) -> None:
        self.gateway = gateway
        self.upstream = upstream
        self.platform = PLATFORM.format(upstream=upstream.url, **KEYS)
        self.client = httpx.AsyncClient(
            timeout=60, limits=httpx.Limits(max_keepalive_connections=0)
        )
        self.urls = dict(zip(("lane", "engine"), gateway.ready["gateway"], strict=True))

    async def apply(self, *changes: tuple[str, str]) -> None:
        """Make the platform as it is written above, but for these changes of the text."""
        text = self.platform
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        await self.tidegate("apply", "-f", "-", stdin=text)

    async def tidegate(self, *arguments: str, stdin: str = "") -> str:
        """Run the command line on the node's state."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tidegate.cli.main", *arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, cwd=self.gateway.folder,
            env={**os.environ, "TIDEGATE_STATE": str(self.gateway.folder / "state")},
        )  # fmt: skip
        out, err = await process.communicate(stdin.encode())
        assert process.returncode == 0, err.decode()
        return out.decode()

    async def ask(self, carrier: str, who: str, method: str, path: str, **more: Any) -> str:
        """What a caller gets, on a connection of its own: status, and the code of an error."""
        url = self.urls[carrier] + path
        answer = await self.client.request(method, url, headers=credential(who), **more)
        if answer.status_code < 400:
            return str(answer.status_code)
        error = answer.json()["error"]
        code = error.get("code") if isinstance(error.get("code"), str) else error.get("type")
        return f"{answer.status_code} {code}"

    async def until(self, who: str, method: str, path: str, says: str) -> None:
        """Wait for forty answers in a row, of which both workers give a part, on both carriers."""
        async with asyncio.timeout(60):
            row = 0
            while row < 40:
                carrier = "lane" if row % 2 else "engine"
                row = row + 1 if await self.ask(carrier, who, method, path) == says else 0


def credential(who: str) -> dict[str, str]:
    if who == "nobody":
        return {}
    if who == "eve":
        return {"authorization": "Basic " + b64encode(b"eve:correct horse").decode()}
    return {"authorization": f"Bearer {KEYS[who]}"}


def reflect(request: Received) -> Any:
    """An answer that may be kept, and says for whom it was made."""
    text = f"{request.method} {request.target}".encode()
    return body(text, headers={"cache-control": "max-age=600", "x-kind": "fresh"})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory):
    folder: Path = tmp_path_factory.mktemp("platform")
    hashed = PasswordHasher(1, 8, 1).hash("correct horse")
    async with ScriptedUpstream() as upstream:
        upstream.handle(reflect)
        config = CONFIG.format(hash=hashed, never=NEVER.replace("\n", " "))
        async with Gateway(folder, config) as gateway:
            node = Node(gateway, upstream)
            await node.apply()
            await node.until("shop", "GET", "/core/orders/7", "200")
            yield node
            await node.client.aclose()


@pytest.fixture(params=["lane", "engine"])
def carrier(request: pytest.FixtureRequest) -> str:
    return str(request.param)


GONE, NOT_SUBSCRIBED = "404 no_route", "403 not_subscribed"
CASES = [
    ("shop", "GET", "/core/orders/7", "200"),
    ("shop", "HEAD", "/core/orders/7", "200"),
    ("shop", "PUT", "/core/orders/7", "405 method_not_allowed"),
    ("shop", "GET", "/core/orders/7/lines", "403 operation_not_allowed"),
    ("shop", "GET", "/core/inside", "403 policy_denied"),
    ("shop", "GET", "/core/night", "403 outside_hours"),
    ("shop", "GET", "/core/ledger", GONE),
    ("shop", "POST", "/core/ledger", GONE),
    ("shop", "GET", "/core/%6cedger", GONE),
    ("shop", "GET", "/core/orders/../ledger", GONE),
    ("shop", "GET", "/web/cart", NOT_SUBSCRIBED),
    ("shop", "GET", "/nothing", GONE),
    ("shop", "GET", "/core/status", "200"),
    ("narrow", "GET", "/core/orders/7", "403 service_not_allowed"),
    ("expired", "GET", "/core/orders/7", "401 api_key_expired"),
    ("revoked", "GET", "/core/orders/7", "401 api_key_revoked"),
    ("outside", "GET", "/core/orders/7", "403 address_not_allowed"),
    ("unknown", "GET", "/core/orders/7", "401 invalid_api_key"),
    ("blog", "GET", "/core/orders/7", NOT_SUBSCRIBED),
    ("rival", "GET", "/core/orders/7", "200"),
    ("rival", "GET", "/core/models", GONE),
    ("rival", "GET", "/core/ai/v1/models", NOT_SUBSCRIBED),
    ("rival", "GET", "/web/cart", GONE),
    ("eve", "GET", "/web/cart", "200"),
    ("eve", "GET", "/core/orders/7", NOT_SUBSCRIBED),
    ("eve", "GET", "/core/ledger", GONE),
    ("nobody", "GET", "/core/status", "200"),
    ("nobody", "POST", "/core/status", "403 policy_denied"),
    ("shop", "POST", "/core/night", "403 policy_denied"),
    ("nobody", "GET", "/core/orders/7", "401 unauthenticated"),
    ("nobody", "GET", "/core/ledger", "401 unauthenticated"),
    ("nobody", "GET", "/nothing", "401 unauthenticated"),
]


@pytest.mark.parametrize(("who", "method", "path", "says"), CASES)
async def test_who_may_call_what(node: Node, carrier, who, method, path, says):
    assert await node.ask(carrier, who, method, path) == says


@pytest.mark.parametrize(
    ("who", "model", "says"),
    [
        ("shop", "fast", "200"),
        ("shop", "openai/gpt-4o", "200"),
        ("shop", "anthropic/claude", "403 model_not_allowed"),
        ("narrow", "fast", "200"),
        ("narrow", "openai/gpt-4o", "403 model_not_allowed"),
        ("rival", "fast", NOT_SUBSCRIBED),
    ],
)
async def test_which_models_may_be_called(node: Node, carrier, who, model, says):
    call = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    path = "/core/ai/v1/chat/completions"
    assert await node.ask(carrier, who, "POST", path, json=call) == says
    if says == "200":
        assert node.upstream.requests[-1].json() == call


async def test_a_credential_goes_no_further_and_the_path_is_stripped(node: Node, carrier):
    before = len(node.upstream.requests)
    assert await node.ask(carrier, "shop", "POST", "/core/orders", content=b"x" * 100_000) == "200"
    received = node.upstream.requests[before]
    assert (received.target, len(received.body)) == ("/orders", 100_000)
    assert KEYS["shop"] not in repr(received)
    assert received.values("authorization") == []


async def test_what_is_kept_for_one_team_is_not_for_another(node: Node, carrier):
    path = f"/core/orders/kept-{carrier}"

    async def is_kept(who: str) -> bool:
        before = len(node.upstream.requests)
        assert await node.ask(carrier, who, "GET", path) == "200"
        return len(node.upstream.requests) == before

    async with asyncio.timeout(30):
        while not await is_kept("shop"):  # it is written beside the traffic
            await asyncio.sleep(0.02)
    assert not await is_kept("rival")
    async with asyncio.timeout(30):
        while not await is_kept("rival"):
            await asyncio.sleep(0.02)


async def test_the_log_names_team_service_and_key_and_no_secret(node: Node):
    def lines() -> list[dict[str, Any]]:
        log = node.gateway.folder / "state/addons/log-access/access.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()]

    assert await node.ask("lane", "shop", "GET", "/core/orders/logged") == "200"
    async with asyncio.timeout(30):
        while not (found := [line for line in lines() if line["path"].endswith("/logged")]):
            await asyncio.sleep(0.05)
    told = {name: found[0][name] for name in ("principal", "team", "key", "service")}
    assert told == {
        "principal": "web/shop", "team": "web", "key": KEYS["shop"][:8], "service": "core/orders",
    }  # fmt: skip
    everything = repr(lines()) + node.gateway.logs
    assert [name for name, key in KEYS.items() if key in everything] == []


async def test_a_trace_tells_by_what_right(node: Node):
    url = f"{node.urls['lane']}/core/orders/7"
    fields = {"x-tidegate-explain": "1", **credential("shop")}
    answer = await node.client.get(url, headers=fields)
    assert answer.status_code == 200
    trace = f"{node.gateway.status_url}/-/explain/{answer.headers['x-request-id']}"
    found = await node.client.get(trace)
    why = {
        step["addon"]: step["why"]
        for phase in found.json()["phases"] for step in phase["steps"]
        if phase["phase"] in ("authenticate", "authorize")
    }  # fmt: skip
    assert why["store-sql"] == "service core/orders"
    assert why["access-grant"] == (
        "web/shop is subscribed to core/orders; the operation is one of its"
    )


async def test_a_denial_and_its_trace_name_the_policy(node: Node):
    url = f"{node.urls['lane']}/core/status"
    answer = await node.client.post(url, headers={"x-tidegate-explain": "1"})
    told = 'The policy "No one writes here" of this API denies the request.'
    assert (answer.status_code, answer.json()["error"]["message"]) == (403, told)
    trace = f"{node.gateway.status_url}/-/explain/{answer.headers['x-request-id']}"
    found = await node.client.get(trace)
    decision = f"403 policy_denied - access-grant said no in authorize: {told}"
    assert found.json()["decision"] == decision


async def test_a_change_is_in_force_on_every_worker(node: Node):
    path = "/core/orders/7"
    main = f'key = "{KEYS["shop"]}"'
    await node.apply(
        ('{ service = "core/orders" },', '{ service = "core/orders", status = "revoked" },'),
        ('status = "requested"', 'status = "approved"'),
    )
    await node.until("shop", "GET", path, NOT_SUBSCRIBED)
    await node.until("blog", "GET", path, "200")
    assert await node.ask("lane", "rival", "GET", path) == "200", "no one else's right is gone"
    await node.apply(
        (main, f"{main}, revoked = 2020-01-01T00:00:00Z"),
        ('operations = ["GET /", "GET /{id}"', 'operations = ["GET /"'),
    )
    await node.until("shop", "GET", path, "401 api_key_revoked")
    await node.until("rival", "GET", path, "403 operation_not_allowed")
    await node.apply()
    await node.until("shop", "GET", path, "200")
