"""Streams of chunks: wire to neutral.

A chunk says what is new, not where parts begin and end: a part begins where its kind first
appears, and ends where another kind does. Tool calls carry an index: one call ends where the
next begins, if its arguments are whole by then; else they may be interleaved and stay open.
"""

from __future__ import annotations

from typing import Any, Final

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
from tidegate_ai_formats.model import Json, Media, Reasoning, Refusal, Text, ToolCall
from tidegate_ai_formats.wire import complete, dumps, loads, take_str

from .dialects import FAMILY
from .parts import LEGACY, detail_part, parse_citation, parse_part, take_signature
from .response import parse_error, parse_finish, parse_usage

_PADDING: Final = ("p", "obfuscation")
"""Random characters that hide the length of a chunk: they say nothing."""
_LEGACY_PLACE: Final = 1 << 30
"""Where the call of `function_call` stands among those of `tool_calls`."""
_CARRIERS: Final = ("reasoning_content", "reasoning")


class _Choice:
    """The parts of one candidate that are open."""

    __slots__ = ("calls", "carrier", "finished", "kind", "known", "open", "rest", "texts")

    def __init__(self) -> None:
        self.kind = ""
        self.open = -1
        self.carrier = ""
        self.calls: dict[int, tuple[int, ToolCall, list[str]]] = {}
        self.known: Json = {}
        self.rest: Json = {}
        self.texts: list[int] = []
        self.finished = False


