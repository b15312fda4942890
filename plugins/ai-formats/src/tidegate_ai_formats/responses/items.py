"""Items of input and output, both ways.

A message item holds several texts; each becomes a part, which keeps the item's id and what else
the item says (`item`, one object for all its parts), so that the item can be put together again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from typing_extensions import TypeIs

from tidegate_ai_formats.chat.parts import set_url
from tidegate_ai_formats.losses import Losses
from tidegate_ai_formats.model import (
    Citation,
    Json,
    Media,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
)
from tidegate_ai_formats.signatures import hoist, pack, unpack
from tidegate_ai_formats.wire import take_str

FAMILY: Final = "responses"


# -- parsing ------------------------------------------------------------------------------------


def parse_item(item: Any) -> list[Part]:
    """The parts of an item of the assistant's."""
    if not isinstance(item, dict):
        return [Opaque(FAMILY, {"value": item})]
    match item.get("type"):
        case "message" if item.get("content"):
            return parse_message(item)
        case "reasoning":
            return [parse_reasoning(item)]
        case "function_call" | "custom_tool_call":
            return [parse_call(item)]
        case "image_generation_call" if isinstance(item.get("result"), str):
            mime = f"image/{item.get('output_format') or 'png'}"
            data = item.pop("result")
            return [Media("image", mime, data, extras=item)]
    return [Opaque(FAMILY, item)]


def parse_message(item: Json) -> list[Part]:
    """The texts of a message item."""
    id = take_str(item, "id")
    content = item.pop("content")
    if isinstance(content, str):
        return [Text(content, id=id, item=item)]
    parts = [parse_content(one) for one in content]
    for part in parts:
        if isinstance(part, Text | Refusal):
            part.id = id
        if isinstance(part, Text | Refusal | Opaque):
            part.item = item
    if id and not any(isinstance(part, Text | Refusal) for part in parts):
        item["id"] = id  # no text keeps it
    return parts


def parse_content(raw: Any) -> Part:
    """One entry of a content array, of input or output."""
    if not isinstance(raw, dict):
        return Opaque(FAMILY, {"value": raw})
    kind = raw.get("type")
    if kind in ("output_text", "input_text", "text") and type(raw.get("text")) is str:
        del raw["type"]
        text = Text(raw.pop("text"))
        annotations = raw.get("annotations")
        if annotations:
            text.citations = [parse_citation(one) for one in raw.pop("annotations")]
        if raw.get("logprobs"):
            text.logprobs = raw.pop("logprobs")
        text.extras = raw or None
        return text
    if kind == "refusal":
        del raw["type"]
        return Refusal(take_str(raw, "refusal"), extras=raw or None)
    if kind in ("input_image", "input_file", "input_audio"):
        return _parse_media(raw, kind)
    return Opaque(FAMILY, raw)


def _parse_media(raw: Json, kind: str) -> Media:
    del raw["type"]
    media = Media("image" if kind == "input_image" else "file")
    if kind == "input_image":
        set_url(media, take_str(raw, "image_url"))
        media.detail = take_str(raw, "detail")
    elif kind == "input_audio":
        media.kind = "audio"
        audio = raw.pop("input_audio", None) or {}
        suffix = audio.get("format") or "wav"
        media.data = audio.get("data") or ""
        media.mime = {"mp3": "audio/mpeg"}.get(suffix, f"audio/{suffix}")
    else:
        set_url(media, take_str(raw, "file_data") or take_str(raw, "file_url"))
        if media.url and ":" not in media.url:
            media.data, media.url = media.url, ""  # base64 without a prefix
        media.name = take_str(raw, "filename")
    media.file_id = take_str(raw, "file_id")
    media.extras = raw or None
    return media


def parse_citation(raw: Json) -> Citation:
    """An annotation: of a URL, a file, a file path."""
    return Citation(
        raw.get("url") or raw.get("file_id") or "",
        raw.get("title") or raw.get("filename") or "",
        raw.get("cited_text") or "",
        raw.get("start_index"),
        raw.get("end_index"),
        FAMILY,
        raw,
    )


def parse_reasoning(item: Json) -> Reasoning:
    """A reasoning item: summaries or the thought itself, and its encrypted form."""
    del item["type"]
    raw: Json = {key: item.pop(key) for key in ("summary", "content") if key in item}
    part = Reasoning(id=take_str(item, "id"), raw=raw)
    content = [one.get("text") or "" for one in raw.get("content") or ()]
    if content:
        part.text = "\n\n".join(content)
    else:
        part.summary = True
        part.text = "\n\n".join(one.get("text") or "" for one in raw.get("summary") or ())
    if type(item.get("encrypted_content")) is str:
        unpack(item.pop("encrypted_content"), FAMILY, encrypted=True).put(part)
    part.extras = item or None
    return part


def parse_call(item: Json) -> ToolCall:
    """A call of a function or of a custom tool."""
    custom = item.pop("type") == "custom_tool_call"
    part = ToolCall(
        take_str(item, "call_id"),
        take_str(item, "name"),
        take_str(item, "input" if custom else "arguments"),
        custom=custom,
        item_id=take_str(item, "id"),
    )
    part.extras = item or None
    return part


# -- writing ------------------------------------------------------------------------------------


