"""What the HTTP/2 benches share: a node with an HTTP/2 listener, and an upstream that counts.

python bench/h2_rig.py PORT     the upstream, as a process: `GET /count` tells its connections
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import rig
from lane_cpu import free_port

from tidegate.testing.certificates import Authority

CONFIG = """
[gateway]
carrier = "engine"
limits = {{ requests = 100_000_000, lag = "10s" }}

[[gateway.listen]]
name = "h2"
address = "127.0.0.1:0"
cert = "pair.pem"
key = "pair.pem"
alpn = ["h2", "http/1.1"]

[[addon]]
use = "route-static"
routes = [
  {{ path = "/", upstream = "http://127.0.0.1:{port}" }},
]
"""


@dataclass
class Front:
    """A node, its worker, the certificate to trust and the upstream's port."""

    node: rig.Node
    worker: int
    ca: Path
    upstream: int
    asked: int = 0

    def dials(self) -> int:
        """Connections that the node has opened to its upstream so far."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.upstream}/count") as answer:
            self.asked += 1
            return int(answer.read()) - self.asked  # without those of the questions


@contextlib.contextmanager
def front() -> Iterator[Front]:
    """A node with one worker that carries HTTP/2 on the engine."""
    port = free_port()
    with (
        tempfile.TemporaryDirectory() as name,
        rig.process([sys.executable, __file__, str(port)], port),
    ):
        folder = Path(name) / "node"
        folder.mkdir()
        authority = Authority()
        certificate, key = authority.issue("localhost")
        (folder / "pair.pem").write_bytes(certificate + key)
        (folder / "ca.pem").write_bytes(authority.pem)
        with rig.node(folder, CONFIG.format(port=port)) as node:
            yield Front(node, node.workers[0], folder / "ca.pem", port)


async def serve(port: int) -> None:
    """Answer every request at once; `/silent` never."""
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with contextlib.suppress(OSError, EOFError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                if head.startswith(b"GET /silent"):
                    await reader.read()
                    break
                body = str(connections).encode() if head.startswith(b"GET /count") else b"x" * 1000
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(int(sys.argv[1])))
