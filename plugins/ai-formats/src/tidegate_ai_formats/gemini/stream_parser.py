"""Streams, wire to neutral: each event is an answer with the parts that are new.

Pieces of text and of thought that follow each other are one part; a signature ends it.
"""

from __future__ import annotations

from typing import Final

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
)
from tidegate_ai_formats.format import StreamParser
from tidegate_ai_formats.model import Finish, Json, Part, Reasoning, Text, ToolCall
from tidegate_ai_formats.wire import loads

from .parts import FAMILY, INVENTED, parse_part
from .response import FINISH, grounded, parse_error, parse_usage, take_created

_HEAD: Final = frozenset(("candidates", "usageMetadata", "modelVersion", "responseId"))
_CANDIDATE: Final = frozenset(("content", "finishReason", "index"))


class _State:
    __slots__ = ("called", "count", "extras", "finished", "kind", "open", "text")

    def __init__(self) -> None:
        self.kind: type[Part] | None = None
        self.open = -1
        self.count = 0
        self.called = False
        self.finished = False
        self.text: list[str] = []
        self.extras: Json = {}


class GeminiStreamParser(StreamParser):
    """See the module."""

    def __init__(self) -> None:
        self._states: dict[int, _State] = {}
        self._started = False
        self._id = ""
        self._rest: Json = {}
        self._usage: Json = {}
        self._blocked = False
        self._over = False

    def feed(self, event: SseEvent) -> list[Event]:
        chunk = loads(event.data)
        if "error" in chunk and "candidates" not in chunk:
            self._over = True
            return [Failed(parse_error(0, chunk))]
        out: list[Event] = []
        self._head(chunk, out)
        usage = chunk.get("usageMetadata")
        for candidate in chunk.get("candidates") or ():
            self._candidate(candidate, out)
        if usage and usage != self._usage:
            self._usage = {**self._usage, **usage}
            out.append(UsageUpdate(parse_usage(self._usage)))
        return out

    def _head(self, chunk: Json, out: list[Event]) -> None:
        rest = {k: v for k, v in chunk.items() if k not in _HEAD}
        if not self._started:
            self._started = True
            self._id = chunk.get("responseId") or ""
            self._rest = rest
            model = chunk.get("modelVersion") or ""
            created = take_created(rest)
            out.append(Start(FAMILY, self._id, model, created, extras=rest or None))
            feedback = rest.get("promptFeedback")
            if isinstance(feedback, dict) and feedback.get("blockReason"):
                self._blocked = True
        elif rest != self._rest:
            news = {k: v for k, v in rest.items() if self._rest.get(k) != v}
            if news:
                self._rest = {**self._rest, **news}
                out.append(Extra(news))

    def _candidate(self, candidate: Json, out: list[Event]) -> None:
        n = candidate.get("index") or 0
        state = self._states.get(n)
        if state is None:
            state = self._states[n] = _State()
        content = candidate.get("content")
        if content:
            for raw in content.get("parts") or ():
                self._part(n, state, parse_part(raw), out)
        for key, value in candidate.items():
            if key not in _CANDIDATE:
                state.extras[key] = value
        word = candidate.get("finishReason")
        if word and not state.finished:
            state.finished = True
            self._cite(n, state, out)
            self._stop(n, state, out)
            reason = FINISH.get(word, "stop")
            if reason == "stop" and state.called:
                reason = "tool_calls"
            out.append(Finished(Finish(reason, word), n, state.extras or None))
            state.extras = {}

    def _part(self, n: int, state: _State, part: Part, out: list[Event]) -> None:
        kind = type(part)
        if isinstance(part, Text | Reasoning) and not part.extras:
            text, part.text = part.text, ""
            proof, part.signature = part.signature, ""
            encrypted = ""
            if isinstance(part, Reasoning):
                encrypted, part.encrypted = part.encrypted, ""
            origin, part.origin = part.origin, ""
            if state.kind is not kind:
                if not (text or proof or encrypted):
                    return
                self._stop(n, state, out)
                state.open, state.kind = state.count, kind
                state.count += 1
                out.append(PartStart(state.open, part, n))
            if text:
                if kind is Text:
                    state.text.append(text)
                out.append(Delta(state.open, text, "text", n))
            if proof:
                out.append(Delta(state.open, proof, "signature", n, origin=origin))
            if encrypted:
                out.append(Delta(state.open, encrypted, "encrypted", n, origin=origin))
            if proof or encrypted:
                self._stop(n, state, out)
            return
        self._stop(n, state, out)
        index = state.count
        state.count += 1
        if isinstance(part, ToolCall):
            state.called = True
            part.id = part.id or f"{INVENTED}{self._id}_{index}"
            arguments, part.arguments = part.arguments, ""
            out.append(PartStart(index, part, n))
            if arguments:
                out.append(Delta(index, arguments, "arguments", n))
        else:
            out.append(PartStart(index, part, n))
        out.append(PartStop(index, n))

    def _stop(self, n: int, state: _State, out: list[Event]) -> None:
        if state.open >= 0:
            out.append(PartStop(state.open, n))
            state.open, state.kind = -1, None

    def _cite(self, n: int, state: _State, out: list[Event]) -> None:
        """Grounding comes with the last text; its positions are of all the text."""
        grounding = state.extras.get("groundingMetadata")
        if isinstance(grounding, dict) and state.kind is Text:
            for citation in grounded(grounding, "".join(state.text)):
                out.append(Cited(state.open, citation, n))

    def end(self) -> list[Event]:
        out: list[Event] = []
        if self._over:
            return out
        for n, state in self._states.items():
            self._stop(n, state, out)
            if state.extras:
                out.append(Extra({"candidates": [{"index": n, **state.extras}]}))
        if self._blocked and not self._states:
            out.append(Finished(Finish("content_filter")))
            out.append(End())
        elif self._states and all(state.finished for state in self._states.values()):
            out.append(End())
        return out
