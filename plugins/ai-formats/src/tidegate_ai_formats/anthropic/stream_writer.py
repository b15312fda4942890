"""Streams, neutral to wire.

Grammar: `message_start (content_block_start content_block_delta* content_block_stop)*
message_delta message_stop`, blocks one after the other, `ping` anywhere; an `error` event ends a
stream that failed.
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
from tidegate_ai_formats.model import Finish, Json, Part, Reasoning, Refusal, Text, ToolCall, Usage
from tidegate_ai_formats.sequence import Sequencer
from tidegate_ai_formats.signatures import pack
from tidegate_ai_formats.wire import dumps

from .blocks import FAMILY, BlockWriter, write_citation
from .response import write_error, write_finish, write_usage


class AnthropicStreamWriter(StreamWriter):
    """See the module."""

    def __init__(self, losses: Losses) -> None:
        self._losses = losses
        self._sequencer = Sequencer()
        self._same = False
        self._usage: Usage | None = None
        self._finish: Finish | None = None
        self._refused = False
        self._part: Part | None = None
        self._count = 0
        self._open = False
        """Whether a block has been begun: one of text only begins with its first character."""
        self._other = False
        self._rest: Json = {}

    def write(self, event: Event) -> list[SseEvent]:
        out: list[SseEvent] = []
        if getattr(event, "candidate", 0):
            if not self._other:
                self._other = True
                self._losses.drop("choices[1]", "there is one answer here")
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
                self._stop(out, extras)
            case Cited(citation=citation):
                self._open_text(out)
                citing = {"type": "citations_delta", "citation": write_citation(citation)}
                out.append(self._block_delta(citing))
            case Start():
                self._start(event, out)
            case Finished(finish, extras=extras):
                self._finish = finish
                if not self._same:
                    self._losses.extras(extras, "choices[0]")
            case UsageUpdate(usage):
                self._usage = usage
            case Extra(values):
                if self._same:
                    self._rest.update(values)
                else:
                    self._losses.extras(values)
            case Failed(failure):
                out += self.fail(failure)
            case End():
                self._end(out)

    def _start(self, event: Start, out: list[SseEvent]) -> None:
        self._same = event.family == FAMILY
        self._usage = event.usage
        message: Json = {
            "id": event.id,
            "type": "message",
            "role": "assistant",
            "model": event.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": write_usage(event.usage),
        }
        if event.extras:
            if self._same:
                message |= event.extras
            else:
                self._losses.extras(event.extras)
        out.append(_event({"type": "message_start", "message": message}))

    def _begin(self, part: Part, out: list[SseEvent]) -> None:
        if isinstance(part, Text | ToolCall) and part.signature and not self._same:
            self._whole({"type": "redacted_thinking", "data": pack(part, FAMILY)}, out)
            part.signature = ""
        self._part = part
        if isinstance(part, Text | Refusal):
            text, part.text = part.text, ""
            self._refused = self._refused or isinstance(part, Refusal)
            if text or self._same:
                self._open_text(out)
            if text:
                out.append(self._block_delta({"type": "text_delta", "text": text}))
        elif isinstance(part, ToolCall):
            self._begin_call(part, out)
        elif isinstance(part, Reasoning) and not part.encrypted:
            self._begin_block({"type": "thinking", "thinking": "", "signature": ""}, out)
            if part.text:
                out.append(self._block_delta({"type": "thinking_delta", "thinking": part.text}))
        elif not isinstance(part, Reasoning):
            writer = BlockWriter(self._losses, same=self._same, request=False)
            block = writer.block(part, f"content[{self._count}]")
            if block is not None:
                self._whole(block, out)

    def _begin_call(self, part: ToolCall, out: list[SseEvent]) -> None:
        block: Json = {"type": "tool_use", "id": part.id, "name": part.name, "input": {}}
        if part.extras and self._same:
            block |= part.extras
        elif part.extras:
            self._losses.extras(part.extras, f"content[{self._count}]")
        self._begin_block(block, out)
        text, part.arguments = part.arguments, ""
        if text:
            self._arguments(part, text, out)

    def _begin_block(self, block: Json, out: list[SseEvent]) -> None:
        self._open = True
        start = {"type": "content_block_start", "index": self._count, "content_block": block}
        out.append(_event(start))

    def _whole(self, block: Json, out: list[SseEvent]) -> None:
        self._begin_block(block, out)
        self._close(out)

    def _close(self, out: list[SseEvent]) -> None:
        out.append(_event({"type": "content_block_stop", "index": self._count}))
        self._count += 1
        self._open = False

    def _open_text(self, out: list[SseEvent]) -> None:
        if not self._open:
            self._begin_block({"type": "text", "text": ""}, out)

    def _block_delta(self, delta: Json) -> SseEvent:
        return SseEvent(
            dumps({"type": "content_block_delta", "index": self._count, "delta": delta}),
            "content_block_delta",
        )

    def _delta(self, event: Delta, out: list[SseEvent]) -> None:
        part, text = self._part, event.text
        if event.kind == "text":
            if type(part) is Reasoning:
                out.append(self._block_delta({"type": "thinking_delta", "thinking": text}))
                return
            if text:
                if not self._open:
                    self._open_text(out)
                out.append(self._block_delta({"type": "text_delta", "text": text}))
                if event.logprobs:
                    self._losses.drop("logprobs")
        elif event.kind == "arguments":
            assert isinstance(part, ToolCall)
            self._arguments(part, text, out)
        elif isinstance(part, Reasoning | Text | ToolCall):
            extend(part, event)  # proofs are written once they are whole
        else:
            self._losses.drop(f"content[{self._count}].{event.kind}")

    def _arguments(self, part: ToolCall, text: str, out: list[SseEvent]) -> None:
        if part.custom:  # free text is given as the argument `input`, once it is whole
            part.arguments += text
            return
        out.append(self._block_delta({"type": "input_json_delta", "partial_json": text}))

    def _stop(self, out: list[SseEvent], extras: Json | None) -> None:
        part, self._part = self._part, None
        if extras and not self._same:
            self._losses.extras(extras, f"content[{self._count}]")
        if isinstance(part, ToolCall) and part.custom:
            text = dumps({"input": part.arguments})
            out.append(self._block_delta({"type": "input_json_delta", "partial_json": text}))
        if self._open:
            if isinstance(part, Reasoning) and (proof := pack(part, FAMILY)):
                out.append(self._block_delta({"type": "signature_delta", "signature": proof}))
            self._close(out)
        elif isinstance(part, Reasoning) and part.encrypted:
            self._whole({"type": "redacted_thinking", "data": pack(part, FAMILY)}, out)
        if isinstance(part, Text | ToolCall) and part.signature and not self._same:
            self._whole({"type": "redacted_thinking", "data": pack(part, FAMILY)}, out)

    def _end(self, out: list[SseEvent]) -> None:
        finish = self._finish
        delta = {
            "stop_reason": write_finish(finish, same=self._same, refused=self._refused),
            "stop_sequence": finish.stop if finish else None,
        }
        usage = write_usage(self._usage)
        out.append(_event({"type": "message_delta", "delta": delta, "usage": usage, **self._rest}))
        out.append(_event({"type": "message_stop"}))

    def fail(self, failure: Failure) -> list[SseEvent]:
        _, body = write_error(failure)
        return [_event({**body, "type": "error"})]


def _event(data: Json) -> SseEvent:
    return SseEvent(dumps(data), data["type"])
