"""Cache hits per CPU-second: the lane and the engine beside nginx and Varnish, in one run.

    uv run python bench/cache_peers.py [--rounds 3] [--seconds 2] [--connections 16] [--json FILE]

Each target is one worker in front of the same small origin and is warmed before it is measured.
wrk makes the load; the CPU time of the target is read from /proc. Bodies: 1 KiB and 16 KiB, text
that shrinks and noise that does not. `file`: the lane without a memory tier, so that each hit is
read from the file. Rounds take turns, and the least of them counts: what a busy machine adds is not
the target's. Peers that are not installed are left out: apt-get install nginx varnish wrk.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import re
import shutil
import socket
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

from tidegate.testing import Gateway, ScriptedUpstream
from tidegate.testing.script import Action, Received, body

TICKS = os.sysconf("SC_CLK_TCK")
BODIES = {
    "1k-text": b'{"a": "b"}\n' * 94,
    "1k-noise": random.Random(1).randbytes(1024),
    "16k-text": b'{"a": "b"}\n' * 1490,
    "16k-noise": random.Random(2).randbytes(16384),
}
FRESH = {"Cache-Control": "public, max-age=100000", "Content-Type": "application/json"}
TIDEGATE = """
[gateway]
workers = 1
anonymous = true
[[addon]]
use = "cache-http"
memory = "{memory}"
[[addon]]
use = "route-static"
routes = [{{ path = "/", upstream = "{origin}" }}]
"""
NGINX = """
{user}worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_temp_path {folder}/b;
  proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;
  scgi_temp_path {folder}/s; proxy_cache_path {folder}/cache keys_zone=z:10m inactive=1d;
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass {origin}; proxy_cache z; add_header X-Cache $upstream_cache_status; }}
  }}
}}
"""


def origin(request: Received) -> tuple[Action, ...]:
    """A body by its name."""
    return body(BODIES[request.target.strip("/")], headers=FRESH)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu(pid: int) -> float:
    """CPU seconds that a process has used, all its threads."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / TICKS


@contextlib.asynccontextmanager
async def tidegate(
    folder: Path, upstream: str, carrier: str, memory: str
) -> AsyncIterator[tuple[str, int]]:
    config = TIDEGATE.format(origin=upstream, memory=memory)
    async with Gateway(folder, config, carrier=carrier) as gateway:
        yield gateway.url, (await gateway.status())["workers"][0]["pid"]


@contextlib.asynccontextmanager
async def peer(argv: list[str], port: int, *, child: bool) -> AsyncIterator[tuple[str, int]]:
    null = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*argv, stdout=null, stderr=null)
    try:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            await asyncio.sleep(0.1)
        yield f"http://127.0.0.1:{port}", children(process.pid)[0] if child else process.pid
    finally:
        process.terminate()
        await process.wait()


def targets(
    root: Path, upstream: str
) -> dict[str, contextlib.AbstractAsyncContextManager[tuple[str, int]]]:
    found = {
        "lane": tidegate(root / "lane", upstream, "lane", "64MiB"),
        "lane file": tidegate(root / "file", upstream, "lane", "0B"),
        "engine": tidegate(root / "engine", upstream, "engine", "64MiB"),
    }
    nginx, varnish = shutil.which("nginx"), shutil.which("varnishd")
    if nginx:
        port, folder = free_port(), root / "nginx"
        folder.mkdir()
        file = folder / "nginx.conf"
        user = "user root; " if os.geteuid() == 0 else ""  # the folder is ours alone
        file.write_text(NGINX.format(folder=folder, port=port, origin=upstream, user=user))
        argv = [nginx, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(file)]
        found["nginx"] = peer(argv, port, child=True)
    if varnish:
        port = free_port()
        backend = upstream.removeprefix("http://")
        argv = [varnish, "-F", "-a", f"127.0.0.1:{port}", "-b", backend, "-n", str(root / "v")]
        found["varnish"] = peer(argv, port, child=True)
    return found


async def measure(url: str, pid: int, seconds: float, connections: int) -> tuple[float, float]:
    """(µs of CPU per hit, hits per second)."""
    before = cpu(pid)
    wrk = await asyncio.create_subprocess_exec(
        "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", url, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await wrk.communicate()
    used = cpu(pid) - before
    count = int(re.search(rb"(\d+) requests in", out)[1])  # type: ignore[index]
    if b"Non-2xx" in out:
        raise SystemExit(f"{url}: {out.decode()}")
    return used / count * 1e6, count / seconds


def fetch(url: str) -> None:
    with urllib.request.urlopen(url) as response:
        response.read()


async def run(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    results: dict[str, dict[str, list[float]]] = {}
    async with ScriptedUpstream() as upstream, contextlib.AsyncExitStack() as stack:
        upstream.handle(origin)
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        running = {
            name: await stack.enter_async_context(target)
            for name, target in targets(root, upstream.url).items()
        }
        for url, _ in running.values():
            for name in BODIES:
                for _ in range(3):
                    await asyncio.to_thread(fetch, f"{url}/{name}")
        warm = len(upstream.requests)
        await asyncio.sleep(0.5)
        for _ in range(arguments.rounds):
            for target, (url, pid) in running.items():
                for name in BODIES:
                    spent, _ = await measure(
                        f"{url}/{name}", pid, arguments.seconds, arguments.connections
                    )
                    results.setdefault(target, {}).setdefault(name, []).append(spent)
        if len(upstream.requests) > warm + 4:
            raise SystemExit("these were not all hits")
    return {
        target: {name: round(min(spent), 1) for name, spent in rows.items()}
        for target, rows in results.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = asyncio.run(run(arguments))
    print(f"{'µs of CPU per hit':20}" + "".join(f"{name:>11}" for name in BODIES))
    for target, row in results.items():
        print(f"{target:20}" + "".join(f"{row[name]:11.1f}" for name in BODIES))
    if arguments.json:
        per_second = {
            target: {name: round(1e6 / spent) for name, spent in row.items()}
            for target, row in results.items()
        }
        report = {
            "machine": f"{os.cpu_count()} CPUs, Python {platform.python_version()}",
            "cpu_us_per_hit": results,
            "hits_per_cpu_second": per_second,
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
