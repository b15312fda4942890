"""A small HTTP/1.1 server on loopback that plays cassettes, streams at their own pace.

It knows what to play from the first segment of the path, which the addon's upstream puts before
the caller's. What it plays was chosen by the addon; it judges nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Final

from tidegate.api.recording import Answer

log = logging.getLogger("tidegate.record_cassette")

HOST: Final = "127.0.0.1"
MAX_HEAD: Final = 64 * 1024
BODYLESS: Final = frozenset({204, 304})

type Choose = Callable[[str], Answer | None]
"""The answer that a path's first segment stands for."""


class Player:
    """Serves the answers that `choose` gives. `speed`: 1.0 as recorded, 0 at once."""

    def __init__(self, choose: Choose, speed: float, port: int = 0) -> None:
        self._choose = choose
        self._speed = speed
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = port

    async def start(self) -> None:
        """Listen; port 0 is then a free one. Raises OSError."""
        self._server = await asyncio.start_server(self._accept, HOST, self.port, limit=MAX_HEAD)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop, and cut what is still playing."""
        if self._server is None:
            return
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                method, target = await read_request(reader)
                answer = self._choose(target.lstrip("/").partition("/")[0])
                await self._play(answer or Answer(502, "Bad Gateway"), method, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the gateway went away
        except (ValueError, asyncio.LimitOverrunError):
            log.exception("a request that the gateway does not send")
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _play(self, answer: Answer, method: str, writer: asyncio.StreamWriter) -> None:
        silent = method == "HEAD" or answer.status in BODYLESS
        chunks = None if silent else answer.chunks
        lines = [f"HTTP/1.1 {answer.status} {answer.reason or phrase(answer.status)}"]
        lines += [f"{name}: {value}" for name, value in answer.headers]
        if chunks is not None:
            lines.append("transfer-encoding: chunked")
        elif answer.status not in BODYLESS:
            lines.append(f"content-length: {len(answer.body)}")
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        if chunks is None:
            writer.write(b"" if silent else answer.body)
        else:
            for chunk in chunks:
                if chunk.delay and self._speed:
                    await asyncio.sleep(chunk.delay / self._speed)
                writer.write(b"%x\r\n%b\r\n" % (len(chunk.data), chunk.data))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
        await writer.drain()


async def read_request(reader: asyncio.StreamReader) -> tuple[str, str]:
    """Method and target of the next request; its body is read and let go.

    Raises IncompleteReadError at the connection's end.
    """
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *lines = raw[:-4].decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    fields = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    if "chunked" in fields.get("transfer-encoding", "").lower():
        while size := int((await reader.readline()).partition(b";")[0], 16):
            await reader.readexactly(size + 2)
        while (await reader.readline()).strip():
            pass
    else:
        await reader.readexactly(int(fields.get("content-length", "0")))
    return method, target


def phrase(status: int) -> str:
    """The reason phrase of a status."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
