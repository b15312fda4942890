"""The machine of OpenAI Responses: items in order, contents in items, whole values repeated."""

from __future__ import annotations

from typing import Any, Final

from .base import Machine, need, value

_ENDS: Final = ("response.completed", "response.incomplete", "response.failed")
_PIECES: Final = {
    "response.output_text.delta": ("output_text", "delta"),
    "response.refusal.delta": ("refusal", "delta"),
    "response.function_call_arguments.delta": ("function_call", "delta"),
    "response.custom_tool_call_input.delta": ("custom_tool_call", "delta"),
    "response.reasoning_summary_text.delta": ("reasoning", "delta"),
    "response.reasoning_text.delta": ("reasoning_text", "delta"),
}
_WHOLE: Final = {
    "response.output_text.done": ("output_text", "text"),
    "response.refusal.done": ("refusal", "refusal"),
    "response.function_call_arguments.done": ("function_call", "arguments"),
    "response.custom_tool_call_input.done": ("custom_tool_call", "input"),
    "response.reasoning_summary_text.done": ("reasoning", "text"),
    "response.reasoning_text.done": ("reasoning_text", "text"),
}
_OTHERS: Final = (
    "response.reasoning_summary_part.added",
    "response.reasoning_summary_part.done",
    "response.output_text.annotation.added",
)


class _Item:
    """The item that is open."""

    def __init__(self, item: Any) -> None:
        self.id = item.get("id")
        self.type = item["type"]
        self.contents = 0
        self.content = ""
        self.text = ""

    def step(self, kind: str, data: Any) -> None:
        """One event within the item."""
        need(data.get("item_id") == self.id, "the event names the open item")
        if kind in _PIECES or kind in _WHOLE:
            what, key = _PIECES.get(kind) or _WHOLE[kind]
            need(what == (self.content or self.type), f"no {what} is open")
            if kind in _PIECES:
                self.text += data[key]
            else:
                need(data[key] == self.text, "the whole is the sum of its deltas")
        elif kind == "response.content_part.added":
            need(not self.content, "contents do not overlap")
            need(data["content_index"] == self.contents, "contents are numbered from 0")
            self.content, self.text = data["part"]["type"], ""
        elif kind == "response.content_part.done":
            part = data["part"]
            need(part["type"] == self.content, "the content that is open ends")
            need(part.get("text", part.get("refusal")) == self.text, "it is the sum of its deltas")
            self.content, self.contents = "", self.contents + 1
        else:
            own = kind.startswith(f"response.{self.type}")  # of the provider's tools
            need(own or kind in _OTHERS, f"there is no event {kind}")


def responses() -> Machine:
    """See the writer."""
    number, items, item = 0, 0, None
    created = False
    while True:
        event = yield
        data = value(event, "response.completed is missing")
        kind = data["type"]
        need(event is not None and event.event == kind, "the event is named by its type")
        need(data["sequence_number"] == number, "events are numbered")
        number += 1
        if kind == "error":
            break
        if not created:
            need(kind == "response.created", "a stream begins with response.created")
            created = True
        elif kind in _ENDS:
            need(item is None or kind == _ENDS[2], "an item is open")
            response = data["response"]
            need(response["status"] == kind.rpartition(".")[2], "the status is the event's")
            need(kind == _ENDS[2] or len(response["output"]) == items, "every item is repeated")
            break
        elif kind == "response.output_item.added":
            need(item is None, "items do not overlap")
            need(data["output_index"] == items, "items are numbered from 0")
            item = _Item(data["item"])
        elif kind == "response.output_item.done":
            need(item is not None and not item.content, "the item's contents are whole")
            need(item is not None and data["item"].get("id") == item.id, "the open item ends")
            item, items = None, items + 1
        elif kind != "response.in_progress":
            need(item is not None, "an item is open")
            assert item is not None
            item.step(kind, data)
    yield
