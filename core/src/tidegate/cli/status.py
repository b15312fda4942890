"""`/-/healthy`, `/-/ready`, `/-/status`, `/-/explain`, `/-/shadows`: a small HTTP/1.1 server.

It runs inside the supervisor.

One request per connection, everything bounded. Names other than our own are refused in the
Host field, so that a web page can't read the status by DNS rebinding.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from typing import Any, Final, Protocol

import orjson

HEAD: Final = 8 * 1024
TIMEOUT: Final = 5.0
CONNECTIONS: Final = 64
STATUS_FILE: Final = "status.url"
"""Where in the state folder a node says where its status is served."""


class Node(Protocol):
    """What the endpoints tell of."""

    @property
    def ready(self) -> bool:
        """Whether a worker serves, and the node is not on its way out."""

    async def status(self) -> dict[str, Any]:
        """The body of `/-/status`."""

    async def ask(self, what: str, **body: Any) -> list[Any]:
        """What each worker answers to `what` (those that do)."""


class StatusServer:
    """Answers on one listening socket."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._open = 0
        self._server: asyncio.Server
        self._paths: dict[str, Callable[[], Awaitable[tuple[int, Any]]]] = {
            "/-/healthy": self._healthy,
            "/-/ready": self._ready,
            "/-/status": self._status,
            "/-/explain": self._traces,
            "/-/shadows": self._shadows,
        }

    async def start(self, sock: socket.socket) -> None:
        """Serve on `sock`, which is already bound and listening."""
        self._server = await asyncio.start_server(self._serve, sock=sock, limit=HEAD)

    def close(self) -> None:
        """Stop answering."""
        self._server.close()

    async def _healthy(self) -> tuple[int, Any]:
        return 200, {"status": "healthy"}

    async def _ready(self) -> tuple[int, Any]:
        if self._node.ready:
            return 200, {"status": "ready"}
        return 503, error_body("not_ready", "No worker of this node takes requests now.")

    async def _status(self) -> tuple[int, Any]:
        return 200, await self._node.status()

    async def _traces(self) -> tuple[int, Any]:
        """The traces that there are, the newest first."""
        found = [trace for traces in await self._node.ask("traces") for trace in traces]
        return 200, {"traces": sorted(found, key=lambda trace: -trace["time"])}

    async def _trace(self, id: str) -> tuple[int, Any]:
        found = [trace for trace in await self._node.ask("trace", request=id) if trace is not None]
        if found:
            return 200, found[0]
        return 404, error_body("no_trace", "No worker holds a trace of this request.")

    async def _shadows(self) -> tuple[int, Any]:
        """What shadow addons would have done, by worker."""
        rows = [row for rows in await self._node.ask("shadows") for row in rows]
        return 200, {"shadows": rows}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open > CONNECTIONS:
                return
            async with asyncio.timeout(TIMEOUT):
                writer.write(await self._answer(reader, writer))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, host = parse_head(head)
        except (ValueError, asyncio.LimitOverrunError):
            return response(400, error_body("bad_request", "This is not an HTTP/1.1 request."))
        if not own_host(host, writer.get_extra_info("sockname")[0]):
            return response(400, error_body("bad_host", "This server is not known by that name."))
        if method not in ("GET", "HEAD"):
            return response(405, error_body("method_not_allowed", "Use GET."), allow=True)
        path = target.partition("?")[0]
        handler = self._paths.get(path)
        if handler is None and path.startswith("/-/explain/"):
            handler = partial(self._trace, path.removeprefix("/-/explain/"))
        if handler is None:
            text = f"Here are {', '.join(self._paths)}."
            return response(404, error_body("not_found", text), bodiless=method == "HEAD")
        status, body = await handler()
        return response(status, body, bodiless=method == "HEAD")


def parse_head(head: bytes) -> tuple[str, str, str]:
    """Method, target and Host of a request head. Raises ValueError."""
    lines = head.decode("ascii").split("\r\n")
    method, target, version = lines[0].split(" ")
    if version not in ("HTTP/1.1", "HTTP/1.0") or not target.startswith("/"):
        raise ValueError(version)
    hosts = [v.strip() for n, _, v in (x.partition(":") for x in lines[1:]) if n.lower() == "host"]
    if len(hosts) > 1:
        raise ValueError("two Host fields")
    return method, target, hosts[0] if hosts else ""


def own_host(host: str, address: str) -> bool:
    """Whether a Host field names a loopback address, or the one that was connected to."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    name = name.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        named = ipaddress.ip_address(name)
    except ValueError:
        return False
    return named.is_loopback or named == ipaddress.ip_address(address)


def error_body(code: str, message: str) -> dict[str, Any]:
    """The house's error shape."""
    return {"error": {"code": code, "message": message}}


def response(status: int, body: Any, *, bodiless: bool = False, allow: bool = False) -> bytes:
    """A whole HTTP/1.1 message with a JSON body."""
    content = orjson.dumps(body, default=str)
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    ]
    if allow:
        lines.append("Allow: GET, HEAD")
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    return head if bodiless else head + content
