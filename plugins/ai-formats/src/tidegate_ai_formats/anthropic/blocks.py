"""Content blocks, both ways."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from tidegate_ai_formats.losses import InvalidRequest, Losses
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
    ToolResult,
)
from tidegate_ai_formats.signatures import hoist, pack, unpack
from tidegate_ai_formats.wire import (
    arguments_object,
    arguments_text,
    take_bool,
    take_dict,
    take_str,
)

FAMILY: Final = "anthropic"


# -- parsing ------------------------------------------------------------------------------------


def parse_content(content: Any, field: str) -> list[Part]:
    """The parts of `content`: a string, or an array of blocks."""
    if isinstance(content, str):
        return [Text(content)]
    if not isinstance(content, list):
        raise InvalidRequest(field, "is neither a string nor an array of blocks")
    return [parse_block(block) for block in content]


def parse_block(block: Any) -> Part:
    """One block, taken apart."""
    if not isinstance(block, dict):
        return Opaque(FAMILY, {"value": block})
    kind = block.get("type")
    if kind == "text" and type(block.get("text")) is str:
        del block["type"]
        text = Text(block.pop("text"))
        if "cache_control" in block:
            text.cache = take_dict(block, "cache_control")
        if block.get("citations") and isinstance(block["citations"], list):
            text.citations = [parse_citation(one) for one in block.pop("citations")]
        text.extras = block or None
        return text
    if kind == "tool_use":
        del block["type"]
        call = ToolCall(
            take_str(block, "id"),
            take_str(block, "name"),
            arguments_text(block.pop("input", None)),
            cache=take_dict(block, "cache_control"),
        )
        call.extras = block or None
        return call
    if kind == "thinking":
        del block["type"]
        part = Reasoning()
        unpack(take_str(block, "signature"), FAMILY).put(part)
        part.text, part.extras = take_str(block, "thinking"), block or None
        return part
    if kind == "redacted_thinking":
        del block["type"]
        part = Reasoning()
        unpack(take_str(block, "data"), FAMILY, encrypted=True).put(part)
        part.extras = block or None
        return part
    return _parse_rare(block, kind)


def _parse_rare(block: Json, kind: Any) -> Part:
    if kind == "tool_result":
        del block["type"]
        result = ToolResult(take_str(block, "tool_use_id"), [])
        content = block.pop("content", None)
        if content is not None:
            result.parts = parse_content(content, "content")
        result.is_error = take_bool(block, "is_error") or False
        result.cache = take_dict(block, "cache_control")
        result.extras = block or None
        return result
    source = block.get("source")
    if kind in ("image", "document") and isinstance(source, dict):
        media = Media("image" if kind == "image" else "file")
        match source.get("type"):
            case "base64":
                media.mime, media.data = take_str(source, "media_type"), take_str(source, "data")
            case "url":
                media.url = take_str(source, "url")
            case "file":
                media.file_id = take_str(source, "file_id")
            case "text":
                media.mime, media.text = take_str(source, "media_type"), take_str(source, "data")
            case _:
                return Opaque(FAMILY, block)
        del block["type"], source["type"]
        if not source:
            del block["source"]
        media.name = take_str(block, "title")
        media.cache = take_dict(block, "cache_control")
        media.extras = block or None
        return media
    return Opaque(FAMILY, block)


def parse_citation(raw: Json) -> Citation:
    """A citation. Its own positions are of the source; those of the text are ours, if any."""
    return Citation(
        raw.get("url") or raw.get("source") or "",
        raw.get("title") or raw.get("document_title") or "",
        raw.get("cited_text") or "",
        raw.get("start_index"),
        raw.get("end_index"),
        FAMILY,
        raw,
    )


# -- writing ------------------------------------------------------------------------------------


def write_citation(citation: Citation) -> Json:
    """A citation; positions in the text, which this format has not, stand beside it."""
    if citation.family == FAMILY and citation.raw is not None:
        return citation.raw
    out: Json = {
        "type": "web_search_result_location",
        "url": citation.url,
        "title": citation.title,
        "cited_text": citation.text,
        "encrypted_index": "",
    }
    if citation.start is not None and citation.end is not None:
        out["start_index"], out["end_index"] = citation.start, citation.end
    return out


def write_answer(parts: Sequence[Part], losses: Losses, *, same: bool) -> list[Json]:
    """The content of an answer."""
    if len(parts) == 1:
        only = parts[0]
        if type(only) is Text and not only.signature and not only.extras and not only.citations:
            if only.logprobs:
                losses.drop("logprobs")
            return [{"type": "text", "text": only.text}] if only.text else []
    writer = BlockWriter(losses, same=same, request=False)
    return writer.all(parts if same else hoist(parts), "content")


class BlockWriter:
    """Writes blocks; `request`: for a provider, which takes no thought but its own."""

    def __init__(self, losses: Losses, *, same: bool, request: bool) -> None:
        self.losses = losses
        self.same = same
        self.request = request

    def all(self, parts: Iterable[Part], field: str) -> list[Json]:
        """The blocks of some parts."""
        out = []
        for n, part in enumerate(parts):
            block = self.block(part, f"{field}[{n}]")
            if block is not None:
                out.append(block)
        return out

    def block(self, part: Part, field: str) -> Json | None:
        """One block, or None where the part can't be said."""
        match part:
            case Text():
                out = self._text(part, field)
            case ToolCall():
                out = self._call(part, field)
            case Reasoning():
                out = self._thought(part, field)
            case ToolResult():
                out = self._result(part, field)
            case Media():
                out = self._media(part, field)
            case Refusal():
                out = {"type": "text", "text": part.text}
            case Opaque(family, value):
                if family == FAMILY and self.same:
                    return value
                self.losses.drop(f"{field}.{value.get('type', 'part')}")
                return None
        if out is None or isinstance(part, Opaque | Refusal):
            return out
        if not isinstance(part, Reasoning) and part.cache is not None:
            out["cache_control"] = part.cache
        if part.extras:
            if self.same:
                _merge(out, part.extras)
            else:
                self.losses.extras(part.extras, field)
        return out

    def _text(self, part: Text, field: str) -> Json | None:
        if not part.text and not self.same:
            return None  # empty blocks are refused by the API
        out: Json = {"type": "text", "text": part.text}
        if part.logprobs:
            self.losses.drop("logprobs")
        if part.citations:
            if self.request and not self.same:
                self.losses.note(f"{field}.citations", "citations can't be sent back here")
            else:
                out["citations"] = [write_citation(one) for one in part.citations]
        return out

    def _call(self, part: ToolCall, field: str) -> Json:
        value = arguments_object(part.arguments)
        if value is None:
            if not part.custom:
                self.losses.note(f"{field}.arguments", "they are no JSON object: sent as `input`")
            value = {"input": part.arguments}
        return {"type": "tool_use", "id": part.id, "name": part.name, "input": value}

    def _thought(self, part: Reasoning, field: str) -> Json | None:
        origin = part.origin
        mine = origin == FAMILY and (self.same or bool(part.signature or part.encrypted))
        if self.request and not mine:
            self.losses.note(f"{field}.thinking", "thought of another model can't be sent back")
            return None
        if part.encrypted and not part.text:
            return {"type": "redacted_thinking", "data": pack(part, FAMILY)}
        return {"type": "thinking", "thinking": part.text, "signature": pack(part, FAMILY)}

    def _result(self, part: ToolResult, field: str) -> Json:
        out: Json = {"type": "tool_result", "tool_use_id": part.call_id}
        if len(part.parts) == 1:
            only = part.parts[0]
            if type(only) is Text and not only.cache and not only.extras:
                out["content"] = only.text
        if part.parts and "content" not in out:
            out["content"] = self.all(part.parts, f"{field}.content")
        if part.is_error:
            out["is_error"] = True
        return out

    def _media(self, part: Media, field: str) -> Json | None:
        if part.kind in ("audio", "video"):
            self.losses.drop(field, f"{self.losses.target} takes no {part.kind}")
            return None
        source: Json
        if part.data:
            source = {"type": "base64", "media_type": part.mime, "data": part.data}
        elif part.file_id:
            source = {"type": "file", "file_id": part.file_id}
        elif part.text:
            source = {"type": "text", "media_type": part.mime or "text/plain", "data": part.text}
        else:
            source = {"type": "url", "url": part.url}
        out: Json = {"type": "image" if part.kind == "image" else "document", "source": source}
        if part.name:
            if part.kind == "image":
                self.losses.note(f"{field}.filename", "an image has no name here")
            else:
                out["title"] = part.name
        return out


def _merge(out: Json, extras: Json) -> None:
    for key, value in extras.items():
        if isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = out[key] | value
        else:
            out[key] = value
