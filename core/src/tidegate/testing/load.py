"""Many calls at once, on connections that are kept; what they were answered is counted."""

from __future__ import annotations

import asyncio
import re
from collections import Counter


async def calls(
    url: str, count: int, parallel: int = 50, found: Counter[int] | None = None
) -> Counter[int]:
    """The statuses that so many GETs on so many connections are answered with; 0: no answer.

    `found` is counted on, so that a test can look at it meanwhile.
    """
    found = Counter() if found is None else found
    host, _, port = url.removeprefix("http://").rpartition(":")
    left = iter(range(count))

    async def client() -> None:
        connection = None
        for _ in left:
            try:
                if connection is None:
                    connection = await asyncio.open_connection(host, int(port))
                found[await get(*connection)] += 1
            except (OSError, asyncio.IncompleteReadError):
                found[0] += 1
                connection = None
        if connection is not None:
            connection[1].close()

    await asyncio.gather(*(client() for _ in range(parallel)))
    return found


async def get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    """The status of one call on a connection. IncompleteReadError, OSError: it was cut."""
    writer.write(b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n")
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    (length,) = re.findall(rb"\r\ncontent-length: (\d+)", head)
    await reader.readexactly(int(length))
    return int(head.split()[1])


async def until_answered(found: Counter[int], count: int) -> None:
    """Wait for so many answers."""
    while found.total() < count:  # noqa: ASYNC110, a counter tells nobody
        await asyncio.sleep(0.002)
