"""Teams with provider keys of their own: a node with a store, and its commands."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import uvloop

from tidegate.api.keys import new_key
from tidegate.testing import ScriptedUpstream
from tidegate.testing import script as scripts
from tidegate.testing.gateway import Gateway

CONFIG = """
[gateway]
workers = 2

[[addon]]
use = "store-sql"
poll = "100ms"

[[addon]]
use = "auth-key"

[[addon]]
use = "ai-providers"
team_hosts = ["127.0.0.1"]
providers = [{ name = "work", url = "{url}", keys = ["${SHARED}"] }]

[[addon]]
use = "ai-usage"

[[addon]]
use = "log-access"
"""
PLATFORM = """
[[team]]
name = "red"
application = [{ name = "web", key = [{ name = "ci", key = "{key_red}" }] }]
provider = [{ name = "work", kind = "openai-compatible", url = "{url}", key = [
  { name = "main", secret = "{red}" },
] }]

[[team]]
name = "blue"
application = [{ name = "web", key = [{ name = "ci", key = "{key_blue}" }] }]
provider = [{ name = "work", kind = "openai-compatible", url = "{url}", key = [
  { name = "main", secret = "sk-canary-blue" },
] }]

[[team]]
name = "green"
application = [{ name = "web", key = [{ name = "ci", key = "{key_green}" }] }]
"""
KEYS = {f"key_{team}": new_key() for team in ("red", "blue", "green")}
SHARED = "sk-canary-shared"
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}


def pytest_asyncio_loop_factories():
    return {"uvloop": uvloop.new_event_loop}


def filled(text: str, **values: str) -> str:
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def tidegate(folder: Path, *arguments: str, stdin: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tidegate.cli.main", *arguments], cwd=folder, input=stdin,
        env={**os.environ, "TIDEGATE_STATE": str(folder / "state"), "SHARED": SHARED}, text=True,
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "canary" not in done.stdout + done.stderr
    return done.stdout


class Caller:
    """Calls as an application of a team, each on a connection of its own."""

    def __init__(self, url: str, client: httpx.AsyncClient) -> None:
        self.url = url
        self._client = client

    async def ask(self, team: str) -> str | int:
        """The key that a team's call was made with, as the provider told; else the status."""
        said = await self._client.post(
            f"{self.url}/v1/chat/completions",
            json={"model": "work/m", "messages": [{"role": "user", "content": "Hello"}]},
            headers={
                "authorization": f"Bearer {KEYS[f'key_{team}']}",
                "connection": "close",
                "x-tidegate-explain": "1",
            },
        )
        assert b"canary" not in b" ".join((*(v for _, v in said.headers.raw), said.content))
        if said.status_code != 200:
            return said.status_code
        return str(said.json()["choices"][0]["message"]["content"])

    async def until(self, team: str, wanted: str) -> None:
        """Wait for twenty answers in a row, which both workers give a part of."""
        async with asyncio.timeout(30):
            row = 0
            while row < 20:
                row = row + 1 if await self.ask(team) == wanted else 0


async def test_each_team_is_served_with_its_own_keys_and_none_is_ever_shown(tmp_path):
    async with ScriptedUpstream() as upstream:
        url = f"{upstream.url}/v1"

        def serve(received):
            key = received.values("authorization")[0].removeprefix("Bearer sk-canary-")
            answer = json.loads(json.dumps(ANSWER))
            answer["choices"][0]["message"]["content"] = key
            return scripts.json(answer)

        upstream.handle(serve)

        def apply(red: str) -> str:
            return tidegate(
                tmp_path, "apply", "-f", "-", stdin=filled(PLATFORM, url=url, red=red, **KEYS)
            )

        config = filled(CONFIG, url=url)
        async with (
            Gateway(tmp_path, config, env={"SHARED": SHARED}) as gateway,
            httpx.AsyncClient() as client,
        ):
            caller = Caller(gateway.url, client)
            await asyncio.to_thread(apply, "sk-canary-red-1")
            for team, key in (("red", "red-1"), ("blue", "blue"), ("green", "shared")):
                await caller.until(team, key)
            await asyncio.to_thread(apply, "sk-canary-red-2")
            await caller.until("red", "red-2")
            assert await caller.ask("blue") == "blue"

            listed = await asyncio.to_thread(tidegate, tmp_path, "providers", "list", "--json")
            assert [(row["name"], row["team"], row["keys"]) for row in json.loads(listed)] == [
                ("work", "", ["key 1"]),
                ("work", "blue", ["main"]),
                ("work", "red", ["main"]),
            ]
            told = await asyncio.to_thread(
                tidegate, tmp_path, "providers", "test", "work", "--team", "red", "--model", "m"
            )
            assert "red-2" in told
            explain = f"{gateway.status_url}/-/explain"
            ids = [row["id"] for row in (await client.get(explain)).json()["traces"]]
            traces = "".join([(await client.get(f"{explain}/{id}")).text for id in ids])
            assert "work/m of red" in traces
            assert await gateway.stop() == 0
            (log,) = tmp_path.rglob("access.jsonl")
            assert "work/m of red" in log.read_text()
            written = [gateway.logs.encode(), traces.encode()]
            written += [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
            assert not [text[:80] for text in written if b"canary" in text]
