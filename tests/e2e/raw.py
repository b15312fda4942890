"""HTTP/1.1 by hand: what goes over the wire is what the test says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    interim: list[int] = field(default_factory=list)

    def get(self, name: str) -> str | None:
        return next((v for n, v in self.headers if n.lower() == name), None)


class Raw:
    """`async with Raw(url) as raw`: one connection, bytes in and out, 20 s at most a read."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 80
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.writer.close()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def line(self) -> bytes:
        return await asyncio.wait_for(self.reader.readline(), 20)

    async def head(self) -> Answer:
        """The next head, interim ones included in `interim`."""
        interim: list[int] = []
        while True:
            start = await self.line()
            if not start:
                raise ConnectionError("closed before an answer")
            status = int(start.split()[1])
            headers = []
            while (line := await self.line()) not in (b"\r\n", b""):
                name, _, value = line.decode("latin-1").partition(":")
                headers.append((name, value.strip()))
            if status >= 200:
                return Answer(status, headers, interim=interim)
            interim.append(status)

    async def answer(self, *, method: str = "GET") -> Answer:
        """The next whole answer."""
        answer = await self.head()
        if method == "HEAD" or answer.status in (204, 304):
            return answer
        if (answer.get("transfer-encoding") or "") == "chunked":
            while size := int((await self.line()).split(b";")[0], 16):
                answer.body += await asyncio.wait_for(self.reader.readexactly(size), 20)
                await self.line()
            while (line := await self.line()) != b"\r\n":
                name, _, value = line.decode("latin-1").partition(":")
                answer.trailers.append((name, value.strip()))
        elif answer.get("content-length") is not None:
            length = int(answer.get("content-length") or 0)
            answer.body = await asyncio.wait_for(self.reader.readexactly(length), 20)
        else:
            answer.body = await asyncio.wait_for(self.reader.read(), 20)
        return answer

    async def closed(self) -> bool:
        """Whether the peer closes now, without another byte."""
        try:
            return await asyncio.wait_for(self.reader.read(1), 20) == b""
        except ConnectionResetError:
            return True
