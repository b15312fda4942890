"""Streams, both ways.

Grammar: `messageStart (contentBlockStart? contentBlockDelta* contentBlockStop)* messageStop
metadata`; only calls of tools have a `contentBlockStart`. Events are named by their header.
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
from tidegate_ai_formats.format import StreamParser, StreamWriter
from tidegate_ai_formats.losses import Failure, Losses
from tidegate_ai_formats.model import (
    Finish,
    Json,
    Media,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    Usage,
)
from tidegate_ai_formats.sequence import Sequencer
from tidegate_ai_formats.signatures import Proof, pack, pack_base64, unpack, unpack_base64
from tidegate_ai_formats.wire import dumps, loads

from .blocks import FAMILY, BlockWriter, merge, parse_block, parse_citation, write_citation
from .response import (
    FINISH,
    parse_usage,
    stream_failure,
    write_error,
    write_finish,
    write_usage,
)


class ConverseStreamParser(StreamParser):
    """Wire to neutral."""

    def __init__(self) -> None:
        self._open: set[int] = set()
        self._whole = False

    def feed(self, event: SseEvent) -> list[Event]:
        data = loads(event.data)
        data.pop("p", None)  # padding
        name = event.event
        if name == "contentBlockDelta":
            return self._delta(data["contentBlockIndex"], data["delta"])
        if name == "contentBlockStart":
            index = data["contentBlockIndex"]
            self._open.add(index)
            part = parse_block(data["start"])
            if isinstance(part, ToolCall):
                part.arguments = ""
            return [PartStart(index, part)]
        if name == "contentBlockStop":
            index = data["contentBlockIndex"]
            if index in self._open:
                return [PartStop(index)]
            return [PartStart(index, Text("")), PartStop(index)]
        if name == "messageStart":
            return [Start(FAMILY, "", "")]
        if name == "messageStop":
            self._whole = True
            word = data.pop("stopReason", "")
            rest: list[Event] = [Extra(data)] if data else []
            return [*rest, Finished(Finish(FINISH.get(word, "stop"), word))]
        if name == "metadata":
            out: list[Event] = []
            if usage := data.pop("usage", None):
                out.append(UsageUpdate(parse_usage(usage)))
            return [*out, Extra(data)] if data else out
        if name.startswith("!"):
            return [Failed(stream_failure(name[1:], data))]
        return [Extra({name: data})]

    def _delta(self, index: int, delta: Json) -> list[Event]:
        if "text" in delta:
            return [*self._begin(index, Text("")), Delta(index, delta["text"])]
        if "toolUse" in delta:
            return [Delta(index, delta["toolUse"].get("input") or "", "arguments")]
        if "reasoningContent" in delta:
            out = self._begin(index, Reasoning())
            thought = delta["reasoningContent"]
            if "text" in thought:
                out.append(Delta(index, thought["text"]))
            if "signature" in thought:
                out.append(_proof_delta(index, unpack(thought["signature"], FAMILY)))
            if "redactedContent" in thought:
                proof = unpack_base64(thought["redactedContent"], FAMILY, encrypted=True)
                out.append(_proof_delta(index, proof))
            return out
        if "citation" in delta:
            out = self._begin(index, Text(""))
            return [*out, Cited(index, parse_citation(delta["citation"]))]
        return [*self._begin(index, Text("")), Extra({f"content[{index}]": delta})]

    def _begin(self, index: int, part: Part) -> list[Event]:
        if index in self._open:
            return []
        self._open.add(index)
        return [PartStart(index, part)]

    def end(self) -> list[Event]:
        return [End()] if self._whole else []


def _proof_delta(index: int, proof: Proof) -> Delta:
    if proof.signature:
        return Delta(index, proof.signature, "signature", origin=proof.origin)
    return Delta(index, proof.encrypted, "encrypted", origin=proof.origin)


class ConverseStreamWriter(StreamWriter):
    """Neutral to wire."""

    def __init__(self, losses: Losses) -> None:
        self._losses = losses
        self._sequencer = Sequencer()
        self._same = False
        self._usage = Usage()
        self._finish: Finish | None = None
        self._part: Part | None = None
        self._count = 0
        self._said = False
        self._rest: Json = {}

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
            case PartStop(extras=extras):
                if not self._same:
                    self._losses.extras(extras, f"content[{self._count}]")
                self._stop(out)
            case Cited(citation=citation):
                self._block_delta({"citation": write_citation(citation)}, out)
            case Start():
                self._same = event.family == FAMILY
                self._usage = event.usage or self._usage
                if not self._same:
                    self._losses.extras(event.extras)
                out.append(_event("messageStart", {"role": "assistant"}))
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
                out += self.fail(failure)
            case End():
                self._end(out)

    def _block_delta(self, delta: Json, out: list[SseEvent]) -> None:
        self._said = True
        out.append(_event("contentBlockDelta", {"contentBlockIndex": self._count, "delta": delta}))

    def _begin(self, part: Part, out: list[SseEvent]) -> None:
        if isinstance(part, Text | ToolCall) and part.signature and not self._same:
            self._proof(pack_base64(part, FAMILY), out)
            part.signature = ""
        self._part, self._said = part, False
        if isinstance(part, ToolCall):
            text, part.arguments = part.arguments, ""
            use: Json = {"toolUseId": part.id, "name": part.name}
            start: Json = {"toolUse": use}
            if part.extras and self._same:
                merge(start, part.extras)
            elif part.extras:
                self._losses.extras(part.extras, f"content[{self._count}]")
            fields = {"contentBlockIndex": self._count, "start": start}
            out.append(_event("contentBlockStart", fields))
            self._said = True
            if text:
                self._delta(Delta(0, text, "arguments"), out)
        elif isinstance(part, Text | Reasoning | Refusal):
            text, part.text = part.text, ""
            if text:
                self._delta(Delta(0, text), out)

    def _proof(self, data: str, out: list[SseEvent]) -> None:
        self._block_delta({"reasoningContent": {"redactedContent": data}}, out)
        self._close(out)

    def _close(self, out: list[SseEvent]) -> None:
        out.append(_event("contentBlockStop", {"contentBlockIndex": self._count}))
        self._count += 1

    def _delta(self, event: Delta, out: list[SseEvent]) -> None:
        part = self._part
        if event.kind == "text":
            if type(part) is Reasoning:
                self._block_delta({"reasoningContent": {"text": event.text}}, out)
            else:
                if event.logprobs:
                    self._losses.drop("logprobs")
                self._block_delta({"text": event.text}, out)
        elif event.kind == "arguments" and isinstance(part, ToolCall) and not part.custom:
            self._block_delta({"toolUse": {"input": event.text}}, out)
        elif part is not None:
            extend(part, event)

    def _stop(self, out: list[SseEvent]) -> None:
        part, self._part = self._part, None
        if isinstance(part, Reasoning):
            if self._said and (proof := pack(part, FAMILY)):
                self._block_delta({"reasoningContent": {"signature": proof}}, out)
            elif proof := pack_base64(part, FAMILY):
                self._block_delta({"reasoningContent": {"redactedContent": proof}}, out)
        elif isinstance(part, ToolCall) and part.custom:
            self._block_delta({"toolUse": {"input": dumps({"input": part.arguments})}}, out)
        elif part is not None and not isinstance(part, Text | ToolCall | Refusal):
            writer = BlockWriter(self._losses, same=self._same, request=False)
            block = writer.block(part, f"content[{self._count}]")
            if block is not None:
                self._block_delta(block, out)
        if self._said or (self._same and isinstance(part, Text)):
            self._close(out)
        if isinstance(part, Text | ToolCall) and part.signature and not self._same:
            self._proof(pack_base64(part, FAMILY), out)

    def _end(self, out: list[SseEvent]) -> None:
        stop: Json = {"stopReason": write_finish(self._finish, same=self._same)}
        if "additionalModelResponseFields" in self._rest:
            key = "additionalModelResponseFields"
            stop[key] = self._rest.pop(key)
        out.append(_event("messageStop", stop))
        last: Json = {"usage": write_usage(self._usage), "metrics": {"latencyMs": 0}}
        out.append(_event("metadata", last | self._rest))

    def fail(self, failure: Failure) -> list[SseEvent]:
        _, body = write_error(failure)
        name = str(body.get("__type") or failure.code or "InternalServerException")
        name = name[:1].lower() + name[1:]
        if name not in _EXCEPTIONS:
            name = "modelStreamErrorException"
        return [SseEvent(dumps({"message": failure.message}), f"!{name}")]


_EXCEPTIONS = (
    "internalServerException",
    "modelStreamErrorException",
    "serviceUnavailableException",
    "throttlingException",
    "validationException",
)


def _event(name: str, data: Json) -> SseEvent:
    return SseEvent(dumps(data), name)


__all__ = ["ConverseStreamParser", "ConverseStreamWriter", "Media"]
