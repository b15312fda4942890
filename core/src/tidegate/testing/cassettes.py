"""Fixture `cassette`: a gateway that records once and plays ever after, for a test's HTTP calls.

    def test_greeting(cassette):
        base = cassette("https://api.openai.com")       # records what has no cassette yet
        client = OpenAI(base_url=f"{base}/v1", api_key=os.environ.get("OPENAI_API_KEY", "none"))
        ...

Cassettes lie in `cassettes/<test file>/<test>` beside the test file. `TIDEGATE_CASSETTES` says
what is done: `record-missing` (the default), `record`, `replay` (a miss fails, nothing is called:
for CI) or `passthrough`. What a test's program is written in does not matter: it takes a base URL.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

VARIABLE: Final = "TIDEGATE_CASSETTES"
ACTIONS: Final = ("record-missing", "record", "replay", "passthrough")
STOP: Final = 30.0
"""Seconds that a gateway may take to end."""

_MISS: Final = re.compile(r"(?m)^\S+ .*No cassette in .*\n(?:(?!\d\d:\d\d:\d\d\.\d).*\n)*")
"""A miss in the gateway's log: up to the next line that begins with a time."""

CONFIG: Final = """\
[gateway]
listen = ["127.0.0.1:0"]
workers = 1

[gateway.deadlines]
drain = "2s"

[[addon]]
use = "record-cassette"
{options}
"""
ROUTE: Final = """
[[addon]]
use = "route-static"
routes = [{{ path = "/", upstream = {url} }}]
"""


class CassetteError(Exception):
    """The gateway of a test did not start; holds what it said."""


def action_of(environment: str | None) -> str:
    """What `TIDEGATE_CASSETTES` asks for. Raises ValueError."""
    action = environment or ACTIONS[0]
    if action not in ACTIONS:
        raise ValueError(f"{VARIABLE}={action}: choose from {', '.join(ACTIONS)}")
    return action


class Deck:
    """One gateway on one folder of cassettes, and what it played."""

    def __init__(self, folder: Path, upstream: str | None, action: str, **options: Any) -> None:
        self.folder = folder
        self.action = action
        self._state = tempfile.TemporaryDirectory(prefix="tidegate-cassettes-")
        root = Path(self._state.name)
        values = {"action": action, "dir": str(folder), **options}
        lines = "\n".join(f"{name} = {_toml(value)}" for name, value in values.items())
        text = CONFIG.format(options=lines)
        if upstream and action != "replay":
            text += ROUTE.format(url=json.dumps(upstream))
        (root / "addons.toml").write_text(text, encoding="utf-8")
        self._log = root / "gateway.log"
        self._process = self._start(root)
        self.url = self._ready()

    def _start(self, root: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tidegate.cli.main", "up", "--json"]
        command += ["--config", str(root / "addons.toml"), "--state", str(root / "state")]
        env = {k: v for k, v in os.environ.items() if not k.startswith("TIDEGATE_")}
        with self._log.open("wb") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=env,
                text=True, start_new_session=True,
            )  # fmt: skip

    def _ready(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("event") == "ready":
                return str(event["gateway"][0])
        said = self._log.read_text(encoding="utf-8", errors="replace")
        self._end()
        raise CassetteError(f"the gateway did not start:\n{said[-4000:]}")

    def misses(self) -> str:
        """What the gateway has said of requests that have no cassette, and what is nearest."""
        said = self._log.read_text(encoding="utf-8", errors="replace")
        return "".join(_MISS.findall(said))

    def close(self) -> set[str]:
        """End the gateway; the names of the cassettes that were played or recorded."""
        self._process.terminate()
        try:
            self._process.wait(STOP)
        except subprocess.TimeoutExpired:
            pass
        used = Path(self._state.name) / "state/addons/record-cassette/used.txt"
        names = set(used.read_text(encoding="utf-8").splitlines()) if used.exists() else set()
        self._end()
        return names

    def _end(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._state.cleanup()


class Cassettes:
    """What the fixture gives: call it with an upstream's URL, it gives the base URL to use.

    Options are those of the addon `record-cassette`, such as `speed=1.0`.
    """

    def __init__(self, folder: Path, action: str, unused: list[Path]) -> None:
        self.folder = folder
        self.action = action
        self._unused = unused
        self._stack = ExitStack()
        self._decks: list[Deck] = []
        self._used: dict[Path, set[str]] = {}

    def __call__(self, upstream: str | None = None, *, name: str = "", **options: Any) -> str:
        """Start a gateway; `name` parts the cassettes of several upstreams of one test."""
        folder = self.folder / name if name else self.folder
        deck = Deck(folder, upstream, self.action, **options)
        self._decks.append(deck)
        self._stack.callback(self._ended, deck)
        return deck.url

    def misses(self) -> str:
        """The requests so far that have no cassette, each with the nearest and what differs."""
        return "".join(deck.misses() for deck in self._decks)

    def _ended(self, deck: Deck) -> None:
        self._used.setdefault(deck.folder, set()).update(deck.close())

    def close(self) -> None:
        """End the gateways; note the cassettes that no one asked for."""
        self._stack.close()
        if self.action not in ("replay", "record-missing"):
            return
        for folder, used in self._used.items():
            files = sorted(folder.rglob("*.cassette"))
            self._unused += [f for f in files if f.relative_to(folder).as_posix() not in used]


def folder_for(test_file: Path, test: str) -> Path:
    """Where a test's cassettes lie."""
    return test_file.parent / "cassettes" / test_file.stem / re.sub(r"[^\w.-]+", "-", test)


def opened(test_file: Path, test: str, unused: list[Path]) -> Iterator[Cassettes]:
    """The body of the fixture."""
    cassettes = Cassettes(folder_for(test_file, test), action_of(os.environ.get(VARIABLE)), unused)
    try:
        yield cassettes
    finally:
        cassettes.close()


def _toml(value: Any) -> str:
    """A TOML value: JSON is one, but for tables."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }"
    return json.dumps(value)
