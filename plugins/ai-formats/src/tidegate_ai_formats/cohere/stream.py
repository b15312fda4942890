"""Streams, both ways.

Grammar: `message-start tool-plan-delta* (content-start content-delta* content-end |
tool-call-start tool-call-delta* tool-call-end | citation-start citation-end)* message-end`.
Texts and calls are counted apart.
"""

from __future__ import annotations

from tidegate.api import SseEvent
from tidegate_ai_formats.chat.parts import parse_call
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
from tidegate_ai_formats.losses import Failure, Losses
from tidegate_ai_formats.model import Finish, Json, Part, Reasoning, Refusal, Text, ToolCall, Usage
from tidegate_ai_formats.sequence import Sequencer
from tidegate_ai_formats.wire import dumps, loads

from .parts import FAMILY, PLAN, parse_citation, parse_part, write_call, write_citation
from .response import (
    parse_error,
    parse_finish,
    parse_usage,
    write_error,
    write_finish,
    write_usage,
)


class CohereStreamParser(StreamParser):
    """Wire to neutral. A text ends where something else begins: citations may follow its end."""

    def __init__(self) -> None:
        self._contents: dict[int, int] = {}
        self._calls: dict[int, int] = {}
        self._texts: list[int] = []
        self._count = 0
        self._open = -1
        self._plan = -1
        self._whole = False

    def feed(self, event: SseEvent) -> list[Event]:
        if event.data[:6] == "[DONE]":
            return []
        data = loads(event.data)
        kind = data.get("type") or event.event
        out: list[Event] = []
        if kind == "content-delta":
            content = data["delta"]["message"]["content"]
            index = self._contents[data.get("index") or 0]
            text = content.get("text")
            return [Delta(index, text if text is not None else content.get("thinking") or "")]
        message = (data.get("delta") or {}).get("message") or {}
        match kind:
            case "content-start":
                self._begin(data.get("index") or 0, parse_part(message.get("content")), out)
            case "tool-plan-delta":
                self._planned(message.get(PLAN) or "", out)
            case "tool-call-start":
                self._call(data.get("index") or 0, message["tool_calls"], out)
            case "tool-call-delta":
                piece = message["tool_calls"]["function"]["arguments"]
                out.append(Delta(self._calls[data.get("index") or 0], piece, "arguments"))
            case "tool-call-end":
                out.append(PartStop(self._calls.pop(data.get("index") or 0)))
            case "citation-start":
                self._cited(message.get("citations"), out)
            case "message-start":
                rest = {k: v for k, v in data.items() if k not in ("type", "id", "delta")}
                rest |= {k: v for k, v in message.items() if k not in _MESSAGE}
                out.append(Start(FAMILY, data.get("id") or "", "", extras=rest or None))
            case "message-end":
                self._end(data.get("delta") or {}, out)
        return out

    def _stop(self, out: list[Event]) -> None:
        if self._open >= 0:
            out.append(PartStop(self._open))
            self._open = self._plan = -1

    def _start(self, part: Part, out: list[Event]) -> int:
        self._stop(out)
        index = self._count
        self._count += 1
        out.append(PartStart(index, part))
        return index

    def _begin(self, place: int, part: Part, out: list[Event]) -> None:
        self._open = self._contents[place] = self._start(part, out)
        if isinstance(part, Text):
            self._texts.append(self._open)

    def _planned(self, text: str, out: list[Event]) -> None:
        if self._plan < 0:
            self._plan = self._open = self._start(Reasoning(carrier=PLAN), out)
        out.append(Delta(self._plan, text))

    def _call(self, place: int, call: Json, out: list[Event]) -> None:
        part = parse_call(call)
        text, part.arguments = part.arguments, ""
        self._calls[place] = self._start(part, out)
        if text:
            out.append(Delta(self._calls[place], text, "arguments"))

    def _cited(self, citation: Json | None, out: list[Event]) -> None:
        if not citation:
            return
        place = citation.get("content_index")
        index = self._contents.get(place) if isinstance(place, int) else None
        if index is None and self._texts:
            index = self._texts[-1]
        if index is None:
            out.append(Extra({"citations": [citation]}))
        else:
            out.append(Cited(index, parse_citation(citation)))

    def _end(self, delta: Json, out: list[Event]) -> None:
        self._stop(out)
        self._whole = True
        if isinstance(delta.get("usage"), dict):
            out.append(UsageUpdate(parse_usage(delta["usage"])))
        if delta.get("error"):
            out.append(Failed(parse_error(500, {"message": str(delta["error"])})))
            self._whole = False
            return
        finish = parse_finish(delta.get("finish_reason") or "")
        if finish is not None:
            out.append(Finished(finish))

    def end(self) -> list[Event]:
        return [End()] if self._whole else []


_MESSAGE = ("role", "content", "tool_plan", "tool_calls", "citations")


