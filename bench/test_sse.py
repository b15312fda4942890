"""The event stream parser: what one event of 200 bytes costs."""

from __future__ import annotations

import pytest

from tidegate.api import SseParser

OPENAI = b"data: " + b"x" * 192 + b"\n\n"
ANTHROPIC = b"event: content_block_delta\ndata: " + b"x" * 165 + b"\n\n"


@pytest.mark.parametrize(
    ("stream", "count"),
    [(OPENAI, 1), (OPENAI * 10, 10), (ANTHROPIC, 1), (OPENAI.replace(b"\n", b"\r\n"), 1)],
    ids=["data", "10-in-a-chunk", "event-and-data", "crlf"],
)
def test_parse_one_chunk(benchmark, stream, count):
    parser = SseParser()
    assert len(benchmark(parser.feed, stream)) == count
