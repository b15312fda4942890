"""`tidegate whatif`: two configurations over the same recordings, without network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tidegate.api.cassette import dumps
from tidegate.api.recording import Answer, Chunk, Recording
from tidegate.api.types import Principal
from tidegate.cli.whatif import Options, Report, condition
from tidegate.cli.whatif import whatif as whatif_of
from tidegate.runtime.problems import ConfigError
from tidegate.testing import install_plugin

POLICY = """
import time
from mitmproxy import http
from tidegate.api import (AddonConfig, Body, Denial, Plugin, Principal, SseEvent, hook,
                          upstream_from_url)

class Config(AddonConfig):
    only: str = ""
    closed_at: int = 24
    coin: float = 0.0
    mask: str = ""
    team: str = ""
    to: str = "http://127.0.0.1:9"
    remember: bool = False
    crash: bool = False
    burst: int = 1000

class Policy(Plugin[Config]):
    Config = Config

    def __init__(self, config, context):
        super().__init__(config, context)
        self.seen = {}
        self.times = []

    @hook
    async def authenticate(self, exchange):
        key = exchange.consume_header("x-key")
        return Denial(401, "bad_key", "no") if key is None else Principal(key)

    @hook
    def authorize(self, exchange):
        config = self.config
        if config.only and exchange.principal.name != config.only:
            return Denial(403, "not_you", "no")
        if time.gmtime(exchange.now).tm_hour >= config.closed_at:
            return Denial(403, "closed", "no")
        if exchange.random.random() < config.coin:
            return Denial(403, "bad_luck", "no")
        self.times = [t for t in self.times if exchange.started - t < 60] + [exchange.started]
        if len(self.times) > config.burst:
            return Denial(429, "too_many", "no")

    @hook(needs=lambda config: Body(request=True) if config.mask else None)
    def transform_request(self, exchange):
        if self.config.crash:
            raise RuntimeError("on purpose")
        if self.config.mask:
            word = self.config.mask.encode()
            exchange.request.content = exchange.request.content.replace(word, b"***")
        if self.config.team:
            exchange.request.headers["x-team"] = self.config.team

    @hook
    def cache_lookup(self, exchange):
        if self.config.remember and exchange.path in self.seen:
            return http.Response.make(200, self.seen[exchange.path])

    @hook
    def cache_store(self, exchange):
        policy = self
        class Sink:
            body = b""
            def write(self, chunk):
                self.body += chunk
            def close(self, *, complete, trailers):
                policy.seen[exchange.path] = self.body
        return Sink()

    @hook
    def route(self, exchange):
        return upstream_from_url(self.config.to)

    @hook
    def transform_event(self, exchange, event):
        if self.config.mask and self.config.mask in event.data:
            event.data = event.data.replace(self.config.mask, "***")

    @hook
    def log(self, exchange):
        raise SystemExit("nothing is logged: nothing has happened")
