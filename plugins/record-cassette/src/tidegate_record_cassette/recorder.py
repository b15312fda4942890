"""Watches an answer pass and makes a recording of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from mitmproxy import http

from tidegate.api import SseEvent, SseParser
from tidegate.api.recording import Answer, Chunk, media_type, recorded_fields

LARGEST_EVENT: Final = 4 * 1024 * 1024

type Done = Callable[[Answer | None], None]
"""Told of the whole answer; None where it broke off or was too large."""


class Recorder:
    """A `BodySink`: collects a body, an event stream with the time of each event."""

    def __init__(
        self,
        response: http.Response,
        limit: int,
        done: Done,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        data = response.data
        fields = recorded_fields(data.headers.fields)
        self._head = Answer(data.status_code, data.reason.decode("latin-1"), fields)
        encoded = response.headers.get("content-encoding", "identity").lower() != "identity"
        stream = media_type(fields) == "text/event-stream" and not encoded
        self._events = SseParser(LARGEST_EVENT) if stream else None
        self._chunks: list[Chunk] = []
        self._body: list[bytes] = []
        self._left = limit
        self._done = done
        self._clock = clock
        self._last = clock()

    def write(self, chunk: bytes) -> None:
        """The next bytes."""
        self._left -= len(chunk)
        if self._left < 0:
            self._body, self._chunks = [], []
        elif self._events is None:
            self._body.append(chunk)
        else:
            try:
                self._pass(self._events.feed(chunk))
            except ValueError:
                self._left = -1

    def _pass(self, blocks: list[SseEvent | bytes]) -> None:
        """Keep events, and what is between them, with the time since the one before."""
        for block in blocks:
            now = self._clock()
            data = block if isinstance(block, bytes) else block.encode()
            self._chunks.append(Chunk(round(now - self._last, 3), data))
            self._last = now

    def close(self, *, complete: bool, trailers: http.Headers | None) -> None:
        """The end."""
        if not complete or self._left < 0:
            self._done(None)
            return
        head = self._head
        if self._events is None:
            content = b"".join(self._body)
            self._done(Answer(head.status, head.reason, head.headers, content))
        else:
            self._pass(self._events.end())
            self._done(Answer(head.status, head.reason, head.headers, chunks=tuple(self._chunks)))
