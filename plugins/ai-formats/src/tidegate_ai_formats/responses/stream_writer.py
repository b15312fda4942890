"""Streams, neutral to wire.

Grammar: `response.created response.in_progress item* response.completed` (or `.incomplete`,
`.failed`), numbered; an item is `output_item.added … output_item.done`, a message's texts
`content_part.added output_text.delta* output_text.done content_part.done` in it. Items follow
each other. Texts that follow each other are one message.
"""

from __future__ import annotations

from typing import Any

from tidegate.api import SseEvent
from tidegate_ai_formats.chat.response import write_error
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
    Finish,
    Json,
    Part,
    Reasoning,
    Refusal,
    Request,
    Text,
    ToolCall,
    Usage,
)
from tidegate_ai_formats.sequence import Sequencer
from tidegate_ai_formats.wire import dumps

from .items import FAMILY, ItemWriter, write_citation
from .response import echo, envelope


class ResponsesStreamWriter(StreamWriter):
    """See the module."""

    def __init__(self, losses: Losses, request: Request | None = None) -> None:
        self._losses = losses
        self._request = request
        self._sequencer = Sequencer()
        self._number = 0
        self._same = False
        self._start: Start | None = None
        self._writer = ItemWriter(losses, same=False, request=False)
        self._rest: Json = {}
        self._usage: Usage | None = None
        self._finish: Finish | None = None
        self._output: list[Json] = []
        self._part: Part | None = None
        self._item: Json = {}
        self._texts: list[Text | Refusal] = []
        """The texts of the message item that is open."""
        self._pieces: list[str] = []
        """What the open text got since it was last put together: joining once is linear."""
        self._place: Json = {}
        """What every delta of the open part repeats: where it belongs."""

    def write(self, event: Event) -> list[SseEvent]:
        out: list[SseEvent] = []
        if getattr(event, "candidate", 0):
            return out
        for one in self._sequencer.push(event):
            self._one(one, out)
        return out

    def _event(self, kind: str, fields: Json) -> SseEvent:
        number = self._number
        self._number = number + 1
        return SseEvent(dumps({"type": kind, "sequence_number": number, **fields}), kind)

    def _one(self, event: Event, out: list[SseEvent]) -> None:
        match event:
            case Delta():
                self._delta(event, out)
            case PartStart(part=part):
                self._begin(part, out)
            case PartStop():
                self._stop(event, out)
            case Cited(citation=citation):
                self._settle()
                assert isinstance(self._part, Text)
                annotation = write_citation(citation, len(self._part.text))
                number = len(self._part.citations or ())
                self._part.citations = [*(self._part.citations or ()), citation]
                kind = "response.output_text.annotation.added"
                fields = {"annotation_index": number, "annotation": annotation}
                out.append(self._event(kind, self._place | fields))
            case Start():
                self._begin_stream(event, out)
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

    def _begin_stream(self, event: Start, out: list[SseEvent]) -> None:
        self._start = event
        self._same = event.family == FAMILY
        self._writer = ItemWriter(self._losses, same=self._same, request=False, seed=event.id)
        self._usage = event.usage
        if self._same:
            self._rest = dict(event.extras or {})
        else:
            self._rest = echo(self._request)
            self._losses.extras(event.extras)
        response = self._envelope(None)
        out.append(self._event("response.created", {"response": response}))
        out.append(self._event("response.in_progress", {"response": response}))

    def _envelope(self, finish: Finish | None) -> Json:
        start = self._start
        assert start is not None
        usage = self._usage if finish is not None else None
        return envelope(
            start.id,
            start.model,
            start.created,
            self._output,
            finish,
            usage,
            self._rest,
            same=self._same,
        )

    # -- parts ----------------------------------------------------------------------------------

    def _begin(self, part: Part, out: list[SseEvent]) -> None:
        if isinstance(part, Text | ToolCall) and part.signature and not self._same:
            proof = Reasoning(encrypted=part.signature, origin=part.origin)
            part.signature = ""
            self._whole(proof, out)
        if isinstance(part, Text | Refusal):
            self._begin_text(part, out)
            return
        self._close_message(out)
        self._part = part
        if isinstance(part, ToolCall):
            text, part.arguments = part.arguments, ""
            self._begin_item("fc", part, out)
            if text:
                self._one(Delta(0, text, "arguments"), out)
        elif isinstance(part, Reasoning):
            text, part.text = part.text, ""
            self._begin_item("rs", part, out)
            if text:
                self._one(Delta(0, text), out)

    def _begin_item(self, prefix: str, part: ToolCall | Reasoning, out: list[SseEvent]) -> None:
        own = part.item_id if isinstance(part, ToolCall) else part.id
        id = own if own and self._same else self._writer.id(prefix)
        self._item = {"id": id}
        if isinstance(part, ToolCall):
            kind, key = (
                ("custom_tool_call", "input")
                if part.custom
                else (
                    "function_call",
                    "arguments",
                )
            )
            self._item |= {"type": kind, "status": "in_progress", "call_id": part.id}
            self._item |= {"name": part.name, key: ""}
        else:
            self._item |= {"type": "reasoning", "summary": []}
        place = {"output_index": len(self._output)}
        self._place = {"item_id": id, **place}
        out.append(self._event("response.output_item.added", {**place, "item": self._item}))

    def _begin_text(self, part: Text | Refusal, out: list[SseEvent]) -> None:
        text, part.text = part.text, ""
        place = {"output_index": len(self._output)}
        if self._texts and self._same and self._texts[-1].id != part.id:
            self._close_message(out)
        if not self._texts:
            id = part.id if part.id and self._same else self._writer.id("msg")
            self._item = {"id": id, "type": "message", "status": "in_progress"}
            self._item |= {"role": "assistant", "content": []}
            out.append(self._event("response.output_item.added", {**place, "item": self._item}))
        self._place = {"item_id": self._item["id"], **place, "content_index": len(self._texts)}
        self._texts.append(part)
        self._part = part
        begun: Json = {"type": "refusal", "refusal": ""}
        if isinstance(part, Text):
            begun = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        out.append(self._event("response.content_part.added", {**self._place, "part": begun}))
        if text:
            self._one(Delta(0, text), out)

    def _delta(self, event: Delta, out: list[SseEvent]) -> None:
        part = self._part
        if part is None:
            return
        if event.kind == "text" and type(part) is Text:
            self._pieces.append(event.text)
            fields: Json = {"delta": event.text, "logprobs": event.logprobs or []}
            if event.logprobs:
                part.logprobs = [*(part.logprobs or ()), *event.logprobs]
            out.append(self._event("response.output_text.delta", self._place | fields))
            return
        if isinstance(part, Reasoning) and event.kind == "text" and not part.text:
            begun = {"summary_index": 0, "part": {"type": "summary_text", "text": ""}}
            out.append(self._event("response.reasoning_summary_part.added", self._place | begun))
        extend(part, event)
        if event.kind == "arguments":
            custom = isinstance(part, ToolCall) and part.custom
            kind = "custom_tool_call_input" if custom else "function_call_arguments"
            out.append(self._event(f"response.{kind}.delta", self._place | {"delta": event.text}))
        elif event.kind == "text" and isinstance(part, Refusal):
            out.append(self._event("response.refusal.delta", self._place | {"delta": event.text}))
        elif event.kind == "text":
            fields = {"summary_index": 0, "delta": event.text}
            kind = "response.reasoning_summary_text.delta"
            out.append(self._event(kind, self._place | fields))

    def _settle(self) -> None:
        if self._pieces and isinstance(self._part, Text):
            self._part.text += "".join(self._pieces)
            self._pieces.clear()

    def _stop(self, event: PartStop, out: list[SseEvent]) -> None:
        self._settle()
        part, self._part = self._part, None
        if event.part is not None and self._same and part is not None:
            if isinstance(event.part, Text | Refusal) and self._texts:
                self._texts[-1] = event.part
            part = event.part
        elif not self._same:
            self._losses.extras(event.extras, "output")
        if isinstance(part, Text | Refusal):
            self._stop_text(part, out)
        elif isinstance(part, ToolCall):
            custom = part.custom
            kind = "custom_tool_call_input" if custom else "function_call_arguments"
            if not part.arguments and not custom:
                part.arguments = "{}"
                fields = {"delta": "{}"}
                out.append(self._event(f"response.{kind}.delta", self._place | fields))
            fields = {"input" if custom else "arguments": part.arguments}
            out.append(self._event(f"response.{kind}.done", self._place | fields))
            self._finish_item(part, out)
        elif isinstance(part, Reasoning):
            if part.text:
                at = self._place | {"summary_index": 0}
                whole = {"type": "summary_text", "text": part.text}
                kind = "response.reasoning_summary"
                out.append(self._event(f"{kind}_text.done", at | {"text": part.text}))
                out.append(self._event(f"{kind}_part.done", at | {"part": whole}))
            self._finish_item(part, out)
        elif part is not None:
            self._whole(part, out)

    def _stop_text(self, part: Text | Refusal, out: list[SseEvent]) -> None:
        content = self._writer.content(part, "output")
        if isinstance(part, Text):
            content.setdefault("logprobs", [])
            said = {"text": part.text, "logprobs": part.logprobs or []}
            out.append(self._event("response.output_text.done", self._place | said))
        else:
            said = {"refusal": part.text}
            out.append(self._event("response.refusal.done", self._place | said))
        out.append(self._event("response.content_part.done", self._place | {"part": content}))
        if isinstance(part, Text) and part.signature and not self._same:
            proof = Reasoning(encrypted=part.signature, origin=part.origin)
            part.signature = ""
            self._whole(proof, out)

    def _finish_item(self, part: ToolCall | Reasoning, out: list[SseEvent]) -> None:
        item = self._writer.item(part, "output")
        assert item is not None
        item["id"] = self._item["id"]
        self._done(item, out)

    def _done(self, item: Json, out: list[SseEvent]) -> None:
        fields: dict[str, Any] = {"output_index": len(self._output), "item": item}
        out.append(self._event("response.output_item.done", fields))
        self._output.append(item)

    def _close_message(self, out: list[SseEvent]) -> None:
        if not self._texts:
            return
        item = self._writer.message(self._texts, "output")
        item["id"] = self._item["id"]
        self._texts = []
        self._done(item, out)

    def _whole(self, part: Part, out: list[SseEvent]) -> None:
        """A part without deltas."""
        self._close_message(out)
        item = self._writer.item(part, "output")
        if item is not None:
            fields = {"output_index": len(self._output), "item": item}
            out.append(self._event("response.output_item.added", fields))
            self._done(item, out)

    def _end(self, out: list[SseEvent]) -> None:
        self._close_message(out)
        response = self._envelope(self._finish or Finish("stop", "completed"))
        out.append(self._event(f"response.{response['status']}", {"response": response}))

    def fail(self, failure: Failure) -> list[SseEvent]:
        _, body = write_error(failure)
        error = body["error"]
        if self._start is None:
            return [self._event("error", {"code": None, "param": None, **error, "type": "error"})]
        said = {"code": error.get("code") or "server_error", "message": failure.message}
        response = self._envelope(Finish("error", "failed"))
        response |= {"status": "failed", "error": said}
        return [self._event("response.failed", {"response": response})]