"""
HOUR = 3600.0
JSON = (("content-type", "application/json"),)
type WhatIf = Callable[..., dict[str, Any]]


def recorded(number: int, caller: str | None = "ann", hour: float = 10, **more: Any) -> Recording:
    events = tuple(Chunk(0.1, f"data: {word}\n\n".encode()) for word in ("my", "secret", "name"))
    streamed = Answer(200, "OK", (("content-type", "text/event-stream"),), chunks=events)
    values: dict[str, Any] = {
        "method": "POST",
        "url": f"http://api.test/x/{number}",
        "headers": JSON,
        "body": b'{"a":"secret"}',
        "answer": streamed,
        "id": f"r{number}",
        "now": hour * HOUR + number,
        "seed": number,
        "principal": Principal(caller) if caller else None,
    }
    return Recording(**{**values, **more})


@pytest.fixture
def whatif(tmp_path: Path) -> WhatIf:
    env = {**os.environ, **install_plugin(tmp_path / "site", "policy", POLICY)}
    env = {k: v for k, v in env.items() if not k.startswith("TIDEGATE_")}

    def run(
        recordings: list[Recording], old: str, new: str, *flags: str, status: int = 0
    ) -> dict[str, Any]:
        folder = tmp_path / "recordings"
        folder.mkdir(exist_ok=True)
        for number, one in enumerate(recordings):
            (folder / f"{number:03}.cassette").write_text(dumps(one))
        for name, options in (("old", old), ("new", new)):
            (tmp_path / f"{name}.toml").write_text(f'[[addon]]\nuse = "policy"\n{options}\n')
        argv = ["whatif", "--old", "old.toml", "--new", "new.toml", "--json", *flags, str(folder)]
        done = subprocess.run(
            [sys.executable, "-m", "tidegate.cli.main", *argv], cwd=tmp_path, env=env,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return run


def rows(report: dict[str, Any]) -> list[tuple[str, str, str, int, list[str]]]:
    return [tuple(row.values()) for row in report["rows"]]


def test_the_same_configuration_changes_nothing(whatif: WhatIf) -> None:
    report = whatif([recorded(n) for n in range(3)], 'mask = "secret"', 'mask = "secret"')
    assert (report["exchanges"], report["changed"], report["rows"]) == (3, 0, [])


def test_who_would_be_denied_and_let_in_is_told_by_addon_and_rule(whatif: WhatIf) -> None:
    traffic = [recorded(1, "ann"), recorded(2, "bob"), recorded(3, "bob")]
    report = whatif(traffic, "", 'only = "ann"')
    assert rows(report) == [("denied", "policy", "not_you", 2, ["r2", "r3"])]
    report = whatif(traffic, 'only = "ann"', 'only = "bob"', "--examples", "1")
    assert rows(report) == [
        ("denied", "policy", "not_you", 1, ["r1"]),
        ("allowed", "policy", "not_you", 2, ["r2"]),
    ]


def test_clock_and_chance_are_those_of_the_recording(whatif: WhatIf) -> None:
    traffic = [recorded(n, hour=10 + 10 * (n % 2)) for n in range(10)]
    report = whatif(traffic, "", "closed_at = 18")
    assert report["counts"]["denied"] == 5
    told = whatif(traffic, "", "coin = 0.5")
    assert 0 < told["counts"]["denied"] < 10
    assert whatif(traffic, "", "coin = 0.5")["rows"] == told["rows"]
    assert whatif(traffic, "coin = 0.5", "coin = 0.5")["changed"] == 0


def test_time_passes_as_it_did(whatif: WhatIf) -> None:
    slow = [recorded(n, now=1000.0 + 30 * n) for n in range(6)]
    assert whatif(slow, "", "burst = 2")["changed"] == 0
    quick = [recorded(n, now=1000.0 + n) for n in range(6)]
    assert rows(whatif(quick, "", "burst = 2"))[0][:4] == ("denied", "policy", "too_many", 4)


def test_what_is_masked_on_the_way_up_and_in_streams(whatif: WhatIf) -> None:
    report = whatif([recorded(1)], "", 'mask = "secret"')
    assert rows(report) == [
        ("request_changed", "policy", "body", 1, ["r1"]),
        ("response_changed", "policy", "events", 1, ["r1"]),
    ]
    report = whatif([recorded(1)], 'team = "red"', 'team = "blue"')
    assert rows(report) == [("request_changed", "policy", "x-team", 1, ["r1"])]
    report = whatif([recorded(1)], 'team = "red"', "")
    assert rows(report) == [("request_changed", "policy", "no longer x-team", 1, ["r1"])]


def test_routes_and_caches(whatif: WhatIf) -> None:
    report = whatif([recorded(1)], "", 'to = "http://127.0.0.1:10"')
    assert rows(report) == [("routed", "", "127.0.0.1:9 → 127.0.0.1:10", 1, ["r1"])]
    twice = [recorded(1), recorded(1, id="again", now=11 * HOUR)]
    report = whatif(twice, "", "remember = true")
    assert rows(report) == [("cache_gained", "policy", "", 1, ["again"])]
    assert whatif(twice, "remember = true", "")["counts"]["cache_lost"] == 1


def test_a_policy_that_would_crash_is_a_failure(whatif: WhatIf) -> None:
    report = whatif([recorded(1)], "", "crash = true", "--fail-on", "failed>0", status=1)
    assert rows(report) == [("failed", "policy", "plugin_failed", 1, ["r1"])]
    assert report["failed"] == ["failed>0"]


def test_who_called_may_be_said_where_a_recording_does_not(whatif: WhatIf) -> None:
    traffic = [recorded(1, None)]
    report = whatif(traffic, "", 'only = "ann"')
    assert report["changed"] == 0
    report = whatif(traffic, "", 'only = "ann"', "--principal", "team/bob")
    assert report["counts"]["denied"] == 1
    keyed = [recorded(1, None, headers=(("x-key", "bob"),))]
    assert whatif(keyed, "", 'only = "ann"')["counts"]["denied"] == 1


def test_it_says_what_each_addon_costs(whatif: WhatIf) -> None:
    report = whatif([recorded(1)], "", "")
    assert report["microseconds"]["policy"]["old"] > 0
    assert report["microseconds"]["policy"]["new"] > 0


def test_a_gate_without_a_recording_does_not_open(tmp_path: Path) -> None:
    file = tmp_path / "addons.toml"
    file.write_text("")
    (tmp_path / "empty").mkdir()
    options = Options(old=file, new=file, recordings=(tmp_path / "empty",))
    with pytest.raises(ConfigError, match=r"no recorded exchange in .*empty"):
        whatif_of(options, ["denied>0"], as_json=False)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("denied>0", True), ("denied>2", False), ("denied>=2", True), ("denied>20%", False),
        ("denied >= 20%", True), ("changed>25%", True), ("changed>30%", False),
        ("cache_lost>0", False), ("added_us>5", False),
    ],
)  # fmt: skip
def test_conditions_count_or_take_shares(text: str, holds: bool) -> None:
    report = Report(exchanges=10, changed=3)
    report.counts["denied"] = 2
    assert condition(text).holds(report) is holds


@pytest.mark.parametrize("text", ["denied", "denied<1", "denyed>0", "added_us>1%", ""])
def test_a_condition_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        condition(text)
