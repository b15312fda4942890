"""CPU per exchange of the lane beside nginx, in one run, in rounds that take turns.

    uv run python bench/lane_cpu.py [--rounds 3] [--seconds 3] [--connections 32] [--json FILE]
        [--also PYTHON]

Each target is a process of its own in front of the same upstream (nginx; for event streams, a
small server here). wrk makes the load; the CPU time of the target is read from /proc. The lane
runs bare (one route) and with auth-key, limit-rate, route-static and log-access.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

KEY = "bench-key-0123456789abcdef"
EVENTS = 50
PAUSE = 0.002
"""Seconds between the events of a stream: each comes alone."""
CHAT = json.dumps(
    {
        "model": "gpt-4o-mini",
        "temperature": 0.2,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant." + " Be brief." * 20},
            {"role": "user", "content": "What is a gateway, and why is it here? " * 8},
        ],
    }
)
REPLY = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x" * 780}}],
        "usage": {"prompt_tokens": 150, "completion_tokens": 200, "total_tokens": 350},
    }
)
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Load:
    """What wrk is told to do."""

    name: str
    path: str
    connections: int
    post: bool = False


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


# -- servers ------------------------------------------------------------------------------------

NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
events {{ worker_connections 4096; }}
http {{
  access_log {log}; default_type application/json; keepalive_requests 100000000;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; client_max_body_size 64m;
  upstream web {{ server 127.0.0.1:{web}; keepalive 256; keepalive_requests 100000000; }}
  upstream sse {{ server 127.0.0.1:{sse}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} reuseport;
    {locations}
  }}
}}
"""
WEB = "location /get {{ return 200 '{get}'; }} location /v1/ {{ return 200 '{reply}'; }}"
PROXY = """
    proxy_http_version 1.1; proxy_set_header Connection ''; proxy_buffering off;
    proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Request-Id $request_id;
    location / { proxy_pass http://web; }
    location /sse { proxy_pass http://sse; }
"""


