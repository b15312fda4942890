"""The words of requests and answers, in whatever format: for counting, nothing else. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from .figures import Json

_WORDS: Final = frozenset(
    (
        "text", "content", "thinking", "reasoning", "reasoning_content", "refusal", "arguments",
        "partial_json", "tool_plan", "transcript", "delta", "response", "name", "output", "input",
    )
)  # fmt: skip
"""Fields whose strings a model wrote."""
_HOLDERS: Final = frozenset(
    (
        "choices", "delta", "message", "content", "parts", "candidates", "output", "tool_calls",
        "function", "function_call", "functionCall", "content_block", "toolUse", "summary",
        "reasoningContent", "reasoningText", "completion", "generation",
    )
)  # fmt: skip
"""Fields in which they stand."""
_VALUES: Final = frozenset(("args", "input", "arguments"))
"""Objects that a model wrote as JSON."""


def words(value: Any) -> Iterator[str]:
    """What the model wrote, in a whole answer or in an event of a stream."""
    if type(value) is list:
        for one in value:
            yield from words(one)
        return
    if type(value) is not dict:
        return
    kind = value.get("type")
    if type(kind) is str and kind.startswith("response.") and not kind.endswith(".delta"):
        return  # Responses says all of it again in events that end something
    for key, one in value.items():
        if type(one) is str:
            if key in _WORDS and one:
                yield one
        elif key in _VALUES and one:
            if type(one) is dict:
                yield orjson.dumps(one).decode()
        elif key in _HOLDERS and not (key == "message" and "delta" in value):
            yield from words(one)


@dataclass(slots=True)
class Prompt:
    """The words of a request: one entry per message, tools apart.

    `replies` are messages of the model's own, `calls` those that call tools or answer so;
    `media`: there is more than words.
    """

    model: str = ""
    messages: list[str] = field(default_factory=list)
    tools: list[Json] = field(default_factory=list)
    replies: int = 0
    calls: int = 0
    media: bool = False

    @property
    def size(self) -> int:
        """Characters."""
        return sum(map(len, self.messages)) + 200 * len(self.tools)


_LISTS: Final = ("messages", "contents", "input", "inputs", "texts", "documents", "requests")
_TEXTS: Final = (
    "system", "systemInstruction", "system_instruction", "instructions", "preamble", "prompt",
    "query",
)  # fmt: skip
_SAID: Final = frozenset(
    (
        "text", "content", "parts", "output", "arguments", "input", "thinking", "json", "name",
        "function", "tool_calls", "functionCall", "functionResponse", "response", "args", "toolUse",
        "toolResult", "result", "summary",
    )
)  # fmt: skip
_CALLS: Final = ("function_call", "function_call_output")
_MEDIA: Final = frozenset(
    (
        "image_url", "input_image", "image", "inlineData", "inline_data", "fileData", "file_data",
        "input_audio", "document", "video", "file", "input_file", "source", "images",
    )
)  # fmt: skip


def prompt_of(body: Any) -> Prompt:
    """The words of a request."""
    prompt = Prompt()
    if type(body) is not dict:
        return prompt
    model = body.get("model")
    prompt.model = model if type(model) is str else ""
    for key in _TEXTS:
        if body.get(key):
            _message(body[key], prompt)
    for key in _LISTS:
        value = body.get(key)
        if type(value) is list:
            for one in value:
                _message(one, prompt)
        elif type(value) is str:
            _message(value, prompt)
    schema = _schema(body)
    if schema is not None:
        prompt.messages.append(orjson.dumps(schema).decode())
    tools = body.get("tools") or (body.get("toolConfig") or {}).get("tools")
    if type(tools) is list:
        prompt.tools = [one for one in tools if type(one) is dict]
    return prompt


def _schema(body: Json) -> Json | None:
    """The JSON schema that an answer must have: OpenAI's models are shown it."""
    outer = body.get("response_format") or body.get("text")
    inner = outer.get("json_schema") or outer.get("format") if type(outer) is dict else None
    schema = inner.get("schema") if type(inner) is dict else None
    return schema if type(schema) is dict else None


def _message(value: Any, prompt: Prompt) -> None:
    if type(value) is dict:
        kind = value.get("type")
        if kind == "reasoning":
            prompt.media = True  # thought that only the provider can read
            return
        if "tool_calls" in value or value.get("role") == "tool" or kind in _CALLS:
            prompt.calls += 1
        elif value.get("role") == "assistant":
            prompt.replies += 1
    out: list[str] = []
    _said(value, prompt, out)
    prompt.messages.append("".join(out))


def _said(value: Any, prompt: Prompt, out: list[str]) -> None:
    if type(value) is str:
        out.append(value)
    elif type(value) is list:
        for one in value:
            _said(one, prompt, out)
    elif type(value) is dict:
        for key, one in value.items():
            if key in _MEDIA:
                prompt.media = True
            elif key in ("args", "input", "json") and type(one) is dict:
                out.append(orjson.dumps(one).decode())
            elif key in _SAID:
                _said(one, prompt, out)
