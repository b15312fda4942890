"""The "model": what it says, and how it counts. Values in, values out."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

ECHO: Final = 300
"""Characters of the caller's message that are said back."""
DIMENSIONS: Final = 256
_WORDS: Final = re.compile(r"\s*\S+|\s+$")


def words(text: str) -> list[str]:
    """A text in pieces that join to it again; each piece counts as one token."""
    return _WORDS.findall(text)


def text_of(content: object) -> str:
    """The text of a message's content: a string, or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        parts = [part for part in content if isinstance(part, Mapping)]
        return " ".join(str(part.get("text", "")) for part in parts if part.get("text"))
    return ""


def last_said(messages: Sequence[Mapping[str, Any]], role: str) -> str:
    """The text of the last message of a role, or ""."""
    said = (text_of(m.get("content")) for m in reversed(messages) if m.get("role") == role)
    return next(said, "")


def reply(messages: Sequence[Mapping[str, Any]]) -> str:
    """What the demo model answers to a conversation."""
    if messages[-1].get("role") == "tool":
        return f"The tool said: {_short(last_said(messages, 'tool'))}"
    said = _short(last_said(messages, "user"))
    heard = f"You said: “{said}”. " if said else ""
    return (
        f"Hello from Tidegate's demo model. {heard}I repeat what I hear: there is no real model "
        "behind me. For one on this machine, start `tidegate up --local-model`; for OpenAI's, set "
        "OPENAI_API_KEY and start again. The same call will work."
    )


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= ECHO else text[:ECHO].rstrip() + "…"


def prompt_tokens(messages: Sequence[Mapping[str, Any]], tools: object) -> int:
    """An estimate: the words of all messages and tools, and a few for each message's frame."""
    said = sum(len(words(text_of(m.get("content")))) + 4 for m in messages)
    return said + (len(words(json.dumps(tools))) if tools else 0)


# -- values for a JSON Schema -----------------------------------------------------------------


def example(schema: object) -> Any:
    """A small value that a JSON Schema of the usual kind accepts."""
    return _Example(schema).value(schema, "value", 0)


class _Example:
    """Makes one value. Bounded in depth and in size: schemas come from callers and may recurse."""

    def __init__(self, root: object) -> None:
        self._root = root
        self._left = 1000

    def value(self, schema: object, name: str, depth: int) -> Any:
        self._left -= 1
        if not isinstance(schema, Mapping) or depth > 12 or self._left < 0:
            return None
        for key in ("const", "default"):
            if key in schema:
                return schema[key]
        for key in ("enum", "examples"):
            if isinstance(schema.get(key), list) and schema[key]:
                return schema[key][0]
        if isinstance(schema.get("$ref"), str):
            return self.value(self._resolve(schema["$ref"]), name, depth + 1)
        for key in ("anyOf", "oneOf", "allOf"):
            if isinstance(schema.get(key), list) and schema[key]:
                return self.value(schema[key][0], name, depth + 1)
        return self._of_type(schema, name, depth)

    def _of_type(self, schema: Mapping[str, Any], name: str, depth: int) -> Any:
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kind = kind[0] if kind else "null"
        match kind:
            case "object":
                properties = schema.get("properties")
                if not isinstance(properties, Mapping):
                    return {}
                return {key: self.value(of, key, depth + 1) for key, of in properties.items()}
            case "array":
                count = min(max(_count(schema, "minItems"), 1), 16)
                return [self.value(schema.get("items"), name, depth + 1)] * count
            case "integer" | "number":
                return schema.get("minimum", schema.get("maximum", 1))
            case "boolean":
                return True
            case "null":
                return None
            case _:
                text = _FORMATS.get(str(schema.get("format")), name)
                return text.ljust(min(_count(schema, "minLength"), 1000), "x")

    def _resolve(self, reference: str) -> object:
        found = self._root
        for part in reference.removeprefix("#").strip("/").split("/"):
            if part:
                found = found.get(part) if isinstance(found, Mapping) else None
        return found


_FORMATS: Final = {"date": "2026-01-31", "date-time": "2026-01-31T12:00:00Z"}


def _count(schema: Mapping[str, Any], key: str) -> int:
    value = schema.get(key)
    return value if type(value) is int else 0


# -- embeddings -------------------------------------------------------------------------------


def embedding(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """A vector of length 1, the same each time; texts that share words are near each other."""
    vector = [0.0] * dimensions
    for word in re.findall(r"\w+", text.lower()) or [text]:
        hashed = hashlib.sha256(word.encode()).digest()
        place = int.from_bytes(hashed[:4], "big") % dimensions
        vector[place] += 1.0 if hashed[4] & 1 else -1.0
    length = math.sqrt(sum(x * x for x in vector))
    if not length:  # words that cancel each other
        vector[0] = length = 1.0
    return [x / length for x in vector]
