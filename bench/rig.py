"""What the load benches share: upstreams, a node, CPU and memory of process trees, loads.

    python bench/rig.py events PORT     the upstream of event streams, as a process

Linux (it reads /proc). wrk makes the load of plain requests; event streams have a client here,
since wrk does not tell when each event came.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from lane_cpu import CHAT, free_port

KEY: Final = "sk-bench-0123456789abcdef0123456789"
EVENTS: Final = 50
PAUSE: Final = 0.002
"""Seconds between the events of a stream: each comes alone."""
CPUCLOCK_SCHED: Final = 2
"""With a process id, a clock of its CPU time (clock_getcpuclockid(3))."""
PAGE: Final = resource.getpagesize()
STREAM_CHAT: Final = json.dumps({**json.loads(CHAT), "stream": True})


# -- processes ----------------------------------------------------------------------------------


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """CPU that a process and all below it have used, in user and kernel.

    What /proc/PID/stat tells as utime + stime, to the nanosecond instead of to the tick.
    """
    total = 0
    for member in tree(pid):
        with contextlib.suppress(OSError):
            total += time.clock_gettime_ns(~member << 3 | CPUCLOCK_SCHED)
    return total / 1e9


def settle(*pids: int, seconds: float = 15.0) -> None:
    """Wait until processes are at rest: what a load has left behind is done, or given up."""
    until = time.monotonic() + seconds
    before = sum(map(cpu_seconds, pids))
    while time.monotonic() < until:
        time.sleep(0.1)
        now = sum(map(cpu_seconds, pids))
        if now - before < 0.01:
            return
        before = now


def rss(pid: int) -> int:
    """Bytes of one process in RAM."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def open_files(pid: int) -> int:
    """File descriptors that one process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def raise_file_limit() -> int:
    """Take as many file descriptors as may be had; how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # only root may raise the hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, 65536), max(hard, 65536)))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@contextlib.contextmanager
def process(argv: list[str], port: int, seconds: float = 20.0) -> Iterator[subprocess.Popen[bytes]]:
    """A process that listens on `port` within `seconds`; ended at the end."""
    quiet = subprocess.DEVNULL
    child = subprocess.Popen(argv, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        until = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if child.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{' '.join(argv)} does not listen; status {child.poll()}")
            time.sleep(0.05)
        yield child
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


class Node:
    """`tidegate up` in a process group of its own."""

    def __init__(self, folder: Path, config: str, *, workers: int = 1) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "addons.toml").write_text(config)
        listen = [] if "[[gateway.listen]]" in config else ["--listen", "127.0.0.1:0"]
        self._log = (folder / "node.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tidegate.cli.main", "up", "--json", "--config", "addons.toml",
             "--state", "state", *listen, "--workers", str(workers)],
            cwd=folder, stdout=subprocess.PIPE, stderr=self._log,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if b'"ready"' not in line:
            self.process.wait(10)
            raise SystemExit(f"the node did not start: {(folder / 'node.log').read_text()}")
        ready = json.loads(line)
        self.pid = self.process.pid
        self.port = int(ready["gateway"][0].rpartition(":")[2])
        self.status_url = ready["status"]

    @property
    def workers(self) -> list[int]:
        """Process ids of the workers."""
        return tree(self.pid)[1:]

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()


@contextlib.contextmanager
def node(folder: Path, config: str, *, workers: int = 1) -> Iterator[Node]:
    """A node, ended at the end."""
    running = Node(folder, config, workers=workers)
    try:
        yield running
    finally:
        running.stop()


def policies(keys: str = f'{{ name = "bench", key = "{KEY}" }}') -> str:
    """Key check and rate limit."""
    return (
        f'[[addon]]\nuse = "auth-key"\nform = "any"\nkeys = [{keys}]\n\n'
        '[[addon]]\nuse = "limit-rate"\nrate = "1000000/s"\n\n'
    )


def routes(web: int, sse: int, more: str = "") -> str:
    """Routes to the two upstreams."""
    return (
        '[[addon]]\nuse = "route-static"\nroutes = [\n'
        f'{more}  {{ path = "/", upstream = "http://127.0.0.1:{web}" }},\n'
        f'  {{ path = "/sse", upstream = "http://127.0.0.1:{sse}" }},\n]\n\n'
    )


LOG: Final = '[[addon]]\nuse = "log-access"\n'


@contextlib.contextmanager
def events_server() -> Iterator[int]:
    """The upstream of event streams; yields its port."""
    port = free_port()
    with process([sys.executable, __file__, "events", str(port)], port):
        yield port


# -- the upstream of event streams --------------------------------------------------------------


