"""Assistant messages and whole conversations, neutral to JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tidegate_ai_formats.losses import Losses
from tidegate_ai_formats.model import (
    Json,
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)
from tidegate_ai_formats.signatures import hoist
from tidegate_ai_formats.wire import merged

from .dialects import FAMILY, Dialect
from .parts import (
    LEGACY,
    write_call,
    write_citation,
    write_detail,
    write_media,
    write_thinking,
)

CACHED = "prompts are cached without it here"
_CONTENT_CARRIERS = ("content", "content-text", "content-none")


def write_assistant(
    parts: Sequence[Part], losses: Losses, field: str, *, same: bool, detailed: bool = True
) -> Json:
    """The assistant's message of an answer. Thought goes into `reasoning_content`, proofs of
    it into `reasoning_details`, unless this family's own form of them is known."""
    message: Json = {"role": "assistant", "content": None}
    if len(parts) == 1 and type(parts[0]) is Text:
        text = parts[0]
        message["content"] = text.text
        if text.citations:
            message["annotations"] = [write_citation(c, 0, len(text.text)) for c in text.citations]
        if text.signature or text.extras:
            _write_one(text, message, losses, field, same=same)
        return message
    if not same and any(type(p) is Text or type(p) is ToolCall for p in parts):
        calls = [p for p in parts if not (type(p) is ToolCall and p.origin == "gemini")]
        parts = parts if len(calls) != len(parts) else hoist(parts)
    if any(_in_content(part, same=same) for part in parts):
        return _write_listed(parts, message, losses, field, same=same)
    return _write_plain(parts, message, losses, field, same=same, detailed=detailed)


def _in_content(part: Part, *, same: bool) -> bool:
    """Whether only a content array can hold a part."""
    if type(part) is Reasoning:
        return part.carrier in _CONTENT_CARRIERS
    return same and type(part) is Opaque and part.family == FAMILY


def _write_plain(
    parts: Sequence[Part],
    message: Json,
    losses: Losses,
    field: str,
    *,
    same: bool,
    detailed: bool,
) -> Json:
    texts: list[str] = []
    length = 0
    annotations: list[Json] = []
    calls: list[Json] = []
    for part in parts:
        kind = type(part)
        if kind is Text:
            assert isinstance(part, Text)
            texts.append(part.text)
            if part.citations:
                size = len(part.text)
                annotations += [write_citation(c, length, size) for c in part.citations]
            length += len(part.text)
            losses.extras(None if same else part.extras, f"{field}.content")
        elif kind is ToolCall:
            assert isinstance(part, ToolCall)
            call = write_call(part)
            if part.extras and same:
                merged(call, part.extras)
            elif part.extras:
                losses.extras(part.extras, f"{field}.tool_calls[{len(calls)}]")
            if same and part.id == LEGACY:
                message["function_call"] = call["function"]
            else:
                calls.append(call)
        elif kind is not Reasoning:
            _write_one(part, message, losses, field, same=same)
    if texts:
        message["content"] = "".join(texts)
    write_reasoning([p for p in parts if type(p) is Reasoning], message, detailed=detailed)
    if annotations:
        message["annotations"] = annotations
    if calls:
        message["tool_calls"] = calls
    return message


def write_reasoning(thoughts: Sequence[Reasoning], message: Json, *, detailed: bool) -> None:
    """Thought, in the fields of a message or delta."""
    if not thoughts:
        return
    text = "".join(thought.text for thought in thoughts)
    carrier = thoughts[0].carrier
    if carrier.startswith("details"):
        _, plus, plain = carrier.partition("+")
        if plus:
            message[plain] = text
        message["reasoning_details"] = thoughts[0].raw or [
            write_detail(thought, n) for n, thought in enumerate(thoughts)
        ]
        return
    if text:
        message["reasoning" if carrier == "reasoning" else "reasoning_content"] = text
    proofs = [thought for thought in thoughts if thought.signature or thought.encrypted]
    if proofs and detailed:
        message["reasoning_details"] = [
            write_detail(thought, n) for n, thought in enumerate(proofs)
        ]


def _write_listed(
    parts: Sequence[Part], message: Json, losses: Losses, field: str, *, same: bool
) -> Json:
    """Mistral's form: thought and text in one content array."""
    content: list[Json] = []
    calls: list[Json] = []
    for part in parts:
        if isinstance(part, Reasoning):
            content.append(merged(write_thinking(part), part.extras if same else None))
        elif isinstance(part, Text):
            content.append({"type": "text", "text": part.text, **((same and part.extras) or {})})
        elif isinstance(part, ToolCall):
            calls.append(merged(write_call(part), part.extras if same else None))
        elif isinstance(part, Opaque) and same:
            content.append(part.value)
        else:
            _write_one(part, message, losses, field, same=same)
    if content:
        message["content"] = content
    if calls:
        message["tool_calls"] = calls
    return message


def _write_one(part: Part, message: Json, losses: Losses, field: str, *, same: bool) -> None:
    """A part that is rare in an answer."""
    if isinstance(part, Refusal):
        message["refusal"] = (message.get("refusal") or "") + part.text
    elif isinstance(part, Text):
        if not same:
            losses.extras(part.extras, f"{field}.content")
        if part.signature:
            proof = Reasoning(encrypted=part.signature, origin=part.origin)
            message["reasoning_details"] = [write_detail(proof, 0)]
    elif isinstance(part, Media) and part.kind == "audio":
        audio = {"id": part.file_id, "data": part.data, "transcript": part.transcript}
        message["audio"] = audio | ((part.extras or {}) if same else {"expires_at": 0})
    elif isinstance(part, Media) and part.kind == "image":
        image = write_media(part, losses, field)
        if image is not None:
            message.setdefault("images", []).append(image)
    else:
        what = part.value.get("type", "part") if isinstance(part, Opaque) else type(part).__name__
        losses.drop(f"{field}.{what}")


