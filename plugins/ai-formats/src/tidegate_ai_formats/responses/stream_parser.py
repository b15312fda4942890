"""Streams, wire to neutral. The whole item at its end is the last word on its parts."""

from __future__ import annotations

from typing import Final

from tidegate.api import SseEvent
from tidegate_ai_formats.chat.response import parse_error
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
from tidegate_ai_formats.model import Json, Part, Reasoning, Refusal, Text, ToolCall
from tidegate_ai_formats.wire import loads, take_int, take_str

from .items import FAMILY, parse_citation, parse_item
from .response import parse_usage, take_finish

_CALLS: Final = ("function_call", "custom_tool_call")


class ResponsesStreamParser(StreamParser):
    """See the module. `_parts` maps (output, content) to the index of a part."""

    def __init__(self) -> None:
        self._parts: dict[tuple[int, int], int] = {}
        self._said: dict[int, list[str]] = {}
        self._rest: Json = {}
        self._count = 0
        self._called = False
        self._whole = False
        self._summaries: dict[int, int] = {}
        self._ended: set[int] = set()

    def feed(self, event: SseEvent) -> list[Event]:
        data = loads(event.data)
        kind = data.get("type") or event.event
        match kind:
            case "response.output_text.delta" | "response.refusal.delta":
                index = self._text(data, refusal=kind == "response.refusal.delta")
                delta = data["delta"]
                self._said[index[0]].append(delta)
                logprobs = data.get("logprobs") or None
                return [*index[1], Delta(index[0], delta, "text", 0, logprobs)]
            case "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta":
                known = self._parts[data["output_index"], -1]
                self._said[known].append(data["delta"])
                return [Delta(known, data["delta"], "arguments")]
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                return self._thought(data, kind)
            case "response.output_text.annotation.added":
                index = self._text(data)
                return [*index[1], Cited(index[0], parse_citation(data["annotation"]))]
            case "response.output_item.added":
                return self._added(data)
            case "response.output_item.done":
                return self._done(data)
            case "response.created":
                return self._start(data["response"])
            case "response.completed" | "response.incomplete" | "response.failed":
                return self._end(data["response"])
            case "error":
                error = data.get("error") or {k: v for k, v in data.items() if k != "type"}
                return [Failed(parse_error(500, {"error": error}))]
        return []

    def _begin(self, key: tuple[int, int], part: Part) -> tuple[int, list[Event]]:
        index = self._parts[key] = self._count
        self._count += 1
        self._said[index] = []
        return index, [PartStart(index, part)]

    def _text(self, data: Json, *, refusal: bool = False) -> tuple[int, list[Event]]:
        """The index of the text that `data` speaks of; it may begin here."""
        key = (data["output_index"], data.get("content_index") or 0)
        known = self._parts.get(key)
        if known is not None:
            return known, []
        id = data.get("item_id") or ""
        return self._begin(key, Refusal("", id=id) if refusal else Text("", id=id))

    def _thought(self, data: Json, kind: str) -> list[Event]:
        output = data["output_index"]
        known = self._parts.get((output, -1))
        out: list[Event] = []
        if known is None:
            known, out = self._begin((output, -1), Reasoning(id=data.get("item_id") or ""))
        place = data.get("summary_index") or data.get("content_index") or 0
        if self._summaries.setdefault(output, place) != place:
            self._summaries[output] = place
            out.append(Delta(known, "\n\n"))
        out.append(Delta(known, data["delta"]))
        self._said[known].append(data["delta"])
        return out

    def _added(self, data: Json) -> list[Event]:
        item, output = data["item"], data["output_index"]
        kind = item.get("type")
        if kind in _CALLS:
            self._called = True
            part = parse_item(item)[0]
            assert isinstance(part, ToolCall)
            text, part.arguments, part.extras = part.arguments, "", None
            index, out = self._begin((output, -1), part)
            if text:
                self._said[index].append(text)
                out.append(Delta(index, text, "arguments"))
            return out
        if kind == "reasoning":
            summary = "content" not in item or not item["content"]
            id = item.get("id") or ""
            return self._begin((output, -1), Reasoning(id=id, summary=summary))[1]
        return []

    def _done(self, data: Json) -> list[Event]:
        """The whole item: its parts end here, and what no delta said is said now."""
        output = data["output_index"]
        self._ended.add(output)
        parts = parse_item(data["item"])
        single = not isinstance(parts[0], Text | Refusal)
        out: list[Event] = []
        for n, part in enumerate(parts):
            known = self._parts.get((output, -1 if single else n))
            if known is None:
                out += self._late((output, n), part)
                continue
            missing = _text_of(part)[len("".join(self._said[known])) :]
            if isinstance(part, ToolCall) and missing:
                out.append(Delta(known, missing, "arguments"))
            elif isinstance(part, Text | Refusal) and missing:
                out.append(Delta(known, missing))
            elif isinstance(part, Reasoning):
                if part.text and not self._said[known]:
                    out.append(Delta(known, part.text))
                if part.signature:
                    out.append(Delta(known, part.signature, "signature", origin=part.origin))
                if part.encrypted:
                    out.append(Delta(known, part.encrypted, "encrypted", origin=part.origin))
            out.append(PartStop(known, part=part))
        return out

    def _late(self, key: tuple[int, int], part: Part) -> list[Event]:
        """A part of which nothing was said before its end."""
        if isinstance(part, ToolCall):
            self._called = True
        index, out = self._begin(key, part)
        out.append(PartStop(index))
        return out

    def _start(self, response: Json) -> list[Event]:
        if response.get("object") == "response":
            del response["object"]
        for key in ("output", "status", "usage"):
            response.pop(key, None)
        start = Start(FAMILY, take_str(response, "id"), take_str(response, "model"))
        start.created = take_int(response, "created_at") or 0
        self._rest = response
        start.extras = dict(response) or None
        return [start]

    def _end(self, response: Json) -> list[Event]:
        out: list[Event] = []
        usage = response.pop("usage", None)
        if isinstance(usage, dict):
            out.append(UsageUpdate(parse_usage(usage)))
        error = response.get("error")
        if response.get("status") == "failed" and isinstance(error, dict):
            return [*out, Failed(parse_error(500, {"error": error}))]
        self._leftover(response.pop("output", None), out)
        for key in ("object", "id", "model", "created_at"):
            response.pop(key, None)
        finish = take_finish(response, [ToolCall("", "")] if self._called else [])
        news = {k: v for k, v in response.items() if k not in self._rest or self._rest[k] != v}
        if news:
            out.append(Extra(news))
        if finish is not None:
            out.append(Finished(finish))
        self._whole = True
        return out

    def _leftover(self, output: list[Json] | None, out: list[Event]) -> None:
        """Items whose end was not told: some servers only repeat them here."""
        for n, item in enumerate(output or ()):
            if n not in self._ended:
                out += self._done({"output_index": n, "item": item})
        for (n, _), index in self._parts.items():
            if n not in self._ended:
                out.append(PartStop(index))

    def end(self) -> list[Event]:
        return [End()] if self._whole else []


def _text_of(part: Part) -> str:
    if isinstance(part, ToolCall):
        return part.arguments
    return part.text if isinstance(part, Text | Refusal) else ""