class CohereStreamWriter(StreamWriter):
    """Neutral to wire."""

    def __init__(self, losses: Losses) -> None:
        self._losses = losses
        self._sequencer = Sequencer()
        self._same = False
        self._usage: Usage | None = None
        self._finish: Finish | None = None
        self._part: Part | None = None
        self._contents = self._calls = self._citations = 0

    def write(self, event: Event) -> list[SseEvent]:
        out: list[SseEvent] = []
        if getattr(event, "candidate", 0):
            return out
        for one in self._sequencer.push(event):
            self._one(one, out)
        return out

    def _one(self, event: Event, out: list[SseEvent]) -> None:
        match event:
            case Delta():
                self._delta(event, out)
            case PartStart(part=part):
                self._begin(part, out)
            case PartStop():
                self._stop(out)
            case Cited():
                self._cited(event, out)
            case Start():
                self._same = event.family == FAMILY
                self._usage = event.usage
                if not self._same:
                    self._losses.extras(event.extras)
                message: Json = {"role": "assistant", "content": [], PLAN: ""}
                message |= {"tool_calls": [], "citations": []}
                start = {"id": event.id, "type": "message-start", "delta": {"message": message}}
                out.append(SseEvent(dumps(start), "message-start"))
            case Finished(finish, extras=extras):
                self._finish = finish
                if not self._same:
                    self._losses.extras(extras, "choices[0]")
            case UsageUpdate(usage):
                self._usage = usage
            case Extra(values):
                if not self._same:
                    self._losses.extras(values)
            case Failed(failure):
                out += self.fail(failure)
            case End():
                delta = {"finish_reason": write_finish(self._finish, same=self._same)}
                end: Json = {"type": "message-end", "delta": delta}
                if self._usage is not None:
                    end["delta"]["usage"] = write_usage(self._usage)
                out.append(SseEvent(dumps(end), "message-end"))

    @staticmethod
    def _event(kind: str, index: int, message: Json | None = None) -> SseEvent:
        data: Json = {"type": kind, "index": index}
        if message is not None:
            data["delta"] = {"message": message}
        return SseEvent(dumps(data), kind)

    def _begin(self, part: Part, out: list[SseEvent]) -> None:
        self._part = part
        if isinstance(part, ToolCall):
            text, part.arguments = part.arguments, ""
            field = f"tool_calls[{self._calls}]"
            call = write_call(part, self._losses, field, same=self._same)
            call["function"]["arguments"] = ""
            out.append(self._event("tool-call-start", self._calls, {"tool_calls": call}))
            if text:
                self._delta(Delta(0, text, "arguments"), out)
        elif isinstance(part, Text | Refusal | Reasoning):
            text, part.text = part.text, ""
            key = "thinking" if isinstance(part, Reasoning) else "text"
            if not (isinstance(part, Reasoning) and part.carrier == PLAN):
                content = {"content": {"type": key, key: ""}}
                out.append(self._event("content-start", self._contents, content))
            if text:
                self._delta(Delta(0, text), out)
        else:
            self._losses.drop(f"content[{self._contents}]")

    def _delta(self, event: Delta, out: list[SseEvent]) -> None:
        part, text = self._part, event.text
        if part is None:
            return
        extend(part, event)
        if event.kind == "arguments" and isinstance(part, ToolCall):
            if not part.custom:
                call = {"tool_calls": {"function": {"arguments": text}}}
                out.append(self._event("tool-call-delta", self._calls, call))
        elif event.kind == "text" and isinstance(part, Reasoning):
            if part.carrier == PLAN:
                plan = {"type": "tool-plan-delta", "delta": {"message": {PLAN: text}}}
                out.append(SseEvent(dumps(plan), "tool-plan-delta"))
                return
            content = {"content": {"thinking": text}}
            out.append(self._event("content-delta", self._contents, content))
        elif event.kind == "text":
            if event.logprobs:
                self._losses.drop("logprobs")
            out.append(self._event("content-delta", self._contents, {"content": {"text": text}}))

    def _cited(self, event: Cited, out: list[SseEvent]) -> None:
        text = self._part.text if isinstance(self._part, Text) else ""
        citation = write_citation(event.citation, text, self._contents)
        out.append(self._event("citation-start", self._citations, {"citations": citation}))
        out.append(self._event("citation-end", self._citations))
        self._citations += 1

    def _stop(self, out: list[SseEvent]) -> None:
        part, self._part = self._part, None
        if isinstance(part, ToolCall):
            if part.custom or not part.arguments:
                text = dumps({"input": part.arguments}) if part.custom else "{}"
                if part.custom or not self._same:
                    call = {"tool_calls": {"function": {"arguments": text}}}
                    out.append(self._event("tool-call-delta", self._calls, call))
            out.append(self._event("tool-call-end", self._calls))
            self._calls += 1
        elif isinstance(part, Text | Refusal | Reasoning):
            if not isinstance(part, Refusal) and (
                part.signature or (isinstance(part, Reasoning) and part.encrypted)
            ):
                self._losses.note("signature", "proofs of thought have no place here")
            if isinstance(part, Reasoning) and part.carrier == PLAN:
                return
            out.append(self._event("content-end", self._contents))
            self._contents += 1

    def fail(self, failure: Failure) -> list[SseEvent]:
        _, body = write_error(failure)
        delta = {"finish_reason": "ERROR", "error": body["message"]}
        return [SseEvent(dumps({"type": "message-end", "delta": delta}), "message-end")]
