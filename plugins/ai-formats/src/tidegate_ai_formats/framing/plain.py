"""Server-sent events, lines of JSON, and one JSON array whose elements are the events."""

from __future__ import annotations

import re
from typing import Final

from tidegate.api import SseEvent, SseParser

LIMIT: Final = 32 * 1024 * 1024
"""Bytes that one event may have: images come in one."""


class SseDecoder:
    """`text/event-stream`. White space before the first field is forgiven."""

    def __init__(self) -> None:
        self._parser = SseParser(LIMIT)
        self._begun = False

    def feed(self, data: bytes) -> list[SseEvent]:
        if not self._begun:
            data = data.lstrip(b" \r\n")
            if not data:
                return []
            self._begun = True
        return [item for item in self._parser.feed(data) if isinstance(item, SseEvent)]

    def end(self) -> list[SseEvent]:
        return [item for item in self._parser.end() if isinstance(item, SseEvent)]


class SseEncoder:
    """`text/event-stream`."""

    def feed(self, event: SseEvent) -> bytes:
        return event.encode()

    def end(self) -> bytes:
        return b""


class LinesDecoder:
    """One JSON text per line (Ollama)."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[SseEvent]:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if len(self._buffer) > LIMIT:
            raise ValueError(f"a line is longer than {LIMIT} bytes")
        return [SseEvent(line.decode()) for line in map(bytes.strip, lines) if line]

    def end(self) -> list[SseEvent]:
        line, self._buffer = self._buffer.strip(), b""
        return [SseEvent(line.decode())] if line else []


class LinesEncoder:
    """One JSON text per line."""

    def feed(self, event: SseEvent) -> bytes:
        return event.data.encode() + b"\n"

    def end(self) -> bytes:
        return b""


_STEP: Final = re.compile(rb'["{}\[\]]')
_STRING_END: Final = re.compile(rb'["\\]')


class ArrayDecoder:
    """A JSON array whose elements arrive one by one (Gemini without `alt=sse`).

    The scan keeps its place between calls: bytes are looked at once.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scan = 0
        self._depth = 0
        self._start = -1
        self._string = False

    def feed(self, data: bytes) -> list[SseEvent]:
        buffer = self._buffer
        buffer += data
        out: list[SseEvent] = []
        while True:
            if self._string:
                if not self._skip_string():
                    break
                continue
            match = _STEP.search(buffer, self._scan)
            if match is None:
                self._scan = len(buffer)
                break
            self._scan = match.end()
            self._step(match[0], match.start(), out)
        keep = self._start if self._start >= 0 else self._scan
        del buffer[:keep]
        self._scan -= keep
        self._start = min(0, self._start)
        if len(buffer) > LIMIT:
            raise ValueError(f"an element is longer than {LIMIT} bytes")
        return out

    def _step(self, sign: bytes, position: int, out: list[SseEvent]) -> None:
        if sign == b'"':
            self._string = True
        elif sign in b"{[":
            self._depth += 1
            if self._depth == 2 and self._start < 0:
                self._start = position
        else:
            self._depth -= 1
            if self._depth == 1 and self._start >= 0:
                out.append(SseEvent(self._buffer[self._start : self._scan].decode()))
                self._start = -1

    def _skip_string(self) -> bool:
        """Move past the end of the string; False where it has not come yet."""
        match = _STRING_END.search(self._buffer, self._scan)
        if match is None:
            self._scan = len(self._buffer)
            return False
        if match[0] == b'"':
            self._string = False
            self._scan = match.end()
            return True
        if match.end() == len(self._buffer):  # the escaped character has not come yet
            self._scan = match.start()
            return False
        self._scan = match.end() + 1
        return True

    def end(self) -> list[SseEvent]:
        if self._depth:
            raise ValueError("the array was cut")
        return []


class ArrayEncoder:
    """A JSON array, element by element."""

    def __init__(self) -> None:
        self._begun = False

    def feed(self, event: SseEvent) -> bytes:
        lead = b",\r\n" if self._begun else b"["
        self._begun = True
        return lead + event.data.encode()

    def end(self) -> bytes:
        return b"]" if self._begun else b"[]"
