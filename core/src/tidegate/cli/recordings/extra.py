"""The pieces of a stream, in formats that know whole bodies only."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import replace

from tidegate.api.recording import Answer, Chunk, media_type
from tidegate.api.sse import SseParser


def chunks_to_json(chunks: Iterable[Chunk]) -> list[list[float | str]]:
    """Pairs of seconds and base64."""
    return [[chunk.delay, base64.b64encode(chunk.data).decode()] for chunk in chunks]


def chunks_of(pairs: Iterable[Sequence[float | str]]) -> tuple[Chunk, ...]:
    """The reverse of `chunks_to_json`."""
    return tuple(Chunk(float(delay), base64.b64decode(str(data))) for delay, data in pairs)


def cut_events(answer: Answer) -> Answer:
    """An event stream that came as one body, cut into its events; others as they are."""
    if media_type(answer.headers) != "text/event-stream" or not answer.content:
        return answer
    parser = SseParser(len(answer.content))
    blocks = [*parser.feed(answer.content), *parser.end()]
    chunks = tuple(Chunk(0.0, b if isinstance(b, bytes) else b.encode()) for b in blocks)
    return replace(answer, content=b"", chunks=chunks)
