"""A whole node: the commands change the store, and every worker follows."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from tidegate.testing.gateway import Gateway

CONFIG = """
[gateway]
workers = 2

[[addon]]
use = "store-sql"
poll = "200ms"

[[addon]]
file = "gate.py"
"""

GATE = '''
"""What a plugin makes of the store: keys, grants, services."""
import os
from mitmproxy import http
from tidegate.api import Denial, Plugin, hook
from tidegate.api.platform import CONSUMER, SERVICE, SNAPSHOT


class Gate(Plugin):
    @hook
    def authenticate(self, exchange):
        consumer = exchange.stash[SNAPSHOT].consumer(exchange.consume_header("x-key") or "")
        if consumer is None or consumer.revoked is not None:
            return Denial(401, "invalid_api_key", "No.")
        exchange.stash[CONSUMER] = consumer
        return consumer.principal

    @hook
    def authorize(self, exchange):
        service, consumer = exchange.stash.get(SERVICE), exchange.stash[CONSUMER]
        if service is None:
            return Denial(404, "no_route", "No.")
        if exchange.stash[SNAPSHOT].grant(consumer.application.id, service.id) is None:
            return Denial(403, "not_subscribed", "No.")

    @hook
    def route(self, exchange):
        service, principal = exchange.stash[SERVICE], exchange.principal
        text = f"{service.ref} {principal.id}"
        return http.Response.make(200, text, {"x-worker": str(os.getpid())})
'''

KEY = "a-key-of-twenty-chars"
PLATFORM = f"""
[[team]]
name = "red"
service = [{{ name = "orders", path = "/orders" }}]

[[team]]
name = "blue"
application = [{{ name = "web", key = [{{ name = "ci", key = "{KEY}" }}], subscription = [
  {{ service = "red/orders", status = "approved" }},
] }}]
"""


def tidegate(folder: Path, *arguments: str, stdin: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tidegate.cli.main", *arguments], cwd=folder, input=stdin,
        env={**os.environ, "TIDEGATE_STATE": str(folder / "state")}, text=True,
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def call(url: str, key: str) -> tuple[int, str, str]:
    """Status, text and worker, on a connection of its own."""
    request = urllib.request.Request(url, headers={"x-key": key})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode(), answer.headers["x-worker"]
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["error"]["code"], ""


async def until(url: str, key: str, status: int) -> None:
    """Wait for forty calls in a row, which both workers get a part of, with this status."""
    async with asyncio.timeout(30):
        row = 0
        while row < 40:
            row = row + 1 if (await asyncio.to_thread(call, url, key))[0] == status else 0


async def test_every_worker_follows_what_commands_change(tmp_path):
    (tmp_path / "gate.py").write_text(GATE)
    async with Gateway(tmp_path, CONFIG) as gateway:
        url = f"{gateway.url}/orders/7"
        assert (await asyncio.to_thread(call, url, KEY))[:2] == (401, "invalid_api_key")
        await asyncio.to_thread(tidegate, tmp_path, "apply", "-f", "-", stdin=PLATFORM)
        await until(url, KEY, 200)
        answers = [await asyncio.to_thread(call, url, KEY) for _ in range(40)]
        assert {text for _, text, _ in answers} == {"red/orders blue/web"}
        assert (await asyncio.to_thread(call, url, KEY + "x"))[0] == 401

        revoked = PLATFORM.replace('"approved"', '"revoked"')
        await asyncio.to_thread(tidegate, tmp_path, "apply", "-f", "-", stdin=revoked)
        await until(url, KEY, 403)

        exported = await asyncio.to_thread(tidegate, tmp_path, "export")
        assert KEY not in exported
        assert 'status = "revoked"' in exported
        await asyncio.to_thread(tidegate, tmp_path, "audit", "verify")
        assert KEY not in gateway.logs
        assert await gateway.stop() == 0
