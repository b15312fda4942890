"""Streams, wire to neutral: the blocks of this format are our parts."""

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
)
from tidegate_ai_formats.format import StreamParser
from tidegate_ai_formats.model import Json, Opaque, ToolCall
from tidegate_ai_formats.signatures import unpack
from tidegate_ai_formats.wire import dumps, loads, take_dict, take_str

from .blocks import FAMILY, parse_block, parse_citation
from .response import parse_error, parse_usage, take_finish


class AnthropicStreamParser(StreamParser):
    """See the module. Blocks of the provider's own tools come out whole, at their end."""

    def __init__(self) -> None:
        self._usage: Json = {}
        self._opaque: dict[int, tuple[Opaque, list[str]]] = {}
        self._whole = False

    def feed(self, event: SseEvent) -> list[Event]:
        data = loads(event.data)
        kind = data.get("type")
        if kind == "content_block_delta":
            return self._delta(data["index"], data["delta"])
        match kind:
            case "content_block_start":
                return self._begin(data["index"], data["content_block"])
            case "content_block_stop":
                return self._stop(data["index"], data)
            case "message_start":
                return self._start(data)
            case "message_delta":
                return self._end(data)
            case "message_stop":
                self._whole = True
                rest = {k: v for k, v in data.items() if k != "type"}
                return [Extra(rest)] if rest else []
            case "ping":
                return []
            case "error":
                return [Failed(parse_error(0, data))]
        return [Extra({str(kind): data})]

    def _start(self, data: Json) -> list[Event]:
        message = data["message"]
        for key in ("type", "role", "stop_reason", "stop_sequence"):
            if message.get(key) in (None, "message", "assistant"):
                message.pop(key, None)
        content = message.pop("content", None)
        usage = take_dict(message, "usage")
        start = Start(FAMILY, take_str(message, "id"), take_str(message, "model"))
        if usage is not None:
            self._usage = usage
            start.usage = parse_usage(usage)
        start.extras = message or None
        out: list[Event] = [start]
        for n, block in enumerate(content or ()):
            out += [PartStart(n, parse_block(block)), PartStop(n)]
        return out

    def _begin(self, index: int, block: Json) -> list[Event]:
        kind = block.get("type")
        if kind == "text" and block.get("citations") == []:
            del block["citations"]
        if kind == "tool_use":
            given = block.pop("input", None)
            part = parse_block(block)
            assert isinstance(part, ToolCall)
            part.arguments = ""
            out: list[Event] = [PartStart(index, part)]
            if given:
                out.append(Delta(index, dumps(given), "arguments"))
            return out
        part = parse_block(block)
        if isinstance(part, Opaque):
            self._opaque[index] = (part, [])
            return []
        return [PartStart(index, part)]

    def _delta(self, index: int, delta: Json) -> list[Event]:
        kind = delta.get("type")
        if kind == "text_delta":
            return [Delta(index, delta["text"])]
        if kind == "input_json_delta":
            piece = delta["partial_json"]
            if index in self._opaque:
                self._opaque[index][1].append(piece)
                return []
            return [Delta(index, piece, "arguments")] if piece else []
        if kind == "thinking_delta":
            return [Delta(index, delta["thinking"])]
        if kind == "signature_delta":
            proof = unpack(delta["signature"], FAMILY)
            if proof.encrypted:
                return [Delta(index, proof.encrypted, "encrypted", origin=proof.origin)]
            return [Delta(index, proof.signature, "signature", origin=proof.origin)]
        if kind == "citations_delta":
            return [Cited(index, parse_citation(delta["citation"]))]
        return [Extra({f"content[{index}].{kind}": delta})]

    def _stop(self, index: int, data: Json) -> list[Event]:
        rest = {k: v for k, v in data.items() if k not in ("type", "index")}
        held = self._opaque.pop(index, None)
        if held is None:
            return [PartStop(index, extras=rest or None)]
        part, pieces = held
        if pieces:
            text = "".join(pieces)
            try:
                part.value["input"] = loads(text or "{}")
            except ValueError:
                part.value["input"] = text
        return [PartStart(index, part), PartStop(index, extras=rest or None)]

    def _end(self, data: Json) -> list[Event]:
        out: list[Event] = []
        delta = data.get("delta") or {}
        finish = take_finish(delta)
        if usage := data.get("usage"):
            self._usage = {**self._usage, **{k: v for k, v in usage.items() if v is not None}}
            out.append(UsageUpdate(parse_usage(self._usage)))
        rest = {k: v for k, v in data.items() if k not in ("type", "delta", "usage")}
        rest |= {k: v for k, v in delta.items() if not (k == "stop_sequence" and v is None)}
        if rest:
            out.append(Extra(rest))
        if finish is not None:
            out.append(Finished(finish))
        return out

    def end(self) -> list[Event]:
        return [End()] if self._whole else []