class ItemWriter:
    """Writes items; `request`: for a provider, which takes no thought but its own.

    `seed` begins the ids of items that have none: those of answers must have one.
    """

    def __init__(self, losses: Losses, *, same: bool, request: bool, seed: str = "") -> None:
        self.losses = losses
        self.same = same
        self.request = request
        self.seed = seed
        self.count = 0

    def id(self, prefix: str) -> str:
        """An id for an item that has none."""
        self.count += 1
        return f"{prefix}_{self.seed}_{self.count}"

    def all(self, parts: Sequence[Part], field: str) -> list[Json]:
        """The items of some parts of the assistant's."""
        out: list[Json] = []
        group: list[Text | Refusal | Opaque] = []
        if not self.same:
            parts = hoist(parts)
        for n, part in enumerate(parts):
            if self._in_message(part):
                if group and not self._together(group[-1], part):
                    out.append(self.message(group, f"{field}[{n}]"))
                    group = []
                group.append(part)
                continue
            if group:
                out.append(self.message(group, f"{field}[{n}]"))
                group = []
            item = self.item(part, f"{field}[{n}]")
            if item is not None:
                out.append(item)
        if group:
            out.append(self.message(group, field))
        return out

    def _in_message(self, part: Part) -> TypeIs[Text | Refusal | Opaque]:
        """Whether a part is an entry of a message's content."""
        if isinstance(part, Opaque):
            return self.same and part.family == FAMILY and part.item is not None
        return isinstance(part, Text | Refusal)

    def _together(self, one: Text | Refusal | Opaque, other: Text | Refusal | Opaque) -> bool:
        return one.item is other.item if self.same else True

    def message(self, group: Sequence[Text | Refusal | Opaque], field: str) -> Json:
        """The message item of some texts."""
        first = group[0]
        item: Json = {}
        content: Any = [self.content(part, field) for part in group]
        if self.same and self.request and len(group) == 1 and isinstance(first, Text):
            content = first.text if _plain(first) else content
        id = next((part.id for part in group if isinstance(part, Text | Refusal)), "")
        if id and self.same:
            item["id"] = id
        elif not self.request:
            item["id"] = self.id("msg")
        item |= {"type": "message", "role": "assistant", "content": content}
        if self.same and first.item is not None:
            item |= first.item
        elif not self.request:
            item["status"] = "completed"
        return item

    def content(self, part: Text | Refusal | Opaque, field: str) -> Json:
        """One entry of a message's content."""
        if isinstance(part, Opaque):
            return part.value
        if isinstance(part, Refusal):
            return {"type": "refusal", "refusal": part.text, **self._extras(part.extras, field)}
        out: Json = {"type": "output_text", "text": part.text}
        if part.citations:
            out["annotations"] = [write_citation(one, len(part.text)) for one in part.citations]
        elif not self.same:
            out["annotations"] = []
        if part.logprobs:
            out["logprobs"] = part.logprobs
        if self.request and not self.same:
            out.pop("annotations")
            out.pop("logprobs", None)
        return out | self._extras(part.extras, field)

    def _extras(self, extras: Json | None, field: str) -> Json:
        if self.same:
            return extras or {}
        self.losses.extras(extras, field)
        return {}

    def item(self, part: Part, field: str) -> Json | None:
        """The item of a part that is no text; None where it can't be said."""
        if isinstance(part, ToolCall):
            return self._call(part, field)
        if isinstance(part, Reasoning):
            return self._thought(part, field)
        if isinstance(part, Opaque) and part.family == FAMILY and self.same:
            return part.value
        if isinstance(part, Media) and part.kind == "image" and part.data:
            if self.same:
                return {"result": part.data, **(part.extras or {})}
            if not self.request:
                return {
                    "id": self.id("ig"),
                    "type": "image_generation_call",
                    "status": "completed",
                    "output_format": part.mime.removeprefix("image/") or "png",
                    "result": part.data,
                }
        what = part.value.get("type", "part") if isinstance(part, Opaque) else type(part).__name__
        self.losses.drop(f"{field}.{what}")
        return None

    def _call(self, part: ToolCall, field: str) -> Json:
        kind, key = ("function_call", "arguments")
        if part.custom:
            kind, key = ("custom_tool_call", "input")
        item: Json = {"type": kind}
        if part.item_id and self.same:
            item["id"] = part.item_id
        elif not self.request:
            item["id"] = self.id("fc")
        item |= {"call_id": part.id, "name": part.name, key: part.arguments}
        if not self.same and not part.arguments and not part.custom:
            item[key] = "{}"
        if not self.request and not self.same:
            item["status"] = "completed"
        return item | self._extras(part.extras, field)

    def _thought(self, part: Reasoning, field: str) -> Json | None:
        if self.same and part.raw is not None:
            item: Json = {"type": "reasoning", **part.raw, **(part.extras or {})}
            if part.id:
                item["id"] = part.id
            if part.encrypted or part.signature:
                item["encrypted_content"] = pack(part, FAMILY)
            return item
        if self.request and (part.origin != FAMILY or not part.encrypted):
            self.losses.note(f"{field}.reasoning", "thought of another model can't be sent back")
            return None
        out: Json = {"id": part.id or self.id("rs"), "type": "reasoning", "summary": []}
        if part.text:
            out["summary"].append({"type": "summary_text", "text": part.text})
        proof = pack(part, FAMILY)
        if proof:
            out["encrypted_content"] = proof
        if not self.request:
            self.losses.extras(part.extras, field)
        return out


def _plain(part: Text) -> bool:
    return (
        not part.id
        and not part.extras
        and not part.citations
        and (part.item is None or not part.item.get("type"))
    )


def write_citation(citation: Citation, length: int) -> Json:
    """An annotation; without positions it covers the whole text."""
    if citation.family == FAMILY and citation.raw is not None:
        return citation.raw
    out: Json = {
        "type": "url_citation",
        "start_index": citation.start if citation.start is not None else 0,
        "end_index": citation.end if citation.end is not None else length,
        "url": citation.url,
        "title": citation.title,
    }
    if citation.text:
        out["cited_text"] = citation.text
    return out
