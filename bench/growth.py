"""Cost per request as a node grows: routes, keys, workers.

    uv run python bench/growth.py [--seconds 2] [--rounds 5] [--json FILE]

Nodes with 1 and 10,000 routes, and with 10 and 100,000 keys, take turns with the same load: POST
of a chat completion over 32 connections, auth-key, limit-rate, route-static and log-access on.
Target: 10 % more CPU per request at most. Then one worker and two: requests per second, and how
much of the machine was idle under one, since a second worker can only use what is. Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any, Final

import rig
from lane_cpu import REPLY, WEB, free_port, nginx
from rich.console import Console
from rich.table import Table

ROUTES: Final = (1, 10_000)
KEYS: Final = (10, 100_000)
TARGET: Final = 1.1
SCALE: Final = 1.8
CONNECTIONS: Final = 32
PATH: Final = "/v1/chat/completions"


def routed(web: int, count: int) -> str:
    """A node whose requests match one route among `count`."""
    more = "".join(
        f'  {{ path = "/t{n}/v1/chat/completions", upstream = "http://127.0.0.1:{web}" }},\n'
        for n in range(count - 1)
    )
    return rig.policies() + rig.routes(web, web, more) + rig.LOG


def keyed(web: int, count: int) -> str:
    """A node whose callers have one key among `count`."""
    keys = [f'{{ name = "bench", key = "{rig.KEY}" }}']
    keys += [f'{{ name = "k{n}", key = "sk-other-{n:032d}" }}' for n in range(count - 1)]
    return rig.policies(",\n".join(keys)) + rig.routes(web, web) + rig.LOG


def load(root: Path, node: rig.Node, seconds: int) -> rig.Sample:
    sample = rig.run_wrk(root, node.port, PATH, connections=CONNECTIONS, seconds=seconds, post=True)
    if sample.errors:
        raise SystemExit(f"the load failed: {sample.errors}")
    return sample


def idle() -> tuple[float, float]:
    """Idle and total CPU seconds of the machine so far."""
    ticks = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    hertz = os.sysconf("SC_CLK_TCK")
    return (ticks[3] + ticks[4]) / hertz, sum(ticks) / hertz


def compare(root: Path, configs: dict[str, str], options: argparse.Namespace) -> dict[str, Any]:
    """µs of CPU per request of each node, in turns, and the ratio of last to first."""
    found: dict[str, list[float]] = {name: [] for name in configs}
    memory: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        nodes = {
            name: stack.enter_context(rig.node(root / name.replace(" ", "-"), config))
            for name, config in configs.items()
        }
        for name, node in nodes.items():
            load(root, node, 1)
            memory[name] = round(rig.rss(node.workers[0]) / 2**20, 1)
        for turn in range(options.rounds):
            order = list(nodes.items())
            for name, node in order if turn % 2 else order[::-1]:
                before = rig.cpu_seconds(node.pid)
                sample = load(root, node, options.seconds)
                found[name].append((rig.cpu_seconds(node.pid) - before) / sample.count * 1e6)
    first, last = found.values()
    ratios = [b / a for a, b in zip(first, last, strict=True)]
    return {
        "cpu_us": {name: round(statistics.median(x), 1) for name, x in found.items()},
        "worker_rss_mib": memory,
        "ratio": round(statistics.median(ratios), 3),
        "within": statistics.median(ratios) <= TARGET,
    }


def scale(root: Path, web: int, options: argparse.Namespace) -> dict[str, Any]:
    """One worker and two, in turns."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    costs: dict[int, list[float]] = {1: [], 2: []}
    shares: list[float] = []
    with contextlib.ExitStack() as stack:
        nodes = {
            count: stack.enter_context(
                rig.node(root / f"workers-{count}", routed(web, 1), workers=count)
            )
            for count in rates
        }
        for node in nodes.values():
            load(root, node, 1)
        for _ in range(options.rounds):
            for count, node in nodes.items():
                used, (idle_before, all_before) = rig.cpu_seconds(node.pid), idle()
                sample = load(root, node, options.seconds)
                idle_after, all_after = idle()
                costs[count].append((rig.cpu_seconds(node.pid) - used) / sample.count * 1e6)
                rates[count].append(sample.count / sample.seconds)
                if count == 1:
                    shares.append((idle_after - idle_before) / (all_after - all_before))
    cores = os.cpu_count() or 1
    ratio = statistics.median(b / a for a, b in zip(rates[1], rates[2], strict=True))
    spare = statistics.median(shares) * cores
    return {
        "per_second": {n: round(statistics.median(x)) for n, x in rates.items()},
        "cpu_us": {n: round(statistics.median(x), 1) for n, x in costs.items()},
        "ratio": round(ratio, 2),
        "cores": cores,
        "idle_cores_with_one_worker": round(spare, 2),
        "room": spare >= 1.0,
    }


def tell(console: Console, data: dict[str, Any]) -> None:
    """The tables."""
    table = Table(title="CPU per POST of a chat completion", title_justify="left")
    for column in ("node", "CPU µs", "worker MiB", "ratio"):
        table.add_column(column, justify="left" if column == "node" else "right")
    for what in ("routes", "keys"):
        for name, cost in data[what]["cpu_us"].items():
            table.add_row(name, f"{cost:.1f}", f"{data[what]['worker_rss_mib'][name]:.0f}", "")
        verdict = "within" if data[what]["within"] else "over"
        table.add_row("", "", "", f"{data[what]['ratio']:.3f} ({verdict} {TARGET})")
    console.print(table)
    workers = data["workers"]
    for count, rate in workers["per_second"].items():
        console.print(
            f"{count} worker(s): {rate:,} per s, {workers['cpu_us'][count]} µs of CPU each"
        )
    console.print(f"two workers carry {workers['ratio']} x what one does (target {SCALE})")
    if not workers["room"]:
        spare = workers["idle_cores_with_one_worker"]
        console.print(
            f"but under one worker only {spare} of {workers['cores']} cores were idle beside the"
            " load and the upstream: no room for a second"
        )


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        root, web = Path(name), free_port()
        locations = WEB.format(get="x" * 1024, reply=REPLY)
        stack.enter_context(nginx(root, web, web, web, locations, "off"))
        data: dict[str, Any] = {
            "routes": compare(root, {f"{n:,} routes": routed(web, n) for n in ROUTES}, options),
            "keys": compare(root, {f"{n:,} keys": keyed(web, n) for n in KEYS}, options),
            "workers": scale(root, web, options),
        }
    tell(Console(width=110), data)
    if options.json:
        options.json.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
