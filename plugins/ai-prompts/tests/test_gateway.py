"""A whole gateway with prompts, on both carriers, and the verbs beside it."""

from __future__ import annotations

import asyncio
import json
import os
import sys

import httpx
import pytest

from tidegate.testing import Gateway

CONFIG = """
[gateway]
workers = 1

[[addon]]
use = "auth-key"

[[addon]]
use = "ai-prompts"
scope = { paths = ["/prompts/*"] }
folder = "prompts"

[[addon]]
use = "demo-upstream"
pace = "1ms"
"""
ECHO = """
model = "demo"
system = "You echo."
user = "{{ text }}"
variables.text = { type = "string" }
variables.times = { type = "integer", default = 1 }

[[tests]]
name = "says something"
variables = { text = "Is it you?" }
expect = { matches = "\\\\w+", excludes = "no such words" }

[[tests]]
name = "says what it can't know"
variables = { text = "Is it you?" }
expect = { equals = "Forty-two." }

[[tests]]
name = "a case that is itself wrong"
variables = {}
expect = { contains = "x" }
"""


@pytest.fixture(params=["lane", "engine"])
async def gateway(request, tmp_path, kit):
    kit.write(tmp_path / "prompts", "echo", ECHO)
    async with Gateway(tmp_path, CONFIG, carrier=request.param) as gateway:
        yield gateway


async def tidegate(gateway, *argv, **env):
    """Exit status, standard output, standard error of a verb."""
    names = {"TIDEGATE_CONFIG": str(gateway.file), "TIDEGATE_STATE": str(gateway.folder / "state")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tidegate.cli.main", *argv),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **names, **env},
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), err.decode()


async def test_a_prompt_is_served_and_streamed(gateway):
    headers = {"authorization": f"Bearer {gateway.api_key}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, trust_env=False) as client:
        answer = await client.post("/prompts/echo", json={"text": "Hello"})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body["output"]
        assert (body["prompt"], body["version"]) == ("echo", 1)
        streamed = await client.post("/prompts/echo", json={"text": "Hello", "stream": True})
        assert "event: done" in streamed.text
        wrong = await client.post("/prompts/echo", json={})
        assert wrong.json()["error"]["code"] == "prompt_variables_invalid"
        unknown = await client.post("/prompts/echo", json={}, headers={"authorization": "Bearer x"})
        assert unknown.status_code == 401


async def test_the_verbs_list_render_and_test(gateway):
    status, out, err = await tidegate(gateway, "prompts", "list", "--json")
    assert status == 0, err
    (row,) = json.loads(out)
    assert (row["path"], row["model"], row["tests"]) == ("/prompts/echo/v1", "demo", 3)
    assert row["variables"] == "text: string, times?: integer"

    status, out, err = await tidegate(gateway, "prompts", "list")
    assert "/prompts/echo/v1" in out

    status, out, err = await tidegate(gateway, "prompts", "render", "echo", "--var", "text=Hi you")
    assert out == "--- system\nYou echo.\n--- user\nHi you\n"
    status, out, err = await tidegate(gateway, "prompts", "render", "echo")
    assert (status, out) == (2, "")
    assert "text" in err
    status, out, err = await tidegate(gateway, "prompts", "show", "nothing")
    assert (status, "there is no prompt 'nothing'" in err) == (2, True)
    status, out, err = await tidegate(gateway, "prompts", "show", "echo", "--json")
    assert json.loads(out)["input_schema"]["required"] == ["text"]

    key = {"TIDEGATE_API_KEY": gateway.api_key}  # the gateway is found through its state folder
    status, out, err = await tidegate(gateway, "prompts", "test", "--json", **key)
    assert status == 1, err
    rows = {row["case"]: row for row in json.loads(out)}
    assert [row["result"] for row in rows.values()] == ["pass", "FAIL", "FAIL"]
    assert rows["says what it can't know"]["why"].startswith("it is ")
    assert rows["a case that is itself wrong"]["why"].startswith("422")

    status, out, err = await tidegate(gateway, "prompts", "test", "echo", **key)
    assert status == 1
    assert "says something" in out
    nowhere = {"TIDEGATE_URL": "http://127.0.0.1:9", "TIDEGATE_API_KEY": "k"}
    status, out, err = await tidegate(gateway, "prompts", "test", "--json", **nowhere)
    assert {row["result"] for row in json.loads(out)} == {"FAIL"}


async def test_check_tells_what_is_wrong_with_a_prompt(gateway, kit):
    kit.write(gateway.folder / "prompts", "bad", 'model = "m"\nuser = "{{ x"\n')
    status, out, err = await tidegate(gateway, "check", str(gateway.file))
    assert status != 0
    assert "bad.toml:2: `user`: unexpected end of input" in out + err