class EventStream(asyncio.Protocol):
    """Answers each request with a chat completion in `EVENTS` events, one write each."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        import httptools

        self.parser = httptools.HttpRequestParser(self)
        self.left = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.left = EVENTS
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        self.next()

    def next(self) -> None:
        if self.transport.is_closing():
            return
        self.left -= 1
        event = b"data: [DONE]\n\n"
        if self.left:
            event = (
                b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,'
                b'"model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":"tok %02d"},'
                b'"finish_reason":null}]}\n\n' % self.left
            )
        end = b"" if self.left else b"0\r\n\r\n"
        self.transport.write(b"%x\r\n%b\r\n%b" % (len(event), event, end))
        if self.left:
            asyncio.get_running_loop().call_later(PAUSE, self.next)


async def serve_events(port: int) -> None:
    """Serve event streams until ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(EventStream, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


# -- loads --------------------------------------------------------------------------------------


@dataclass
class Sample:
    """What one load found. Times in milliseconds."""

    count: int
    seconds: float
    p50: float
    p99: float
    errors: str = ""


def run_wrk(
    folder: Path,
    port: int,
    path: str,
    *,
    connections: int,
    seconds: int,
    post: bool = False,
    fresh: bool = False,
) -> Sample:
    """Plain requests, each connection its next one after its answer.

    `fresh`: each request on a connection of its own.
    """
    script = folder / "wrk.lua"
    lines = [f'wrk.headers["Authorization"] = "Bearer {KEY}"']
    if post:
        lines += ['wrk.method = "POST"', f"wrk.body = [==[{CHAT}]==]"]
        lines += ['wrk.headers["Content-Type"] = "application/json"']
    if fresh:
        lines += ['wrk.headers["Connection"] = "close"']
    lines += [
        "done = function(s, latency) io.write(string.format('RESULT %d %d %f %f %d\\n', "
        "s.requests, s.duration, latency:percentile(50) / 1000, latency:percentile(99) / 1000, "
        "s.errors.connect + s.errors.read + s.errors.write + s.errors.status + s.errors.timeout"
        ")) end"
    ]
    script.write_text("\n".join(lines))
    out = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s",
         "-s", str(script), f"http://127.0.0.1:{port}{path}"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    found = re.search(r"RESULT (\d+) (\d+) (\S+) (\S+) (\d+)", out)
    assert found is not None, out
    errors = f"{found[5]} errors" if int(found[5]) else ""
    return Sample(int(found[1]), int(found[2]) / 1e6, float(found[3]), float(found[4]), errors)


@dataclass
class Streams:
    """What the client of event streams has seen."""

    until: float
    times: list[float] = field(default_factory=list)
    """Seconds from request to end, per stream."""
    short: int = 0
    """Streams that lacked events or were no streams."""


async def one_client(port: int, request: bytes, seen: Streams) -> None:
    """One stream after the other, until the time is over."""
    reader = writer = None
    while time.monotonic() < seen.until:
        if reader is None or writer is None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        begun = time.monotonic()
        try:
            writer.write(request)
            data = b""
            while not data.endswith(b"\r\n0\r\n\r\n"):
                more = await reader.read(65536)
                if not more:
                    break
                data += more
        except OSError:
            data = b""
        if data.count(b"data: ") < EVENTS or not data.startswith(b"HTTP/1.1 200 "):
            seen.short += 1
            await asyncio.sleep(0.05)
        else:
            seen.times.append(time.monotonic() - begun)
        if not data.endswith(b"0\r\n\r\n") or b"onnection: close" in data:
            writer.close()
            reader = writer = None
    if writer is not None:
        writer.close()


def run_streams(
    port: int, path: str, *, connections: int, seconds: float, content: str = STREAM_CHAT
) -> Sample:
    """Event streams, each connection its next one after the end of the last."""
    import uvloop

    request = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        f"{content}"
    ).encode()

    async def load() -> Streams:
        seen = Streams(time.monotonic() + seconds)
        async with asyncio.timeout(seconds + 60):
            await asyncio.gather(*(one_client(port, request, seen) for _ in range(connections)))
        return seen

    begun = time.monotonic()
    seen = uvloop.run(load())
    times = sorted(seen.times) or [0.0]
    middle, last = times[len(times) // 2], times[min(len(times) - 1, int(len(times) * 0.99))]
    errors = f"{seen.short} broken streams" if seen.short else ""
    elapsed = time.monotonic() - begun
    return Sample(len(seen.times), elapsed, middle * 1000, last * 1000, errors)


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve_events(int(sys.argv[2])))