class ChatStreamParser(StreamParser):
    """See the module."""

    def __init__(self) -> None:
        self._choices: dict[int, _Choice] = {}
        self._count: dict[int, int] = {}
        self._started = False
        self._done = False
        self._rest: Json = {}
        self._early: Json = {}
        self._over = False

    def feed(self, event: SseEvent) -> list[Event]:
        data = event.data
        if data[:6] == "[DONE]":
            self._done = True
            return []
        chunk = loads(data)
        if not isinstance(chunk, dict):
            raise ValueError("a chunk that is no object")
        out: list[Event] = []
        choices = chunk.get("choices") or ()
        if "error" in chunk and (error := chunk.pop("error")):
            self._failed(error, choices, out)
            return out
        if not self._started and not choices and not chunk.get("id"):
            self._early |= {k: v for k, v in chunk.items() if k not in _HEAD}  # Azure's first one
            return out
        self._head(chunk, out)
        for choice in choices:
            self._choice(choice, out)
        usage = chunk.get("usage")
        if not usage and "x_groq" in chunk:
            usage = (chunk["x_groq"] or {}).get("usage")
        if usage and type(usage) is dict:
            out.append(UsageUpdate(parse_usage(usage)))
        return out

    def _failed(self, error: Any, choices: Any, out: list[Event]) -> None:
        """An error in the stream; OpenRouter's comes with a choice that says so as well."""
        code = error.get("code") if isinstance(error, dict) else None
        if not isinstance(code, int) or not 400 <= code <= 599:
            code = 500
        for choice in choices:
            self._delta_of(choice, out)
        self._over = True
        out.append(Failed(parse_error(code, {"error": error})))

    def _head(self, chunk: Json, out: list[Event]) -> None:
        """What surrounds the choices: the same in every chunk, mostly."""
        rest = {k: v for k, v in chunk.items() if k not in _HEAD}
        if not self._started:
            self._started = True
            rest = {**self._early, **rest}
            if chunk.get("object") not in (None, "chat.completion.chunk", ""):
                rest["object"] = chunk["object"]
            self._rest = rest
            out.append(
                Start(
                    FAMILY,
                    chunk.get("id") or "",
                    chunk.get("model") or "",
                    chunk.get("created") or 0,
                    extras=rest or None,
                )
            )
        elif rest != self._rest:
            news = {
                key: value
                for key, value in rest.items()
                if value is not None and self._rest.get(key) != value
            }
            if news:
                self._rest = {**self._rest, **news}
                out.append(Extra(news))

    def _delta_of(self, choice: Json, out: list[Event]) -> tuple[int, _Choice]:
        index = choice.get("index") or 0
        state = self._choices.get(index)
        if state is None:
            state = self._choices[index] = _Choice()
            self._count[index] = 0
        delta = choice.get("delta")
        if delta:
            logprobs = choice.get("logprobs")
            tokens = logprobs.get("content") if type(logprobs) is dict else None
            self._delta(index, state, delta, out, tokens)
        return index, state

    def _choice(self, choice: Json, out: list[Event]) -> None:
        index, state = self._delta_of(choice, out)
        extras = {k: v for k, v in choice.items() if k not in _CHOICE and v is not None}
        if extras:
            news = {k: v for k, v in extras.items() if state.known.get(k) != v}
            state.rest |= news
            state.known |= news
        reason = choice.get("finish_reason")
        if reason and not state.finished:
            state.finished = True
            self._close(index, state, out)
            finish = parse_finish(reason, called=bool(state.calls))
            assert finish is not None
            rest, state.rest = state.rest, {}
            out.append(Finished(finish, index, rest or None))

    def _delta(
        self, n: int, state: _Choice, delta: Json, out: list[Event], logprobs: list[Json] | None
    ) -> None:
        content = delta.get("content")
        if content and type(content) is str:
            thought = delta.get("reasoning_content") or delta.get("reasoning")
            if not thought and len(delta) <= 2:  # the usual chunk: text, perhaps a role
                out.append(Delta(self._part(n, state, "text", out), content, "text", n, logprobs))
                return
        if details := delta.get("reasoning_details"):
            self._details(n, state, details, out)
        else:
            for carrier in _CARRIERS:
                thought = delta.get(carrier)
                if thought and type(thought) is str:
                    state.carrier = carrier
                    out.append(Delta(self._part(n, state, "reasoning", out), thought, "text", n))
                    break
        if content:
            if type(content) is str:
                out.append(Delta(self._part(n, state, "text", out), content, "text", n, logprobs))
            elif type(content) is list:
                self._listed(n, state, content, out)
        if refusal := delta.get("refusal"):
            out.append(Delta(self._part(n, state, "refusal", out), refusal, "text", n))
        for call in delta.get("tool_calls") or ():
            self._call(n, state, call, out)
        if len(delta) > 1 or "function_call" in delta or "annotations" in delta:
            self._rare(n, state, delta, out)

    def _rare(self, n: int, state: _Choice, delta: Json, out: list[Event]) -> None:
        if annotations := delta.get("annotations"):
            index = state.texts[-1] if state.texts else self._part(n, state, "text", out)
            out += [Cited(index, parse_citation(one), n) for one in annotations]
        if legacy := delta.get("function_call"):
            first = _LEGACY_PLACE not in state.calls
            call = {"function": legacy, "index": _LEGACY_PLACE, **({"id": LEGACY} if first else {})}
            self._call(n, state, call, out)
        if audio := delta.get("audio"):
            index = self._part(n, state, "audio", out, audio)
            for key, kind in (("data", "data"), ("transcript", "transcript")):
                if audio.get(key):
                    out.append(Delta(index, audio[key], kind, n))  # type: ignore[arg-type]
        for image in delta.get("images") or ():
            self._stop(n, state, out)
            index = self._next(n)
            out += [PartStart(index, parse_part(image), n), PartStop(index, n)]
        for key, value in delta.items():
            if key not in _DELTA and value is not None:
                state.rest.setdefault("message", {})[key] = value

    def _next(self, n: int) -> int:
        index = self._count[n]
        self._count[n] = index + 1
        return index

    def _stop(self, n: int, state: _Choice, out: list[Event]) -> None:
        if state.open >= 0:
            out.append(PartStop(state.open, n))
            state.open, state.kind = -1, ""

    def _close(self, n: int, state: _Choice, out: list[Event]) -> None:
        self._stop(n, state, out)
        for call_index, call in state.calls.items():
            if call[0] >= 0:
                out.append(PartStop(call[0], n))
                state.calls[call_index] = (-1, call[1], call[2])

    def _part(
        self, n: int, state: _Choice, kind: str, out: list[Event], seed: Json | None = None
    ) -> int:
        """The index of the open part of `kind`; it begins here if there is none."""
        if state.kind == kind:
            return state.open
        self._stop(n, state, out)
        index = self._next(n)
        state.open, state.kind = index, kind
        part: Any
        if kind == "text":
            part = Text("")
            state.texts.append(index)
        elif kind == "refusal":
            part = Refusal("")
        elif kind == "audio":
            rest = {k: v for k, v in (seed or {}).items() if k not in ("id", "data", "transcript")}
            part = Media("audio", file_id=(seed or {}).get("id") or "", extras=rest or None)
        else:
            part = Reasoning(carrier=state.carrier)
        out.append(PartStart(index, part, n))
        return index

    def _details(self, n: int, state: _Choice, details: list[Json], out: list[Event]) -> None:
        """OpenRouter's: text in pieces, its signature in the last of them."""
        for detail in details:
            part = detail_part(detail)
            if part.encrypted:
                self._stop(n, state, out)
                index = self._next(n)
                part.carrier = "details"
                out += [PartStart(index, part, n), PartStop(index, n)]
                continue
            state.carrier = "details"
            kind = "summary" if part.summary else "reasoning"
            fresh = state.kind != kind
            index = self._part(n, state, kind, out)
            if fresh:
                begun = out[-1]
                assert isinstance(begun, PartStart)
                begun.part = Reasoning(
                    carrier="details", origin=part.origin, id=part.id, summary=part.summary
                )
            if part.text:
                out.append(Delta(index, part.text, "text", n))
            if part.signature:
                out.append(Delta(index, part.signature, "signature", n, origin=part.origin))

    def _listed(self, n: int, state: _Choice, content: list[Any], out: list[Event]) -> None:
        """Mistral's: an array of thinking and text."""
        for entry in content:
            part = parse_part(entry)
            if isinstance(part, Reasoning):
                state.carrier = "content"
                if part.text:
                    out.append(Delta(self._part(n, state, "reasoning", out), part.text, "text", n))
                if part.extras:
                    state.rest.setdefault("thinking", {}).update(part.extras)
            elif isinstance(part, Text):
                if part.text:
                    out.append(Delta(self._part(n, state, "text", out), part.text, "text", n))
            else:
                self._stop(n, state, out)
                index = self._next(n)
                out += [PartStart(index, part, n), PartStop(index, n)]

    def _call(self, n: int, state: _Choice, call: Json, out: list[Event]) -> None:
        position = call.get("index")
        if position is None:
            position = self._position(state, call)
        inner = call.get("function") or call.get("custom") or {}
        arguments = inner.get("arguments") if "arguments" in inner else inner.get("input")
        if arguments is not None and not isinstance(arguments, str):
            arguments = dumps(arguments)
        known = state.calls.get(position)
        if known is not None and _another(call, known[1]) and complete("".join(known[2])):
            if known[0] >= 0:  # some servers give every call the index 0
                out.append(PartStop(known[0], n))
            state.calls[~len(state.calls)] = (-1, known[1], known[2])
            known = None
        if known is None:
            known = self._begin_call(n, state, position, call, inner, out)
        if arguments:
            known[2].append(arguments)
            out.append(Delta(known[0], arguments, "arguments", n))
        if "extra_content" in call:
            take_signature(call, holder := ToolCall("", ""))
            if holder.signature and not known[1].signature:
                known[1].signature, known[1].origin = holder.signature, holder.origin

    def _begin_call(
        self, n: int, state: _Choice, position: int, call: Json, inner: Json, out: list[Event]
    ) -> tuple[int, ToolCall, list[str]]:
        self._stop(n, state, out)
        for key, (index, part, pieces) in state.calls.items():
            if index >= 0 and complete("".join(pieces)):
                out.append(PartStop(index, n))
                state.calls[key] = (-1, part, pieces)
        part = ToolCall(take_str(call, "id"), inner.get("name") or "")
        part.custom = call.get("type") == "custom"
        rest = {k: v for k, v in call.items() if k not in _CALL and v is not None}
        part.extras = rest or None
        if "extra_content" in call:
            take_signature(call, part)
        known = state.calls[position] = (self._next(n), part, [])
        out.append(PartStart(known[0], part, n))
        return known

    @staticmethod
    def _position(state: _Choice, call: Json) -> int:
        """The index of a call in a dialect that gives none: a new id is a new call."""
        if call.get("id") or not state.calls:
            for position, known in state.calls.items():
                if known[1].id == call.get("id") and known[0] >= 0:
                    return position
            return len(state.calls)
        return max(state.calls)

    def end(self) -> list[Event]:
        out: list[Event] = []
        if self._over:
            return out
        for n, state in self._choices.items():
            self._close(n, state, out)
            if self._done and not state.finished:  # some servers say [DONE] and no reason
                state.finished = True
                finish = parse_finish("tool_calls" if state.calls else "stop")
                assert finish is not None
                out.append(Finished(finish, n))
            if state.rest:
                out.append(Extra({"choices": [{"index": n, **state.rest}]}))
        finished = all(state.finished for state in self._choices.values())
        if self._started and (self._done or (finished and self._choices)):
            out.append(End())
        return out


def _another(call: Json, known: ToolCall) -> bool:
    return bool(call.get("id") and known.id and call["id"] != known.id)


_HEAD: Final = frozenset(("id", "object", "created", "model", "choices", "usage", *_PADDING))
_CHOICE: Final = frozenset(("index", "delta", "finish_reason", "logprobs"))
_CALL: Final = frozenset(("index", "id", "type", "function", "custom", "extra_content"))
_DELTA: Final = frozenset(
    (
        "role",
        "content",
        "refusal",
        "tool_calls",
        "function_call",
        "reasoning",
        "reasoning_content",
        "reasoning_details",
        "annotations",
        "audio",
        "images",
    )
)