class ConversationWriter:
    """Writes the messages of a request."""

    def __init__(self, losses: Losses, dialect: Dialect, *, same: bool) -> None:
        self.losses = losses
        self.dialect = dialect
        self.same = same
        self.caches = same or dialect.cache
        self.messages: list[Json] = []
        self._shown: list[Json] = []
        """What tools have shown besides text, which has to stand in a user's message."""

    def finish(self) -> list[Json]:
        """All messages."""
        if self._shown:
            shown, self._shown = self._shown, []
            self.messages.append({"role": "user", "content": shown})
        return self.messages

    def _put(self, message: Json) -> None:
        """Add a message that is no tool's: first comes what the tools before it have shown."""
        if self._shown and message["role"] == "user":
            content = message["content"]
            own = [{"type": "text", "text": content}] if isinstance(content, str) else content
            message["content"] = [*self._shown, *own]
            self._shown = []
        self.finish()
        self.messages.append(message)

    def add(self, message: Message, field: str) -> None:
        """The next message: one, or a few where its parts belong to different roles."""
        if message.role == "assistant":
            self._assistant(message, field)
            return
        results = [part for part in message.parts if isinstance(part, ToolResult)]
        for result in results:
            self._result(result, field)
        rest = [part for part in message.parts if not isinstance(part, ToolResult)]
        if rest or not results:
            role = message.role if message.role != "tool" else "user"
            if role == "developer" and not self.dialect.developer:
                role = "system"
            out: Json = {"role": role, "content": self.content(rest, field)}
            self._finish(message, out, field)

    def _finish(self, message: Message, out: Json, field: str) -> None:
        if message.name:
            out["name"] = message.name
        if message.extras:
            if self.same:
                out |= message.extras
            else:
                self.losses.extras(message.extras, field)
        self._put(out)

    def content(self, parts: Sequence[Part], field: str) -> Any:
        """A string where it is plain text, else an array."""
        if len(parts) == 1:
            only = parts[0]
            if type(only) is Text and not only.extras and not self._cache(only.cache, field):
                return only.text
        if not parts:
            return ""
        out = []
        for n, part in enumerate(parts):
            one = self._part(part, f"{field}.content[{n}]")
            if one is not None:
                out.append(one)
        return out

    def _cache(self, cache: Json | None, field: str) -> bool:
        """Whether a cache breakpoint is written; where it can't be, that is said."""
        if cache is not None and not self.caches:
            self.losses.note(f"{field}.cache_control", CACHED)
        return cache is not None and self.caches

    def _part(self, part: Part, field: str) -> Json | None:
        out: Json | None = None
        if isinstance(part, Text):
            out = {"type": "text", "text": part.text}
        elif isinstance(part, Media):
            out = write_media(part, self.losses, field)
        elif isinstance(part, Refusal):
            out = {"type": "refusal", "refusal": part.text}
        elif isinstance(part, Opaque) and part.family == FAMILY and self.same:
            return part.value
        else:
            self.losses.drop(field)
        if out is None:
            return None
        cache = getattr(part, "cache", None)
        if cache is not None and self._cache(cache, field):
            out["cache_control"] = cache
        extras = getattr(part, "extras", None)
        if extras and self.same:
            for key, value in extras.items():
                if isinstance(value, dict) and isinstance(out.get(key), dict):
                    out[key] = out[key] | value
                elif key == "image_url":
                    out[key] = out[key]["url"]
                else:
                    out[key] = value
        elif extras:
            self.losses.extras(extras, field)
        return out

    def _assistant(self, message: Message, field: str) -> None:
        parts: list[Part] = []
        carrier = self.dialect.reasoning_field
        for n, part in enumerate(message.parts):
            if isinstance(part, Reasoning) and not (self.same and part.carrier):
                if carrier is None:
                    self.losses.drop(f"{field}.content[{n}]", "thought can't be sent back here")
                    continue
                part = replace(part, carrier=carrier, raw=None)
            parts.append(part)
        out = write_assistant(
            parts, self.losses, field, same=self.same, detailed=carrier == "details"
        )
        if len(parts) == 1 and isinstance(parts[0], Text) and (parts[0].cache or parts[0].extras):
            out["content"] = self.content(parts, field)
        if out["content"] is None and not out.get("tool_calls"):
            out["content"] = ""
        self._finish(message, out, field)

    def _result(self, result: ToolResult, field: str) -> None:
        content = self.content(result.parts, field)
        if isinstance(content, list) and not self.same:
            content = self._apart(content, result.call_id, field)
        out: Json = {"role": "tool", "tool_call_id": result.call_id, "content": content}
        if result.is_error and not self.same:
            self.losses.drop(f"{field}.is_error", "a tool's failure is said in its content only")
        if result.name:
            out["name"] = result.name
        if result.extras and self.same:
            out |= result.extras
        elif result.extras:
            self.losses.extras(result.extras, field)
        self.messages.append(out)

    def _apart(self, content: list[Json], call_id: str, field: str) -> Any:
        """Tools of this format give text only: what they show follows in a user's message."""
        kept = [part for part in content if part.get("type") == "text"]
        shown = [part for part in content if part.get("type") != "text"]
        if shown:
            self.losses.note(f"{field}.tool_result", "what is no text follows the result here")
            self._shown += [{"type": "text", "text": f"Result of {call_id}:"}, *shown]
        return kept or ""
