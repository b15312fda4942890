"""A plugin of the tests' own, installed on a path, and nodes run as real processes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import httpx
import pytest

PLUGIN = '''
import asyncio, os, time
from mitmproxy import http
from tidegate.api import AddonConfig, Plugin, hook

class Config(AddonConfig):
    text: str = "hello"
    fail_startup: bool = False
    process: bool = False

class Answer(Plugin[Config]):
    """Answers from the gateway: no upstream is needed."""

    Config = Config

    @hook
    def bootstrap(self, node):
        node.announce("api_key", "tg_cli_test_key_0123456789")
        self.context.state.mkdir(parents=True, exist_ok=True)
        node.shared["pid"] = os.getpid()
        with open(self.context.state / "bootstraps", "a") as file:
            file.write("x")
        if self.config.process:
            seen = self.context.state / "process"
            node.run("side", ["sh", "-c", f"echo $$ >> {seen}; exec sleep 600"])

    @hook
    async def startup(self, previous):
        if self.config.fail_startup:
            raise RuntimeError("told to fail")

    @hook
    async def route(self, exchange):
        self.context.counters.add("answers_total")
        if exchange.path == "/die":
            self.context.log.error("told to die")
            os._exit(9)
        if exchange.path == "/slow":
            await asyncio.sleep(1.0)
        text = {"/pid": str(os.getpid()), "/shared": str(self.context.shared)}
        return http.Response.make(200, text.get(exchange.path, self.config.text))

    @hook
    def cli_commands(self, app):
        @app.command()
        def fortune() -> None:
            """Tell a fortune."""
            print(self.config.text)
'''
ENTRY_POINTS = "[tidegate.plugins]\nanswer = cli_test_answer:Answer\n"
METADATA = "Metadata-Version: 2.1\nName: cli-test-answer\nVersion: 1.2.3\n"

CONFIG = """\
[gateway]
listen = ["127.0.0.1:0"]
workers = {workers}

[gateway.deadlines]
drain = "10s"

[[addon]]
use = "answer"
text = "{text}"
"""


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on the module path in which the plugin `answer` is installed."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "cli_test_answer.py").write_text(PLUGIN)
    dist = folder / "cli_test_answer-1.2.3.dist-info"
    dist.mkdir()
    (dist / "METADATA").write_text(METADATA)
    (dist / "entry_points.txt").write_text(ENTRY_POINTS)
    return folder


@pytest.fixture
def env(site: Path) -> dict[str, str]:
    """The environment of a `tidegate` process."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("TIDEGATE_", "OPENAI_"))}
    path = os.pathsep.join(filter(None, [str(site), clean.get("PYTHONPATH", "")]))
    return {**clean, "PYTHONPATH": path, "COLUMNS": "200", "NO_COLOR": "1"}


@pytest.fixture
def tidegate(
    env: dict[str, str], tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a verb to its end, in `tmp_path`."""

    def run(*argv: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tidegate.cli.main", *argv]
        return subprocess.run(
            command,
            env={**env, **more},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def eventually[T](probe: Callable[[], T], seconds: float = 20.0) -> T:
    """The first true value of `probe`; fails after a bounded time."""
    end = time.monotonic() + seconds
    while True:
        found = probe()
        if found or time.monotonic() > end:
            assert found, f"{probe} did not come true in {seconds} s"
            return found
        time.sleep(0.05)


class Node:
    """`tidegate up --json` as a process."""

    def __init__(self, folder: Path, env: dict[str, str], *flags: str) -> None:
        command = [sys.executable, "-m", "tidegate.cli.main", "up", "--json", *flags]
        self.process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.file = folder / "addons.toml"
        self.errors: list[str] = []
        self._events: Queue[dict[str, Any]] = Queue()
        self._readers = [
            threading.Thread(target=self._read_events, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        self.started = self.event("ready")
        self.url = self.started["gateway"][0]
        self.address = ("127.0.0.1", int(self.url.rpartition(":")[2]))

    def _read_events(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._events.put(json.loads(line))

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors.append(line.rstrip())

    def event(self, name: str, seconds: float = 30.0) -> dict[str, Any]:
        """The next event of that name."""
        end = time.monotonic() + seconds
        while True:
            try:
                event = self._events.get(timeout=max(0.0, end - time.monotonic()))
            except Empty:
                raise AssertionError(f"no {name!r} event; log: {self.log()}") from None
            if event["event"] == name:
                return event

    def log(self) -> str:
        """Its standard error so far."""
        return "\n".join(self.errors)

    def get(self, path: str = "/") -> httpx.Response:
        """Ask the gateway, on a connection of its own."""
        return httpx.get(self.url + path, timeout=20.0)

    def status(self, path: str = "status", **options: Any) -> httpx.Response:
        """Ask the supervisor."""
        return httpx.get(f"{self.started['status']}/-/{path}", timeout=20.0, **options)

    def pids(self) -> list[int]:
        """The workers that are ready."""
        return [w["pid"] for w in self.status().json()["workers"] if w["ready"]]

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Its exit status."""
        if self.process.poll() is None:
            self.send(number)
        try:
            status = self.process.wait(30)
        finally:
            self.process.kill()
        for reader in self._readers:
            reader.join(10)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.stdout.close()
        self.process.stderr.close()
        return status


@pytest.fixture
def up(tmp_path: Path, env: dict[str, str]) -> Iterator[Callable[..., Node]]:
    """Start nodes in `tmp_path`: `up(text=…, workers=…, config=…, flags=(…))`."""
    nodes = []

    def start(
        *flags: str, text: str = "hello", workers: int = 1, config: str | None = None
    ) -> Node:
        content = CONFIG.format(workers=workers, text=text) if config is None else config
        (tmp_path / "addons.toml").write_text(content)
        node = Node(tmp_path, env, *flags)
        nodes.append(node)
        return node

    yield start
    for node in nodes:
        node.stop(signal.SIGKILL)