@contextlib.contextmanager
def process(argv: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process that listens on `port`; ended at the end."""
    child = subprocess.Popen(argv)
    try:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if child.poll() is not None:
                raise SystemExit(f"{argv[0]} ended with {child.returncode}")
            time.sleep(0.05)
        yield child
    finally:
        child.terminate()
        child.wait(10)


@contextlib.contextmanager
def nginx(root: Path, port: int, web: int, sse: int, locations: str, log: str) -> Iterator[int]:
    """An nginx with one worker; yields the pid of the worker."""
    folder = root / f"nginx-{port}"
    folder.mkdir()
    file = folder / "nginx.conf"
    file.write_text(
        NGINX.format(folder=folder, port=port, web=web, sse=sse, locations=locations, log=log)
    )
    binary = shutil.which("nginx") or "/usr/sbin/nginx"
    argv = [binary, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(file)]
    with process(argv, port) as child:
        yield int(Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()[0])


class EventServer(asyncio.Protocol):
    """Answers each request with an event stream: one write per event, `PAUSE` apart."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.left = 0

    def data_received(self, _: bytes) -> None:
        self.left = EVENTS
        self.transport.write(  # type: ignore[attr-defined]
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        self.next()

    def next(self) -> None:
        if self.transport.is_closing():
            return
        self.left -= 1
        event = b'data: {"choices":[{"index":0,"delta":{"content":"token %03d"}}]}\n\n' % self.left
        end = b"" if self.left else b"0\r\n\r\n"
        self.transport.write(b"%x\r\n%b\r\n%b" % (len(event), event, end))  # type: ignore[attr-defined]
        if self.left:
            asyncio.get_running_loop().call_later(PAUSE, self.next)


async def serve_events(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(EventServer, "127.0.0.1", port)
    await server.serve_forever()


async def serve_lane(config: Path, port: int) -> None:
    """A lane in this process, as a worker of the product would run it."""
    from tidegate.cli.worker import settle
    from tidegate.lane import Lane
    from tidegate.runtime.lifecycle import Host, Runtime
    from tidegate.runtime.settings import load

    settings = load(config)
    runtime = Runtime(Host(config.parent / f"state-{port}"))
    runtime.commit(await runtime.prepare(settings))
    lane = Lane(runtime, settings)
    listener = settings.gateway.listen[0]
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: lane.protocol(listener), "127.0.0.1", port)
    settle()
    await server.serve_forever()


def lane_config(folder: Path, name: str, web: int, sse: int, *, policies: bool) -> Path:
    policy = f"""
[[addon]]
use = "auth-key"
form = "any"
keys = [{{ name = "bench", key = "{KEY}" }}]
[[addon]]
use = "limit-rate"
rate = "1000000/s"
"""
    log = '[[addon]]\nuse = "log-access"\n'
    routes = f"""
[[addon]]
use = "route-static"
routes = [
  {{ path = "/", upstream = "http://127.0.0.1:{web}" }},
  {{ path = "/sse", upstream = "http://127.0.0.1:{sse}" }},
]
"""
    file = folder / f"{name}.toml"
    file.write_text((policy if policies else "") + routes + (log if policies else ""))
    return file


# -- measuring ----------------------------------------------------------------------------------


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def run_wrk(folder: Path, load: Load, port: int, seconds: int) -> tuple[int, str]:
    script = folder / "wrk.lua"
    lines = [f'wrk.headers["Authorization"] = "Bearer {KEY}"']
    if load.post:
        lines += ['wrk.method = "POST"', f"wrk.body = [==[{CHAT}]==]"]
        lines += ['wrk.headers["Content-Type"] = "application/json"']
    script.write_text("\n".join(lines))
    out = subprocess.run(
        ["wrk", "-t1", f"-c{load.connections}", f"-d{seconds}s", "-s", str(script),
         f"http://127.0.0.1:{port}{load.path}"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    found = re.search(r"(\d+) requests in", out)
    errors = re.search(r"(Non-2xx.*|Socket errors.*)", out)
    return int(found[1]) if found else 0, errors[1] if errors else ""


def measure(folder: Path, load: Load, pid: int, port: int, seconds: int) -> tuple[float, float]:
    """(µs of CPU per exchange, exchanges per second)."""
    before = cpu_seconds(pid)
    count, errors = run_wrk(folder, load, port, seconds)
    if errors:
        print(f"  {load.name}: {errors}", file=sys.stderr)
    return (cpu_seconds(pid) - before) / max(count, 1) * 1e6, count / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--also", metavar="PYTHON", help="serve the lane by this interpreter as well, beside"
    )
    parser.add_argument("--serve", nargs=2, metavar=("WHAT", "PORT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        import uvloop

        what, port = options.serve
        serving = serve_events(int(port)) if what == "events" else serve_lane(Path(what), int(port))
        uvloop.run(serving)
        return
    path = os.environ["PATH"] + ":/usr/sbin"
    missing = [name for name in ("nginx", "wrk") if not shutil.which(name, path=path)]
    if missing:
        raise SystemExit(f"needs {' and '.join(missing)}: apt-get install {' '.join(missing)}")
    bench(options)


def bench(options: argparse.Namespace) -> None:
    loads = [
        Load("GET 1 KiB", "/get", options.connections),
        Load("POST chat completion", "/v1/chat/completions", options.connections, post=True),
        Load(f"SSE of {EVENTS} events", "/sse", min(16, options.connections)),
    ]
    me = [sys.executable, __file__, "--serve"]
    lanes = {"lane": me}
    if options.also:
        lanes[f"{Path(options.also).name} lane"] = [options.also, *me[1:]]
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        root = Path(name)
        web, sse, proxy = (free_port() for _ in range(3))
        locations = WEB.format(get="x" * 1024, reply=REPLY)
        stack.enter_context(nginx(root, web, web, sse, locations, "off"))
        stack.enter_context(process([*me, "events", str(sse)], sse))
        worker = stack.enter_context(nginx(root, proxy, web, sse, PROXY, str(root / "access")))
        targets = {"nginx": (worker, proxy)}
        for (label, command), addons in product(lanes.items(), ("bare", "4 addons")):
            port = free_port()
            file = lane_config(root, f"lane-{port}", web, sse, policies=addons != "bare")
            child = stack.enter_context(process([*command, str(file), str(port)], port))
            targets[f"{label}, {addons}"] = (child.pid, port)
        results: dict[str, dict[str, list[tuple[float, float]]]] = {}
        for _ in range(options.rounds):
            for load in loads:
                for label, (pid, port) in targets.items():
                    found = measure(root, load, pid, port, options.seconds)
                    results.setdefault(load.name, {}).setdefault(label, []).append(found)
    report(results, options)


def report(
    results: dict[str, dict[str, list[tuple[float, float]]]], options: argparse.Namespace
) -> None:
    print(
        f"{'load':24} {'target':18} {'CPU µs/exchange':>16} {'least':>8} {'of nginx':>9} "
        f"{'per second':>11}"
    )
    data: dict[str, dict[str, dict[str, float]]] = {}
    for load, targets in results.items():
        base = statistics.median(cost for cost, _ in targets["nginx"])
        for label, found in targets.items():
            cost = statistics.median(cost for cost, _ in found)
            least = min(cost for cost, _ in found)
            rate = statistics.median(rate for _, rate in found)
            print(
                f"{load:24} {label:18} {cost:16.1f} {least:8.1f} {cost / base:8.1f}x {rate:11.0f}"
            )
            data.setdefault(load, {})[label] = {
                "cpu_us": round(cost, 1),
                "cpu_us_least": round(least, 1),
                "rate": round(rate),
            }
    machine = {
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "python_optimised": "--enable-optimizations"
        in (sysconfig.get_config_var("CONFIG_ARGS") or ""),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "connections": options.connections,
    }
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "loads": data}, indent=2) + "\n")


if __name__ == "__main__":
    main()
