"""Content blocks, both ways. A cache point is a block after what it marks; here it is a mark."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from tidegate_ai_formats.losses import Losses
from tidegate_ai_formats.model import (
    Citation,
    Json,
    Media,
    MediaKind,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)
from tidegate_ai_formats.signatures import hoist, pack, pack_base64, unpack, unpack_base64
from tidegate_ai_formats.wire import (
    arguments_object,
    arguments_text,
    dumps,
    loads,
    take_dict,
    take_list,
    take_str,
)

FAMILY: Final = "converse"
_MIMES: Final = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "gif": "image/gif",
    "webp": "image/webp",
    "pdf": "application/pdf",
    "csv": "text/csv",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "html": "text/html",
    "txt": "text/plain",
    "md": "text/markdown",
}
_FORMATS: Final = {mime: name for name, mime in _MIMES.items()} | {"image/jpg": "jpeg"}
_KINDS: Final[dict[str, MediaKind]] = {
    "image": "image",
    "document": "file",
    "video": "video",
    "audio": "audio",
}
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9 \-()\[\]]+")


# -- parsing ------------------------------------------------------------------------------------


def parse_blocks(blocks: Iterable[Any]) -> list[Part]:
    """The parts of some blocks."""
    parts: list[Part] = []
    for block in blocks:
        point = block.get("cachePoint") if isinstance(block, dict) else None
        last = parts[-1] if parts else None
        if isinstance(point, dict) and isinstance(last, Text | ToolCall | ToolResult | Media):
            last.cache = {"type": "ephemeral"}
            if "ttl" in point:
                last.cache["ttl"] = point["ttl"]
            continue
        parts.append(parse_block(block))
    return parts


def parse_block(block: Any) -> Part:
    """One block."""
    if not isinstance(block, dict):
        return Opaque(FAMILY, {"value": block})
    if type(block.get("text")) is str:
        return Text(block.pop("text"), extras=block or None)
    for key, parse in _PARSERS.items():
        inner = block.get(key)
        if isinstance(inner, dict):
            return parse(block, inner)
    for key, kind in _KINDS.items():
        if isinstance(block.get(key), dict):
            return _parse_media(block, key, kind)
    return Opaque(FAMILY, block)


def _parse_call(block: Json, inner: Json) -> Part:
    del block["toolUse"]
    part = ToolCall(
        take_str(inner, "toolUseId"),
        take_str(inner, "name"),
        arguments_text(inner.pop("input", None)),
    )
    if inner:
        block["toolUse"] = inner
    part.extras = block or None
    return part


def _parse_thought(block: Json, inner: Json) -> Part:
    text = inner.get("reasoningText")
    part = Reasoning(origin=FAMILY)
    if isinstance(text, dict):
        part.text = text.get("text") or ""
        unpack(text.get("signature") or "", FAMILY).put(part)
    elif isinstance(inner.get("redactedContent"), str):
        unpack_base64(inner["redactedContent"], FAMILY, encrypted=True).put(part)
    part.raw = block["reasoningContent"]
    return part


def _parse_cited(block: Json, inner: Json) -> Part:
    text = "".join(one.get("text") or "" for one in inner.get("content") or ())
    citations = [parse_citation(one) for one in inner.get("citations") or ()]
    return Text(text, citations or None, item=block)


def _parse_result(block: Json, inner: Json) -> Part:
    del block["toolResult"]
    result = ToolResult(take_str(inner, "toolUseId"), [])
    for one in take_list(inner, "content") or ():
        if isinstance(one, dict) and "json" in one:
            result.raw = result.raw or {}
            result.raw[str(len(result.parts))] = one
            result.parts.append(Text(dumps(one["json"])))
        else:
            result.parts.append(parse_block(one))
    if inner.get("status") in ("success", "error"):
        result.is_error = inner["status"] == "error"
        if result.is_error:
            del inner["status"]
    if inner:
        block["toolResult"] = inner
    result.extras = block or None
    return result


_PARSERS: Final = {
    "toolUse": _parse_call,
    "reasoningContent": _parse_thought,
    "citationsContent": _parse_cited,
    "toolResult": _parse_result,
}


def _parse_media(block: Json, key: str, kind: MediaKind) -> Part:
    inner = block[key]
    source = inner.get("source")
    if not isinstance(source, dict) or not (source.keys() & {"bytes", "text", "s3Location"}):
        return Opaque(FAMILY, block)
    del block[key]
    name = take_str(inner, "format")
    media = Media(kind, _MIMES.get(name, f"{kind}/{name}" if kind != "file" else name))
    media.data = take_str(source, "bytes")
    media.text = take_str(source, "text")
    location = source.get("s3Location")
    if isinstance(location, dict) and location.keys() == {"uri"}:
        media.url = source.pop("s3Location")["uri"]
    if not source:
        del inner["source"]
    media.name = take_str(inner, "name")
    if inner:
        block[key] = inner
    media.extras = block or None
    return media


def parse_citation(raw: Json) -> Citation:
    """A citation: of a document, a search result or a web page."""
    location = raw.get("location") or {}
    web = location.get("web") if isinstance(location, dict) else None
    url = web.get("url") if isinstance(web, dict) else None
    text = "".join(one.get("text") or "" for one in raw.get("sourceContent") or ())
    title = raw.get("title") or ""
    return Citation(url or raw.get("source") or "", title, text, family=FAMILY, raw=raw)


# -- writing ------------------------------------------------------------------------------------


def write_citation(citation: Citation) -> Json:
    """A citation."""
    if citation.family == FAMILY and citation.raw is not None:
        return citation.raw
    out: Json = {"title": citation.title}
    if citation.text:
        out["sourceContent"] = [{"text": citation.text}]
    if citation.url:
        out["location"] = {"web": {"url": citation.url}}
    return out


def cache_point(cache: Json) -> Json:
    """The block of a cache mark."""
    point = {"type": "default"}
    if cache.get("ttl") and cache["ttl"] != "5m":
        point["ttl"] = cache["ttl"]
    return {"cachePoint": point}


class BlockWriter:
    """Writes blocks; `request`: for a provider, which takes no thought but its own."""

    def __init__(self, losses: Losses, *, same: bool, request: bool) -> None:
        self.losses = losses
        self.same = same
        self.request = request
        self._documents = 0

    def all(self, parts: Sequence[Part], field: str) -> list[Json]:
        """The blocks of some parts, cache points among them."""
        out: list[Json] = []
        for n, part in enumerate(parts if self.same or self.request else hoist(parts)):
            block = self.block(part, f"{field}[{n}]")
            if block is None:
                continue
            out.append(block)
            cache = getattr(part, "cache", None)
            if cache is not None:
                out.append(cache_point(cache))
        return out

    def block(self, part: Part, field: str) -> Json | None:
        """One block; None where the part can't be said."""
        match part:
            case Text():
                out = self._text(part, field)
            case ToolCall():
                out = self._call(part, field)
            case Reasoning():
                return self._thought(part, field)
            case ToolResult():
                out = self._result(part, field)
            case Media():
                out = self._media(part, field)
            case Refusal():
                return {"text": part.text}
            case Opaque(family, value):
                if family == FAMILY and self.same:
                    return value
                self.losses.drop(f"{field}.{value.get('type', 'part')}")
                return None
        if out is not None and part.extras:
            if self.same:
                merge(out, part.extras)
            else:
                self.losses.extras(part.extras, field)
        return out

    def _text(self, part: Text, field: str) -> Json | None:
        if self.same and part.item is not None:
            return dict(part.item)
        if not part.text and not self.same:
            return None
        if part.logprobs:
            self.losses.drop("logprobs")
        if part.citations:
            if self.request:
                self.losses.note(f"{field}.citations", "citations can't be sent back here")
            else:
                citations = [write_citation(one) for one in part.citations]
                return {
                    "citationsContent": {"content": [{"text": part.text}], "citations": citations}
                }
        return {"text": part.text}

    def _call(self, part: ToolCall, field: str) -> Json:
        value = arguments_object(part.arguments)
        if value is None:
            if not part.custom:
                self.losses.note(f"{field}.arguments", "they are no JSON object: sent as `input`")
            value = {"input": part.arguments}
        return {"toolUse": {"toolUseId": part.id, "name": part.name, "input": value}}

    def _thought(self, part: Reasoning, field: str) -> Json | None:
        if self.same and part.raw is not None:
            return {"reasoningContent": part.raw}
        if self.request and part.origin != FAMILY:
            self.losses.note(f"{field}.reasoning", "thought of another model can't be sent back")
            return None
        if part.encrypted and not part.text:
            redacted = pack_base64(part, FAMILY)
            return {"reasoningContent": {"redactedContent": redacted}}
        text: Json = {"text": part.text}
        proof = pack(part, FAMILY)
        if proof:
            text["signature"] = proof
        return {"reasoningContent": {"reasoningText": text}}

    def _result(self, part: ToolResult, field: str) -> Json:
        content: list[Json] = []
        for n, one in enumerate(part.parts):
            raw = part.raw.get(str(n)) if self.same and part.raw else None
            block = raw or self._result_block(one, f"{field}.content[{n}]")
            if block is not None:
                content.append(block)
        inner: Json = {"toolUseId": part.call_id, "content": content}
        if part.is_error:
            inner["status"] = "error"
        return {"toolResult": inner}

    def _result_block(self, part: Part, field: str) -> Json | None:
        if isinstance(part, Text) and not self.same and part.text[:1] == "{":
            try:
                return {"json": loads(part.text)}
            except ValueError:
                pass
        return self.block(part, field)

    def _media(self, part: Media, field: str) -> Json | None:
        key = next(key for key, kind in _KINDS.items() if kind == part.kind)
        source: Json
        if part.data:
            source = {"bytes": part.data}
        elif part.text:
            source = {"text": part.text}
        elif part.url.startswith("s3://"):
            source = {"s3Location": {"uri": part.url}}
        elif self.same and part.extras:
            source = {}
        else:
            self.losses.drop(field, f"{self.losses.target} takes no {part.kind} by URL or id")
            return None
        inner: Json = {}
        name = _FORMATS.get(part.mime) or part.mime.rpartition("/")[2]
        if name or not self.same:
            inner["format"] = name or "txt"
        if part.kind == "file":
            self._documents += 1
            plain = part.name if self.same else _NOT_IN_NAMES.sub(" ", part.name).strip()
            inner["name"] = plain or f"document {self._documents}"
        elif part.name:
            self.losses.note(f"{field}.filename", "only documents have a name here")
        if source:
            inner["source"] = source
        return {key: inner}


def merge(out: Json, extras: Json) -> None:
    """Put extras back, into objects where both are."""
    for key, value in extras.items():
        if isinstance(value, dict) and isinstance(out.get(key), dict):
            merge(out[key], value)
        else:
            out[key] = value


__all__ = [
    "FAMILY",
    "BlockWriter",
    "cache_point",
    "merge",
    "parse_block",
    "parse_blocks",
    "take_dict",
]
