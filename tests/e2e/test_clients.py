"""Clients that nobody here wrote, against a fresh start."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import openai
import pytest

from tidegate.testing import Gateway, ScriptedUpstream
from tidegate.testing.script import Received, body

ROOT = Path(__file__).parents[2]
NODE = Path(__file__).parent / "node"
HELLO = [{"role": "user", "content": "Hello!"}]
START = Callable[..., Awaitable[Gateway]]
DEFAULT = (ROOT / "addons.toml").read_text()


@pytest.fixture
async def fresh(gateway: START, carrier: str) -> Gateway:
    env = {"OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""}
    return await gateway(DEFAULT, carrier=carrier, env=env)


@pytest.fixture
def client(fresh: Gateway) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"{fresh.url}/v1", api_key=fresh.api_key, max_retries=0, timeout=30
    )


async def test_the_python_sdk(client: openai.AsyncOpenAI, fresh: Gateway) -> None:
    whole = await client.chat.completions.create(model="demo", messages=HELLO)
    assert "Hello!" in (whole.choices[0].message.content or "")
    assert whole.usage is not None
    stream = await client.chat.completions.create(
        model="demo", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert [model.id async for model in client.models.list()] != []
    embedding = await client.embeddings.create(model="demo", input="x")
    assert len(embedding.data[0].embedding) > 0
    with pytest.raises(openai.AuthenticationError) as denied:
        await client.with_options(api_key="tg_wrong").chat.completions.create(
            model="demo", messages=HELLO
        )
    assert denied.value.code == "invalid_api_key"
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(model="demo", messages=[])


async def test_the_node_sdk(fresh: Gateway) -> None:
    if shutil.which("node") is None or not (NODE / "node_modules/openai").exists():
        pytest.skip(f"the Node SDK is missing: npm ci --prefix {NODE}")
    env = {**os.environ, "BASE_URL": f"{fresh.url}/v1", "API_KEY": fresh.api_key or ""}
    run = await asyncio.to_thread(
        subprocess.run, ["node", "client.mjs"], cwd=NODE, env=env, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    seen = json.loads(run.stdout)
    assert seen["streamed"] == seen["whole"]
    assert "Hello!" in seen["whole"]
    assert seen["denied"] == {"status": 401, "code": "invalid_api_key"}


async def test_curl(fresh: Gateway) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is missing: apt-get install curl")

    async def run(*arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            curl, "-sS", "--max-time", "30", *arguments, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        return out.decode()

    url = f"{fresh.url}/v1/chat/completions"
    key = ("-H", f"Authorization: Bearer {fresh.api_key}", "-H", "Content-Type: application/json")
    asked = json.dumps({"model": "demo", "stream": True, "messages": HELLO})
    streamed = await run("-N", url, *key, "-d", asked)
    assert streamed.startswith("data: {")
    assert streamed.endswith("data: [DONE]\n\n")
    refused = await run("-o", "/dev/null", "-w", "%{http_code}", url, "-d", asked)
    assert refused == "401"
    # A body over 1 MiB makes curl ask first: Expect: 100-continue.
    large = json.dumps(
        {"model": "demo", "messages": [{"role": "user", "content": "a" * 1_500_000}]}
    )
    process = await asyncio.create_subprocess_exec(
        curl, "-sS", "--max-time", "30", "-o", "/dev/null", "-w", "%{http_code}", url, *key,
        "-H", "Expect: 100-continue", "--data-binary", "@-",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate(large.encode())
    assert out in {b"200", b"413"}, out


PAGE = b"""<!doctype html><title>page</title><link rel=stylesheet href=/s.css><p id=p>waiting</p>
<script type=module>
  const answer = await fetch("/data?x=1", {method: "POST", body: "ping"});
  const events = new EventSource("/events");
  const first = await new Promise(done => events.onmessage = e => { events.close(); done(e.data) });
  const width = getComputedStyle(document.getElementById("p")).width;
  document.getElementById("p").textContent = `${await answer.text()} ${first} ${width}`;
</script>"""


async def test_a_browser(
    gateway: START, upstream: ScriptedUpstream, carrier: str, tmp_path: Path
) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is missing: apt-get install chromium")

    def handle(request: Received) -> object:
        if request.target == "/page":
            return body(PAGE, headers={"content-type": "text/html"})
        if request.target == "/s.css":
            return body(b"#p { width: 321px }", headers={"content-type": "text/css"})
        if request.target == "/events":
            return body(b"data: event\n\n", headers={"content-type": "text/event-stream"})
        if request.target == "/data?x=1":
            return body(request.body.replace(b"ping", b"pong"))
        return body(b"", 404)

    upstream.handle(handle)  # type: ignore[arg-type]
    config = (
        '[[addon]]\nuse = "route-static"\n'
        f'routes = [{{ path = "/", upstream = "{upstream.url}" }}]\n'
    )
    running = await gateway(config, carrier=carrier)
    process = await asyncio.create_subprocess_exec(
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000",
        "--dump-dom", f"{running.url}/page",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        out, _ = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
    assert b">pong event 321px</p>" in out
