"""A plugin of each kind, made, built, installed beside the core's wheel, tested, and served."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from http.client import HTTPMessage
from pathlib import Path
from urllib.error import HTTPError

import pytest

from tidegate.testing import ScriptedUpstream
from tidegate.testing.script import body

ROOT = Path(__file__).parents[2]
KINDS = ("auth", "authorize", "cache", "event", "log", "route", "transform")
TOKEN = "a-token-of-a-test"
CONFIG = """
[gateway]
listen = ["127.0.0.1:0"]
workers = 1

[[addon]]
use = "auth-try"
callers = [{{ name = "ada", team = "test", sha256 = "{hash}" }}]

[[addon]]
use = "authorize-try"
rate = "3/d"

[[addon]]
use = "transform-try"

[[addon]]
use = "event-try"
words = ["falcon"]

[[addon]]
use = "cache-try"

[[addon]]
use = "route-try"
upstreams = {{ blue = "{upstream}" }}

[[addon]]
use = "log-try"
"""


@pytest.mark.timeout(300)
async def test_a_plugin_of_each_kind_is_made_installed_tested_and_serves(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """One test: what it costs is the environment that both halves need."""
    ours = ("TIDEGATE_", "PYTHON", "VIRTUAL", "UV_PROJECT", "PYTEST_")
    env = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is missing: pip install uv")
    await asyncio.to_thread(install, uv, tmp_path, env)
    with ThreadPoolExecutor(2) as pool:
        for run in pool.map(lambda kind: own_tests(tmp_path, env, kind), KINDS):
            assert run.returncode == 0, run.stdout + run.stderr
            assert "warning" not in run.stdout, run.stdout
    await serve(tmp_path, env, upstream)


def install(uv: str, place: Path, env: dict[str, str]) -> None:
    """Make a package of each kind with the core's wheel alone, and install them beside it."""
    bin = place / "env/bin"

    def run(*command: str | Path, cwd: Path = place) -> None:
        done = subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == 0, done.stderr

    run(uv, "build", "--package", "tidegate-core", "--out-dir", place / "dist", cwd=ROOT)
    run(uv, "venv", "--python", sys.executable, place / "env")
    add = (uv, "pip", "install", "--python", bin / "python")
    run(*add, *place.glob("dist/tidegate_core-*.whl"), "pytest>=9", "pytest-asyncio>=1.3")

    def make(kind: str) -> None:
        run(bin / "tidegate", "new-plugin", f"{kind}-try")
        run(uv, "build", "--wheel", "--out-dir", place / "dist", place / f"tidegate-{kind}-try")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(make, KINDS))
    run(*add, "--no-deps", *place.glob("dist/*_try-*.whl"))


def own_tests(place: Path, env: dict[str, str], kind: str) -> subprocess.CompletedProcess[str]:
    """The tests that came with a package, run where it is installed."""
    return subprocess.run(
        [place / "env/bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=place / f"tidegate-{kind}-try", env=env, capture_output=True, text=True, timeout=100,
        check=False,
    )  # fmt: skip


async def serve(place: Path, env: dict[str, str], upstream: ScriptedUpstream) -> None:
    """Requests through all of them, over real sockets."""
    fields = {"cache-control": "max-age=60", "server": "secret/1.0"}
    upstream.answer(*body(b"hello", headers=fields))
    digest = sha256(TOKEN.encode()).hexdigest()
    config = place / "addons.toml"
    config.write_text(CONFIG.format(hash=digest, upstream=upstream.url))
    with serving(place / "env/bin/tidegate", config, env) as url:
        known = {"x-token": TOKEN, "x-stage": "blue"}
        assert (await ask(url, {"x-stage": "blue"}))[0] == 401
        assert (await ask(url, {"x-token": TOKEN}))[0] == 404
        first = await ask(url, known)
        second = await ask(url, known)
        last = await ask(url, known)
    assert [first[0], second[0], last[0]] == [200, 200, 429]
    assert first[2] == second[2] == b"hello"
    assert "server" not in first[1]
    assert last[1]["retry-after"]
    (sent,) = upstream.requests  # the second answer came from the cache
    assert sent.values("x-caller") == ["test/ada"]
    assert sent.values("x-token") == []
    lines = (place / "state/addons/log-try/exchanges.jsonl").read_text().splitlines()
    statuses = [json.loads(line)["status"] for line in lines]
    assert statuses == [401, 404, 200, 200, 429]


async def ask(url: str, headers: dict[str, str]) -> tuple[int, HTTPMessage, bytes]:
    """Status, fields and body of a GET."""

    def run() -> tuple[int, HTTPMessage, bytes]:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
                return answer.status, answer.headers, answer.read()
        except HTTPError as error:
            return error.code, error.headers, error.read()

    return await asyncio.to_thread(run)


@contextmanager
def serving(tidegate: Path, config: Path, env: dict[str, str]) -> Iterator[str]:
    """A gateway with this configuration; its address. At the end it has drained."""
    state = config.parent / "state"
    command = [tidegate, "up", "--json", "--config", config, "--state", state]
    with subprocess.Popen(
        command, cwd=config.parent, env=env, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["gateway"][0]
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
