"""CPU per request of the engine carrier, as a ratio to bare mitmproxy measured in the same run.

    uv run python bench/engine_ratio.py [--requests 2000] [--rounds 7] [--save]

Ours: the engine with auth-key, limit-rate, route-static and log-access. Theirs: mitmproxy's
reverse mode on uvloop with the addons it can't do without. Both get the same requests (a POST of
300 bytes over 8 kept-alive connections, answered with 330 bytes), in turns; what is compared is
the CPU time of the proxy process, user and system, and the median over the rounds counts.
`--save` writes `engine_ratio.json` beside this file. Linux (it reads /proc).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

CONNECTIONS: Final = 8
TARGET: Final = 1.1
KEY: Final = "bench-key-0123456789-0123456789-0123456789"
BODY: Final = b'{"model":"m","messages":[{"role":"user","content":"%s"}]}' % (b"x" * 242)
ANSWER: Final = b'{"id":"c","choices":[{"message":{"content":"%s"}}]}' % (b"y" * 278)
REPLY: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
    % (len(ANSWER), ANSWER)
)
REQUEST: Final = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: api.test\r\nauthorization: Bearer %s\r\n"
    b"content-type: application/json\r\naccept: */*\r\nuser-agent: bench\r\n"
    b"content-length: %d\r\n\r\n%s" % (KEY.encode(), len(BODY), BODY)
)


# -- the processes ----------------------------------------------------------------------------


class Fixed(asyncio.Protocol):
    """Answers every request of the bench with the same bytes."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.seen = b""

    def data_received(self, data: bytes) -> None:
        self.seen += data
        while (end := self.seen.find(b"\r\n\r\n")) >= 0 and len(self.seen) >= end + 4 + len(BODY):
            self.seen = self.seen[end + 4 + len(BODY) :]
            self.transport.write(REPLY)


async def serve_upstream(_: int) -> None:
    """The upstream of both."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Fixed, "127.0.0.1", 0)
    await until_told(server.sockets[0].getsockname()[1])


async def serve_ours(upstream: int) -> None:
    """The engine with the default addons."""
    import socket

    from tidegate.engine import Engine
    from tidegate.runtime.guard import watch
    from tidegate.runtime.lifecycle import Host, Runtime
    from tidegate.runtime.settings import parse

    with tempfile.TemporaryDirectory() as folder:
        settings = parse(
            f"""
            [gateway]
            carrier = "engine"
            listen = ["127.0.0.1:0"]
            [[addon]]
            use = "auth-key"
            form = "any"
            keys = [{{ name = "bench", key = "{KEY}" }}]
            [[addon]]
            use = "limit-rate"
            rate = "1000000/s"
            [[addon]]
            use = "route-static"
            routes = [{{ path = "/", upstream = "http://127.0.0.1:{upstream}" }}]
            [[addon]]
            use = "log-access"
            """,
            base=Path(folder),
        )
        runtime = Runtime(Host(Path(folder) / "state"))
        runtime.commit(await runtime.prepare(settings))
        sock = socket.create_server(("127.0.0.1", 0))
        engine = Engine(runtime, settings)
        await engine.start({"gateway": sock})
        watch.start()
        await until_told(sock.getsockname()[1])
        await engine.stop()
        await runtime.close()


async def serve_theirs(upstream: int) -> None:
    """mitmproxy's reverse mode."""
    import logging

    from mitmproxy import options
    from mitmproxy.addons import core, next_layer, proxyserver, tlsconfig
    from mitmproxy.master import Master

    logging.disable(logging.INFO)
    asyncio.get_running_loop().set_task_factory(eager)
    with tempfile.TemporaryDirectory() as folder:
        master = Master(options.Options())
        proxies = proxyserver.Proxyserver()
        master.addons.add(core.Core(), proxies, next_layer.NextLayer(), tlsconfig.TlsConfig())
        mode = f"reverse:http://127.0.0.1:{upstream}@127.0.0.1:0"
        master.options.update(mode=[mode], confdir=folder, connection_strategy="lazy")
        assert await proxies.setup_servers()
        await master.running()
        await until_told(proxies.listen_addrs()[0][1])


def eager(loop: Any, coro: Any, **more: Any) -> Any:
    """mitmproxy's own eager tasks; uvloop 0.23 passes an argument that asyncio's lacks."""
    more.pop("eager_start", None)
    return asyncio.eager_task_factory(loop, coro, **more)


async def until_told(port: int) -> None:
    """Say where we listen, stay until standard input ends."""
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


SERVERS: Final = {"upstream": serve_upstream, "ours": serve_ours, "theirs": serve_theirs}


class Process:
    """One of the servers, in a process of its own."""

    def __init__(self, name: str, upstream: int = 0) -> None:
        command = [sys.executable, __file__, "--serve", name, "--upstream", str(upstream)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def cpu(self) -> float:
        """Seconds of CPU so far."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """End it and wait."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


# -- the load ---------------------------------------------------------------------------------


async def load(port: int, requests: int) -> None:
    """Send `requests` requests over kept-alive connections, each one's next after its answer."""

    async def one(count: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(count):
            writer.write(REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 "), head
            assert await reader.readexactly(len(ANSWER)) == ANSWER
        writer.close()

    await asyncio.gather(*(one(requests // CONNECTIONS) for _ in range(CONNECTIONS)))


def measure(requests: int, rounds: int) -> dict[str, Any]:
    """µs of CPU per request of each, by round, and the median ratio."""
    upstream = Process("upstream")
    proxies = {name: Process(name, upstream.port) for name in ("ours", "theirs")}
    figures: dict[str, list[float]] = {name: [] for name in proxies}
    try:
        for process in proxies.values():
            asyncio.run(load(process.port, requests // 2))
        for turn in range(rounds):
            order = list(proxies.items())
            for name, process in order if turn % 2 else order[::-1]:
                before = process.cpu()
                asyncio.run(load(process.port, requests))
                figures[name].append((process.cpu() - before) / requests * 1e6)
    finally:
        for process in (*proxies.values(), upstream):
            process.end()
    ratios = [a / b for a, b in zip(figures["ours"], figures["theirs"], strict=True)]
    return {
        "ratio": round(statistics.median(ratios), 3),
        "ours_us": round(statistics.median(figures["ours"]), 1),
        "theirs_us": round(statistics.median(figures["theirs"]), 1),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "requests": requests,
        "rounds": rounds,
    }


def main() -> None:
    """Measure, print, and save where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--serve", choices=SERVERS, help=argparse.SUPPRESS)
    parser.add_argument("--upstream", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        from tidegate.engine import run

        run(lambda: SERVERS[options.serve](options.upstream))
        return
    result = measure(options.requests, options.rounds)
    print(json.dumps(result, indent=1))
    verdict = "within" if result["ratio"] <= TARGET else "over"
    print(f"engine: {result['ratio']} x the CPU of bare mitmproxy, {verdict} {TARGET}")
    if options.save:
        Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
