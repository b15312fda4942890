"""Whole answers, usage, errors and streams, both ways: a stream is answers that add up."""

from __future__ import annotations

from datetime import datetime
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
    extend,
)
from tidegate_ai_formats.format import StreamParser, StreamWriter
from tidegate_ai_formats.gemini.parts import INVENTED
from tidegate_ai_formats.gemini.response import write_created
from tidegate_ai_formats.losses import STATUS, Failure, Losses, kind_of
from tidegate_ai_formats.model import (
    Candidate,
    Finish,
    FinishReason,
    Json,
    Part,
    Reasoning,
    Refusal,
    Response,
    Text,
    ToolCall,
    Usage,
)
from tidegate_ai_formats.wire import count, dumps, loads, take_str

from .request import FAMILY, parse_parts, write_message

_FINISH: Final[dict[str, FinishReason]] = {"stop": "stop", "length": "length"}
_COUNTS: Final = ("prompt_eval_count", "eval_count")


def parse_response(body: Json) -> Response:
    """A whole answer."""
    message = body.get("message")
    if not isinstance(message, dict):
        raise ValueError("an answer without a message")
    parts = parse_parts(message, seed_of(body))
    if message.get("role") == "assistant":
        del message["role"]
    if not message:
        del body["message"]
    logprobs = body.get("logprobs")
    text = next((part for part in parts if isinstance(part, Text)), None)
    if isinstance(logprobs, list) and text is not None:
        text.logprobs = body.pop("logprobs")
    finish = take_finish(body, any(isinstance(part, ToolCall) for part in parts))
    usage = take_usage(body)
    created = created_of(body)
    return Response(
        FAMILY, "", take_str(body, "model"), [Candidate(parts, finish)], usage, created, body
    )


def seed_of(body: Json) -> str:
    """What makes the ids of calls that have none unique: the moment of the answer."""
    return "".join(c for c in str(body.get("created_at") or "") if c.isdigit())


def created_of(body: Json) -> int:
    """Unix seconds of `created_at`, which stays: it says more."""
    try:
        text = str(body.get("created_at") or "")
        return int(datetime.fromisoformat(text[:19] + "+00:00").timestamp())
    except ValueError:
        return 0


def take_finish(body: Json, called: bool) -> Finish | None:
    """Why it ended."""
    if body.get("done") is not True:
        return None
    word = take_str(body, "done_reason")
    reason = _FINISH.get(word, "stop")
    return Finish("tool_calls" if called and reason == "stop" else reason, word)


def take_usage(body: Json) -> Usage | None:
    """Usage: two numbers of the answer itself."""
    raw = {key: body.pop(key) for key in _COUNTS if isinstance(body.get(key), int)}
    return parse_usage(raw) if raw else None


def parse_usage(raw: Json) -> Usage:
    """Usage of the two numbers."""
    return Usage(count(raw, _COUNTS[0]), count(raw, _COUNTS[1]), family=FAMILY, raw=raw)


def write_usage(usage: Usage | None) -> Json:
    """The two numbers."""
    if usage is None:
        return {}
    if usage.family == FAMILY and usage.raw is not None:
        return usage.raw
    return {_COUNTS[0]: usage.input, _COUNTS[1]: usage.output}


def write_finish(finish: Finish | None, *, same: bool) -> str:
    """The word for why it ended."""
    if finish is None:
        return "stop"
    if same and finish.native:
        return finish.native
    return "length" if finish.reason == "length" else "stop"


def write_response(response: Response, losses: Losses) -> Json:
    """A whole answer. It has one candidate; others are lost."""
    same = response.family == FAMILY
    one = response.candidates[0] if response.candidates else Candidate([])
    for other in response.candidates[1:]:
        losses.drop(f"choices[{other.index}]", "there is one answer here")
    message = write_message("assistant", one.parts, losses, "content", same=same)
    out: Json = {"model": response.model, "created_at": write_created(response.created)}
    out |= {"message": message, "done": True}
    if one.finish is None or one.finish.native or not same:
        out["done_reason"] = write_finish(one.finish, same=same)
    logprobs = next((p.logprobs for p in one.parts if isinstance(p, Text) and p.logprobs), None)
    if logprobs:
        out["logprobs"] = logprobs
    out |= write_usage(response.usage)
    if same:
        extras = dict(response.extras or {})
        message |= extras.pop("message", {})
        return out | extras
    _lost_counts(response.usage, losses)
    losses.extras(response.extras)
    losses.extras(one.extras, f"choices[{one.index}]")
    return out


def _lost_counts(usage: Usage | None, losses: Losses) -> None:
    if usage is None:
        return
    for name in ("cache_read", "cache_write", "reasoning"):
        if getattr(usage, name):
            losses.note(f"usage.{name}", "it has no place here")


def parse_error(status: int, body: Any) -> Failure:
    """An error: `{"error": "…"}`."""
    message = body.get("error") if isinstance(body, dict) else body
    if isinstance(message, dict):
        message = message.get("message")
    text = message if isinstance(message, str) and message else f"status {status}"
    raw = body if isinstance(body, dict) else None
    return Failure(status, kind_of(status, text), text, family=FAMILY, raw=raw)


def write_error(failure: Failure) -> tuple[int, Json]:
    """Status and body."""
    if failure.family == FAMILY and failure.raw is not None:
        return failure.status, failure.raw
    return STATUS.get(failure.kind, failure.status), {"error": failure.message}


