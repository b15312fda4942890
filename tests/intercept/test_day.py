"""A day in staging, played in minutes: many clients, many protocols, addons that come and go.

    TIDEGATE_DAY=400 TIDEGATE_DAY_JSON=bench/results/day.json \
        uv run pytest tests/intercept/test_day.py -n 0

plays 400 exchanges for each of 20 clients; without the variable there are 12.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .network import CLEAN, LISTED, OPENAI, OTHER, Network, Node, needs_network

pytestmark = [needs_network, pytest.mark.xdist_group("intercept-day"), pytest.mark.timeout(1800)]

COUNT = int(os.environ.get("TIDEGATE_DAY", "12"))
REPORT = os.environ.get("TIDEGATE_DAY_JSON")
CLIENTS = Path(__file__).parent / "clients"
HELLO = "hello from the origin"


def curl(name: str, host: str, *options: str, scheme: str = "https") -> list[str]:
    told = '{"status": %{http_code}, "text": "", "transformed": null}\n'
    return ["curl", "-sS", *options, "-o", "/dev/null", "-w", told,
            f"{scheme}://{host}/day/{name}/[0-{COUNT - 1}]"]  # fmt: skip


def script(name: str, kind: str) -> list[str]:
    host = OPENAI if kind == "openai" else LISTED
    return [sys.executable, str(CLIENTS / "day.py"), kind, host, name, str(COUNT)]


def clients() -> dict[str, list[str]]:
    """20 of them that are to be intercepted."""
    made = {
        "curl-h1": curl("curl-h1", LISTED, "--http1.1"),
        "curl-h2": curl("curl-h2", LISTED, "--http2"),
        "curl-v6": curl("curl-v6", LISTED, "-6", "--http2"),
        "curl-parallel": curl("curl-parallel", LISTED, "--http2", "-Z", "--parallel-max", "8"),
        "curl-plain": curl("curl-plain", LISTED, scheme="http"),
    }
    kinds = ["httpx"] * 3 + ["httpx-h2"] * 3 + ["requests"] * 3 + ["openai"] * 3
    for number, kind in enumerate([*kinds, "websocket", "websocket"]):
        made[f"{kind}-{number}"] = script(f"{kind}-{number}", kind)
    if shutil.which("node"):
        made["node"] = ["node", str(CLIENTS / "day.mjs"), LISTED, "node", str(COUNT)]
    return made


def start(network: Network, argv: list[str], env: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        network.within(network.client, *argv), env={**CLEAN, **env}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def switch_until(node: Node, running: Callable[[], bool]) -> int:
    """Edit addons.toml again and again: an addon is off, on, different; how often."""
    file = node.folder / "addons.toml"
    text = file.read_text()
    texts = (
        text.replace("x-transformed = ", "x-transformed-later = "),
        text.replace('use = "transform-headers"', 'use = "transform-headers"\nmode = "off"'),
        text,
    )
    times = 0
    while running():
        file.write_text(texts[times % 3])
        times += 1
        time.sleep(1)
    file.write_text(text)
    return times


def told_by(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return [json.loads(line) for line in out.splitlines()]


def test_a_day_in_staging(network: Network, up: Callable[..., Node]) -> None:
    node = up()
    node.redirect(80, 443)
    began = time.monotonic()
    processes = {name: start(network, argv, node.trust) for name, argv in clients().items()}
    outside = {
        name: start(network, curl(name, OTHER, option), {"CURL_CA_BUNDLE": str(network.ca)})
        for name, option in (("other-1", "--http1.1"), ("other-2", "-6"))
    }
    everyone = {**processes, **outside}
    switched = switch_until(
        node, lambda: any(process.poll() is None for process in everyone.values())
    )
    seconds = time.monotonic() - began

    told = {name: told_by(process) for name, process in processes.items()}
    assert {name: Counter(one["status"] for one in lines) for name, lines in told.items()} == {
        name: {200: COUNT} for name in processes
    }
    for process in outside.values():  # verified against the origin's own CA
        assert [one["status"] for one in told_by(process)] == [200] * COUNT
    seen = network.seen("/day/")
    asked = Counter(one["path"] for one in seen)
    assert asked.keys() == expected(everyone)
    assert all(times == 1 for times in asked.values())
    untouched = [one for one in seen if one["path"].startswith("/day/other")]
    assert not [one for one in untouched if "x-caller" in dict(one["fields"])]
    assert {line["host"] for line in node.logged} <= {LISTED, OPENAI}
    exchanges = sum(map(len, told.values()))
    assert switched >= 3
    assert {one["transformed"] for lines in told.values() for one in lines} == {"yes", None}
    if REPORT:
        Path(REPORT).write_text(json.dumps({
            "clients": len(processes), "exchanges": exchanges, "lost": 0, "failed": 0,
            "reloads": switched, "requests_to_other_hosts_touched": 0,
            "requests_to_other_hosts": len(untouched), "seconds": round(seconds, 1),
        }, indent=1) + "\n")  # fmt: skip


def expected(names: Any) -> set[str]:
    """The paths that the origin must have been asked for, each once."""
    paths = set()
    for name in names:
        if name.startswith("openai"):
            continue  # all to one path
        count = 1 if name.startswith("websocket") else COUNT
        paths |= {f"/day/{name}/{number}" for number in range(count)}
    return paths
