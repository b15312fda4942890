"""Streams of chunks: neutral to wire.

Grammar: a first chunk with the role; chunks of one delta each; per candidate one chunk with its
finish reason; then, where it was asked for, one with usage and no choices; then `[DONE]`.
"""

from __future__ import annotations

from typing import Any

from tidegate.api import SseEvent
from tidegate_ai_formats.events import (
    Cited,
    Delta,
    End,
    Event,
    Extra,
    Failed,
    Finished,
    PartStart,
    PartStop,
    Start,
    UsageUpdate,
    extend,
)
from tidegate_ai_formats.format import StreamWriter
from tidegate_ai_formats.losses import Failure, Losses
from tidegate_ai_formats.model import Json, Media, Opaque, Reasoning, Refusal, Text, ToolCall, Usage
from tidegate_ai_formats.wire import dumps, merged

from .dialects import FAMILY
from .messages import write_reasoning
from .parts import LEGACY, write_call, write_citation, write_detail, write_media
from .response import write_error, write_finish, write_usage


class ChatStreamWriter(StreamWriter):
    """See the module. `usage`: the caller asked for usage."""

    def __init__(self, losses: Losses, *, usage: bool = True) -> None:
        self._losses = losses
        self._wants_usage = usage
        self._head: Json = {}
        self._same = False
        self._usage: Usage | None = None
        self._parts: dict[tuple[int, int], Any] = {}
        self._calls: dict[int, int] = {}
        self._tools: dict[tuple[int, int], int] = {}
        self._lengths: dict[int, int] = {}
        self._bases: dict[tuple[int, int], int] = {}
        self._roles: set[int] = set()
        self._extras: Json = {}

    def write(self, event: Event) -> list[SseEvent]:
        if type(event) is Delta:
            return self._delta(event)
        match event:
            case PartStart():
                return self._begin(event)
            case Start():
                self._start(event)
                return [self._chunk(0, {"role": "assistant", "content": ""})]
            case PartStop(index, candidate, extras):
                return self._stop(index, candidate, extras)
            case Cited():
                return self._cited(event)
            case Finished(finish, candidate, extras):
                if extras and not self._same:
                    self._losses.extras(extras, f"choices[{candidate}]")
                word = write_finish(finish, same=self._same)
                return [self._chunk(candidate, {}, word, extras if self._same else None)]
            case UsageUpdate(usage):
                self._usage = usage
            case Extra(values):
                if self._same:
                    self._extras.update(values)
                else:
                    self._losses.extras(values)
            case Failed(failure):
                return self.fail(failure)
            case End():
                return self._end()
        return []

    def _start(self, event: Start) -> None:
        self._same = event.family == FAMILY
        self._usage = event.usage
        self._head = {
            "id": event.id,
            "object": "chat.completion.chunk",
            "created": event.created,
            "model": event.model,
        }
        if event.extras:
            if self._same:
                self._head |= event.extras
            else:
                self._losses.extras(event.extras)

    def _chunk(
        self, candidate: int, delta: Json, finish: str | None = None, extras: Json | None = None
    ) -> SseEvent:
        if candidate and candidate not in self._roles:
            self._roles.add(candidate)
            delta = {"role": "assistant", **delta}
        choice: Json = {"index": candidate, "delta": delta, "finish_reason": finish}
        if extras:
            choice |= {key: value for key, value in extras.items() if key != "message"}
            delta |= extras.get("message") or {}
        return SseEvent(dumps({**self._head, "choices": [choice]}))

    def _delta(self, event: Delta) -> list[SseEvent]:
        key = (event.candidate, event.index)
        part = self._parts[key]
        text = event.text
        if event.kind == "text":
            if type(part) is Text:
                n = event.candidate
                self._lengths[n] = self._lengths.get(n, 0) + len(text)
                if event.logprobs:
                    tokens = {"logprobs": {"content": event.logprobs, "refusal": None}}
                    return [self._chunk(n, {"content": text}, extras=tokens)]
                return [self._chunk(n, {"content": text})]
            if type(part) is Refusal:
                return [self._chunk(event.candidate, {"refusal": text})]
            return [self._chunk(event.candidate, self._thought(part, text))]
        if event.kind == "arguments":
            if self._same and part.id == LEGACY:
                return [self._chunk(event.candidate, {"function_call": {"arguments": text}})]
            inner = "input" if part.custom else "arguments"
            kind = "custom" if part.custom else "function"
            call = {"index": self._tools[key], kind: {inner: text}}
            return [self._chunk(event.candidate, {"tool_calls": [call]})]
        if event.kind in ("signature", "encrypted"):
            extend(part, event)
            return []
        return [self._chunk(event.candidate, {"audio": {event.kind: text}})]

    @staticmethod
    def _thought(part: Reasoning, text: str) -> Json:
        carrier = part.carrier if part.carrier in ("reasoning", "content") else "reasoning_content"
        if carrier == "content":
            thinking = {"type": "thinking", "thinking": [{"type": "text", "text": text}]}
            return {"content": [thinking]}
        if part.carrier.startswith("details"):
            carrier = "reasoning"
        return {carrier: text}

    def _begin(self, event: PartStart) -> list[SseEvent]:
        n = event.candidate
        part = event.part
        key = (n, event.index)
        self._parts[key] = part
        if isinstance(part, Text):
            self._bases[key] = self._lengths.get(n, 0)
            if not self._same:
                self._losses.extras(part.extras, f"choices[{n}].content")
            if part.text:
                self._lengths[n] = self._bases[key] + len(part.text)
                return [self._chunk(n, {"content": part.text})]
        elif isinstance(part, ToolCall):
            return [self._call(key, part)]
        elif isinstance(part, Reasoning):
            if part.text:
                return [self._chunk(n, self._thought(part, part.text))]
        elif isinstance(part, Refusal):
            if part.text:
                return [self._chunk(n, {"refusal": part.text})]
        elif isinstance(part, Media):
            return self._media(part, n)
        else:
            what = part.value.get("type", "part") if isinstance(part, Opaque) else "part"
            self._losses.drop(f"choices[{n}].{what}")
        return []

    def _media(self, part: Media, n: int) -> list[SseEvent]:
        if part.kind == "audio":
            audio = {"id": part.file_id, **((part.extras or {}) if self._same else {})}
            if part.data:
                audio["data"] = part.data
            return [self._chunk(n, {"audio": audio})]
        image = write_media(part, self._losses, f"choices[{n}].image")
        return [self._chunk(n, {"images": [image]})] if image else []

    def _call(self, key: tuple[int, int], part: ToolCall) -> SseEvent:
        n = key[0]
        if self._same and part.id == LEGACY:
            return self._chunk(n, {"function_call": write_call(part)["function"]})
        position = self._tools[key] = self._calls.get(n, 0)
        self._calls[n] = position + 1
        kind, inner = ("custom", "input") if part.custom else ("function", "arguments")
        call: Json = {
            "index": position,
            "id": part.id,
            "type": kind,
            kind: {"name": part.name, inner: part.arguments},
        }
        delta: Json = {"tool_calls": [call]}
        if part.signature and part.origin == "gemini":
            call["extra_content"] = {"google": {"thought_signature": part.signature}}
            part.signature = ""
        elif part.signature:
            proof = Reasoning(encrypted=part.signature, origin=part.origin)
            delta["reasoning_details"] = [write_detail(proof, 0)]
            part.signature = ""
        if part.extras:
            if self._same:
                merged(call, part.extras)
            else:
                self._losses.extras(part.extras, f"choices[{n}].tool_calls[{position}]")
        return self._chunk(n, delta)

    def _stop(self, index: int, candidate: int, extras: Json | None) -> list[SseEvent]:
        """Proofs of thought are written once they are whole."""
        part = self._parts.pop((candidate, index))
        if extras and not self._same:
            self._losses.extras(extras, f"choices[{candidate}].content")
        if type(part) is Reasoning and (part.signature or part.encrypted):
            proof = Reasoning(
                "", part.signature, part.encrypted, part.origin, part.id, raw=part.raw
            )
            delta: Json = {}
            write_reasoning([proof], delta, detailed=True)
            return [self._chunk(candidate, delta)]
        if type(part) is Text and part.signature:
            proof = Reasoning(encrypted=part.signature, origin=part.origin)
            return [self._chunk(candidate, {"reasoning_details": [write_detail(proof, 0)]})]
        return []

    def _cited(self, event: Cited) -> list[SseEvent]:
        base = self._bases.get((event.candidate, event.index), 0)
        length = self._lengths.get(event.candidate, 0) - base
        annotation = write_citation(event.citation, base, length)
        return [self._chunk(event.candidate, {"annotations": [annotation]})]

    def _end(self) -> list[SseEvent]:
        out = []
        if self._wants_usage and self._usage is not None:
            usage = {**self._head, **self._extras, "choices": []}
            out.append(SseEvent(dumps({**usage, "usage": write_usage(self._usage)})))
        elif self._extras:
            out.append(SseEvent(dumps({**self._head, **self._extras, "choices": []})))
        out.append(SseEvent("[DONE]"))
        return out

    def fail(self, failure: Failure) -> list[SseEvent]:
        _, body = write_error(failure)
        return [SseEvent(dumps(body)), SseEvent("[DONE]")]