class OllamaStreamParser(StreamParser):
    """Wire to neutral."""

    def __init__(self) -> None:
        self._kind: type[Part] | None = None
        self._open = -1
        self._count = 0
        self._called = False
        self._started = False
        self._whole = False

    def feed(self, event: SseEvent) -> list[Event]:
        data = loads(event.data)
        if "error" in data:
            return [Failed(parse_error(500, data))]
        out: list[Event] = []
        if not self._started:
            self._started = True
            start = Start(FAMILY, "", data.get("model") or "", created_of(data))
            start.extras = {"created_at": data["created_at"]} if "created_at" in data else None
            out.append(start)
        message = data.pop("message", None) or {}
        logprobs = data.pop("logprobs", None)
        seed = f"{seed_of(data)}_{self._count}" if "tool_calls" in message else ""
        for part in parse_parts(message, seed):
            self._part(part, logprobs, out)
        if data.get("done") is True:
            self._end(data, out)
        return out

    def _stop(self, out: list[Event]) -> None:
        if self._open >= 0:
            out.append(PartStop(self._open))
            self._open, self._kind = -1, None

    def _part(self, part: Part, logprobs: list[Json] | None, out: list[Event]) -> None:
        kind = type(part)
        if isinstance(part, Text | Reasoning):
            text, part.text = part.text, ""
            if not text:
                return
            if self._kind is not kind:
                self._stop(out)
                self._open, self._kind = self._count, kind
                self._count += 1
                out.append(PartStart(self._open, part))
            tokens = logprobs if kind is Text else None
            out.append(Delta(self._open, text, "text", 0, tokens))
            return
        self._stop(out)
        index = self._count
        self._count += 1
        out.append(PartStart(index, part))
        if isinstance(part, ToolCall):
            self._called = True
            text, part.arguments = part.arguments, ""
            out.append(Delta(index, text, "arguments"))
        out.append(PartStop(index))

    def _end(self, data: Json, out: list[Event]) -> None:
        self._stop(out)
        usage = take_usage(data)
        if usage is not None:
            out.append(UsageUpdate(usage))
        finish = take_finish(data, self._called)
        data.pop("model", None)
        out.append(Extra(data))
        if finish is not None:
            out.append(Finished(finish))
        self._whole = True

    def end(self) -> list[Event]:
        return [End()] if self._whole else []


class OllamaStreamWriter(StreamWriter):
    """Neutral to wire: a line per piece of text or thought, calls whole, then the numbers."""

    def __init__(self, losses: Losses) -> None:
        self._losses = losses
        self._same = False
        self._head: Json = {}
        self._parts: dict[int, Part] = {}
        self._usage: Usage | None = None
        self._finish: Finish | None = None
        self._rest: Json = {}

    def write(self, event: Event) -> list[SseEvent]:
        if getattr(event, "candidate", 0):
            return []
        match event:
            case Delta():
                return self._delta(event)
            case PartStart(index, part):
                self._parts[index] = part
                if isinstance(part, Text | Reasoning | Refusal) and part.text:
                    text, part.text = part.text, ""
                    return self._delta(Delta(index, text))
            case PartStop(index):
                part = self._parts.pop(index)
                if not isinstance(part, Text | Reasoning | Refusal):
                    message = write_message(
                        "assistant", [part], self._losses, "content", same=self._same
                    )
                    return [self._line(message)]
            case Start():
                self._same = event.family == FAMILY
                self._usage = event.usage
                created = write_created(event.created)
                self._head = {"model": event.model, "created_at": created}
                if self._same:
                    self._head |= event.extras or {}
                else:
                    self._losses.extras(event.extras)
            case Cited():
                self._losses.note("citations", "they have no place here")
            case Finished(finish, extras=extras):
                self._finish = finish
                if not self._same:
                    self._losses.extras(extras, "choices[0]")
            case UsageUpdate(usage):
                self._usage = usage
            case Extra(values):
                if self._same:
                    self._rest |= values
                else:
                    self._losses.extras(values)
            case Failed(failure):
                return self.fail(failure)
            case End():
                return [self._last()]
        return []

    def _line(self, message: Json, fields: Json | None = None) -> SseEvent:
        return SseEvent(dumps({**self._head, "message": message, "done": False, **(fields or {})}))

    def _delta(self, event: Delta) -> list[SseEvent]:
        part = self._parts[event.index]
        if event.kind == "text" and not isinstance(part, ToolCall):
            message: Json = {"role": "assistant", "content": event.text}
            if isinstance(part, Reasoning):
                message |= {"content": "", "thinking": event.text}
            tokens = {"logprobs": event.logprobs} if event.logprobs else None
            return [self._line(message, tokens)]
        extend(part, event)
        if event.kind in ("signature", "encrypted"):
            self._losses.note("signature", "proofs of thought have no place here")
        return []

    def _last(self) -> SseEvent:
        last: Json = {"done": True, "done_reason": write_finish(self._finish, same=self._same)}
        if not self._same:
            _lost_counts(self._usage, self._losses)
        last |= write_usage(self._usage)
        message = {"role": "assistant", "content": ""}
        return SseEvent(dumps({**self._head, "message": message, **last, **self._rest}))

    def fail(self, failure: Failure) -> list[SseEvent]:
        _, body = write_error(failure)
        return [SseEvent(dumps(body))]


__all__ = ["INVENTED", "OllamaStreamParser", "OllamaStreamWriter", "parse_response"]
