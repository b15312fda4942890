"""An upstream that does what a test tells it to, over real sockets on loopback."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from .script import Action, Received, Turn, body

type Script = Sequence[Action]

LIFETIME = 60.0
"""Seconds after which a connection is cut, whatever its script says."""


class ScriptedUpstream:
    """An HTTP/1.1 server: `async with ScriptedUpstream() as upstream`, or fixture `upstream`.

    Attributes:
        requests: what was received, in order.
        connections: how many connections were accepted.
        open: how many of them the peer has not closed.
        early: True: act on a request's head, without waiting for its body.
    """

    def __init__(self, *actions: Action, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Received] = []
        self.connections = 0
        self.open = 0
        self.early = False
        self._scripts: list[Script] = [actions or body(b"ok")]
        self._handler: Callable[[Received], Script] | None = None
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    # -- the script ---------------------------------------------------------------------------

    def answer(self, *actions: Action) -> None:
        """Do this for each request from now on."""
        self._scripts, self._handler = [actions], None

    def answers(self, *scripts: Script) -> None:
        """Do these for the next requests, one each; the last one for all that follow."""
        self._scripts, self._handler = list(scripts), None

    def handle(self, handler: Callable[[Received], Script]) -> None:
        """Let a function of the request choose what to do."""
        self._handler = handler

    def _script(self, request: Received) -> Script:
        if self._handler is not None:
            return self._handler(request)
        return self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]

    # -- the server ---------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), "127.0.0.1", 0, ssl=self._tls
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        """Wait until something here (a request, a connection's end) makes `condition` true."""
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer, self.connections))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def note(self) -> None:
        """Wake those who wait in `until`."""
        self._changed.set()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        try:
            async with asyncio.timeout(LIFETIME):
                while not writer.is_closing():
                    request = await read_request(reader, number, head_only=self.early)
                    if request is None:
                        break
                    self.requests.append(request)
                    self.note()
                    turn = Turn(request, reader, writer)
                    for action in self._script(request):
                        await action(turn)
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the peer went away: that is what many tests are about
        finally:
            writer.close()


class _Connection(asyncio.StreamReaderProtocol):
    """Tells the upstream when the peer closes, even while a script sleeps."""

    def __init__(self, upstream: ScriptedUpstream) -> None:
        reader = asyncio.StreamReader()
        super().__init__(reader, upstream.accept)
        self._upstream = upstream
        self._counted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._upstream.open += 1
        self._counted = True
        super().connection_made(transport)
        self._upstream.note()

    def eof_received(self) -> bool:
        self._gone()
        return bool(super().eof_received())

    def connection_lost(self, error: BaseException | None) -> None:
        self._gone()
        super().connection_lost(error)  # type: ignore[arg-type]

    def _gone(self) -> None:
        if self._counted:
            self._counted = False
            self._upstream.open -= 1
            self._upstream.note()


async def read_request(
    reader: asyncio.StreamReader, connection: int, *, head_only: bool = False
) -> Received | None:
    """The next request of a connection; None at its end."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = raw[:-4].decode("latin-1").split("\r\n")
    method, target, version = first.split(" ", 2)
    headers = tuple(_pair(line) for line in lines)
    values = {name.lower(): value for name, value in headers}
    content = b""
    trailers: tuple[tuple[str, str], ...] = ()
    if not head_only and "chunked" in values.get("transfer-encoding", "").lower():
        content, more, trailers = await _read_chunks(reader)
        raw += more
    elif not head_only:
        content = await reader.readexactly(int(values.get("content-length", "0")))
        raw += content
    return Received(method, target, version, headers, content, raw, trailers, connection)


async def _read_chunks(
    reader: asyncio.StreamReader,
) -> tuple[bytes, bytes, tuple[tuple[str, str], ...]]:
    """Body, its bytes on the wire, trailers."""
    content, raw = b"", b""
    while True:
        line = await reader.readuntil(b"\r\n")
        raw += line
        size = int(line.split(b";")[0], 16)
        if size == 0:
            break
        data = await reader.readexactly(size + 2)
        raw += data
        content += data[:-2]
    trailers = []
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        raw += line
        trailers.append(_pair(line.decode("latin-1").rstrip("\r\n")))
    return content, raw + line, tuple(trailers)


def _pair(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name, value.strip()
