"""Recorded calls of real providers, where they are, and what agrees across formats."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tidegate_ai_formats.events import Event, Start, collect
from tidegate_ai_formats.format import Format
from tidegate_ai_formats.framing import decoder, encoder
from tidegate_ai_formats.losses import Losses
from tidegate_ai_formats.model import Reasoning, Refusal, Response, Text, ToolCall
from tidegate_ai_formats.registry import get_format

RECORDINGS = Path(__file__).resolve().parents[4] / "shared/recordings/providers.jsonl.gz"

FORMATS = {
    r"/chat/completions$|azure.com/models/": "openai-chat",
    r"anthropic.com/v1/messages$": "anthropic-messages",
    r"/responses$": "openai-responses",
    r":(stream)?[gG]enerateContent$": "gemini",
    r"/converse(-stream)?$": "bedrock-converse",
    r"cohere.com/v2/chat$": "cohere-chat",
    r"/api/chat$": "ollama-chat",
}


@dataclass
class Recording:
    """One call: `format` is the name of ours that it is in."""

    number: int
    provider: str
    kind: str
    path: str
    format: str
    status: int
    content_type: str
    request: Any
    body: bytes

    @property
    def framing(self) -> str:
        if self.body.lstrip()[:1] == b"[":
            return "json-array"
        return get_format(self.format).framing


def _load() -> list[Recording]:
    if not RECORDINGS.exists():
        return []
    out = []
    with gzip.open(RECORDINGS) as lines:
        for number, line in enumerate(lines):
            raw = json.loads(line)
            path = raw["url"].partition("?")[0]
            name = next((f for p, f in FORMATS.items() if re.search(p, path)), None)
            if name is None:
                continue
            body = base64.b64decode(raw["body_b64"])
            kind = raw["kind"].partition("+")[0]
            fields = raw["provider"], kind, path, name, raw["status"], raw["content_type"]
            out.append(Recording(number, *fields, raw["request"], body))
    return out


@pytest.fixture(scope="session")
def recordings() -> list[Recording]:
    found = _load()
    if not found:
        pytest.skip(f"no recordings at {RECORDINGS}")
    return found


class Kit:
    """What tests do with formats, again and again."""

    @staticmethod
    def events(format: Format, body: bytes, framing: str | None = None) -> list[Event]:
        """The neutral events of a stream's bytes."""
        wire = decoder(framing or format.framing)
        parser = format.stream_parser()
        items = [*wire.feed(body), *wire.end()]
        return [event for item in items for event in parser.feed(item)] + parser.end()

    @staticmethod
    def write(format: Format, events: list[Event], losses: Losses | None = None) -> list[Any]:
        """The wire events of neutral ones."""
        writer = format.stream_writer(losses or Losses(format.name))
        for event in events:
            if isinstance(event, Start):  # what a translation fills in, where a format has none
                event.id, event.model = event.id or "tg-1", event.model or "a-model"
        return [item for event in events for item in writer.write(event)]

    @staticmethod
    def bytes(format: Format, items: list[Any], framing: str | None = None) -> bytes:
        """The bytes of wire events."""
        wire = encoder(framing or format.framing)
        return b"".join(map(wire.feed, items)) + wire.end()

    @staticmethod
    def collect(format: Format, body: bytes, framing: str | None = None) -> Response:
        """The whole answer of a stream's bytes."""
        return collect(Kit.events(format, body, framing))

    @staticmethod
    def gist(response: Response) -> dict[str, Any]:
        """What every format can say: it has to agree, whatever way the answer went."""
        one = response.candidates[0] if response.candidates else None
        parts = one.parts if one else []
        calls = [p for p in parts if isinstance(p, ToolCall)]
        reason = one.finish.reason if one and one.finish else None
        if reason in ("stop_sequence", "pause"):
            reason = "stop"
        if reason == "refusal":
            reason = "content_filter"
        usage = response.usage
        return {
            "text": "".join(p.text for p in parts if isinstance(p, Text | Refusal)),
            "thought": "".join(p.text for p in parts if isinstance(p, Reasoning)).strip(),
            "calls": [(p.name, json.loads(p.arguments or "{}")) for p in calls],
            "finish": reason,
            "usage": (usage.input, usage.output) if usage else None,
        }

    @staticmethod
    def details(response: Response) -> tuple[int, ...]:
        """What most formats can say of usage besides."""
        usage = response.usage
        return (usage.cache_read, usage.cache_write, usage.reasoning) if usage else ()

    @staticmethod
    def sources(response: Response) -> list[tuple[str, str, str]]:
        """What the text cites."""
        parts = [part for one in response.candidates for part in one.parts]
        found = [c for p in parts if isinstance(p, Text) for c in p.citations or ()]
        return [(c.url, c.title, c.text) for c in found]


@pytest.fixture(scope="session")
def kit() -> type[Kit]:
    return Kit


def differences(one: Any, other: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(path, one, other) of each difference of two JSON values."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            yield from differences(one.get(key), other.get(key), f"{path}.{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for first, second in zip(one, other, strict=True):
            yield from differences(first, second, f"{path}[]")
    elif one != other:
        yield path, one, other


@pytest.fixture(scope="session")
def diff() -> Any:
    return differences
