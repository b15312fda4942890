"""Streams, neutral to wire: an event per piece of text or thought, calls whole.

Grammar: answers with parts, the last with a finish reason and usage. There is no end mark.
"""

from __future__ import annotations

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
from tidegate_ai_formats.model import (
    Json,
    Media,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    Usage,
)
from tidegate_ai_formats.signatures import pack_base64
from tidegate_ai_formats.wire import dumps

from .parts import FAMILY, PartWriter
from .response import write_created, write_error, write_finish, write_usage


class GeminiStreamWriter(StreamWriter):
    """See the module."""

    def __init__(self, losses: Losses) -> None:
        self._losses = losses
        self._same = False
        self._head: Json = {}
        self._usage: Usage | None = None
        self._parts: dict[tuple[int, int], Part] = {}
        self._finished: list[Finished] = []
        self._extras: Json = {}

    def write(self, event: Event) -> list[SseEvent]:
        match event:
            case Delta(kind="text"):
                return [self._text(event)]
            case Delta():
                part = self._parts[event.candidate, event.index]
                extend(part, event)
            case PartStart(index, part, candidate):
                self._parts[candidate, index] = part
                if isinstance(part, Text | Reasoning | Refusal) and part.text:
                    text, part.text = part.text, ""
                    return [self._text(Delta(index, text, "text", candidate))]
            case PartStop(index, candidate, extras):
                return self._stop(self._parts.pop((candidate, index)), candidate, extras)
            case Start():
                self._start(event)
            case Cited():
                if not self._same:
                    self._losses.note("citations", "they have no place here")
            case Finished(candidate=candidate, extras=extras):
                self._finished.append(event)
                if not self._same:
                    self._losses.extras(extras, f"candidates[{candidate}]")
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
        if event.model:
            self._head["modelVersion"] = event.model
        if event.id:
            self._head["responseId"] = event.id
        if self._same:
            self._head |= event.extras or {}
        else:
            if event.created:
                self._head["createTime"] = write_created(event.created)
            self._losses.extras(event.extras)

    def _chunk(self, part: Json, candidate: int) -> SseEvent:
        content = {"parts": [part], "role": "model"}
        return SseEvent(
            dumps({"candidates": [{"content": content, "index": candidate}], **self._head})
        )

    def _text(self, event: Delta) -> SseEvent:
        part = self._parts[event.candidate, event.index]
        if event.logprobs:
            self._losses.drop("logprobs")
        if type(part) is Reasoning:
            return self._chunk({"text": event.text, "thought": True}, event.candidate)
        return self._chunk({"text": event.text}, event.candidate)

    def _stop(self, part: Part, candidate: int, extras: Json | None) -> list[SseEvent]:
        if not self._same:
            self._losses.extras(extras, f"candidates[{candidate}]")
        if isinstance(part, Text | Reasoning | Refusal):
            proof = "" if isinstance(part, Refusal) else pack_base64(part, FAMILY)
            if not proof:
                return []
            out: Json = {"text": "", "thoughtSignature": proof}
            if isinstance(part, Reasoning):
                out["thought"] = True
            return [self._chunk(out, candidate)]
        assert isinstance(part, ToolCall | Media | Opaque) or part is not None
        writer = PartWriter(self._losses, same=self._same, request=False)
        written = writer.part(part, f"candidates[{candidate}]")
        return [self._chunk(written, candidate)] if written is not None else []

    def _end(self) -> list[SseEvent]:
        candidates = []
        for finished in self._finished:
            candidate: Json = {"content": {"parts": [{"text": ""}], "role": "model"}}
            candidate["finishReason"] = write_finish(finished.finish, same=self._same)
            candidate["index"] = finished.candidate
            if self._same:
                candidate |= finished.extras or {}
            candidates.append(candidate)
        last: Json = {"candidates": candidates, **self._head}
        if self._usage is not None:
            last["usageMetadata"] = write_usage(self._usage)
        return [SseEvent(dumps(last | self._extras))]

    def fail(self, failure: Failure) -> list[SseEvent]:
        _, body = write_error(failure)
        return [SseEvent(dumps(body))]
