"""One command starts the platform that comes with Tidegate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

HELLO = {"model": "demo", "messages": [{"role": "user", "content": "Hello!"}]}


@pytest.fixture
def started(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """What the ready line of `tidegate up --deployment platform` says, in an empty folder."""
    own = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    env = own | {"TIDEGATE_CONSOLE_LISTEN": "127.0.0.1:0"}
    argv = ["up", "--deployment", "platform", "--listen", "127.0.0.1:0", "--workers", "1", "--json"]
    with subprocess.Popen(
        [sys.executable, "-m", "tidegate.cli.main", *argv],
        cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        events = (json.loads(line) for line in process.stdout)
        yield next(event for event in events if event["event"] == "ready")
        process.terminate()
        assert process.wait(30) == 0


def test_the_platform_answers_calls_and_has_a_console(started: dict[str, Any]) -> None:
    key = {"authorization": f"Bearer {started['api_key']}"}
    with httpx.Client(base_url=started["gateway"][0], headers=key, timeout=30) as client:
        answer = client.post("/v1/chat/completions", json=HELLO)
        assert answer.json()["choices"][0]["message"]["content"]
    with httpx.Client(base_url=started["console"], timeout=30) as client:
        assert client.get("/api/v1/teams").status_code == 401
        who = {"user": started["admin_user"], "password": started["admin_password"]}
        assert client.post("/api/v1/session", json=who).status_code < 300
        assert client.get("/api/v1/teams").json()["items"] == []
