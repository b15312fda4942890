"""Parts of messages, both ways: content, thought, tool calls, annotations."""

from __future__ import annotations

from typing import Any, Final

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
from tidegate_ai_formats.signatures import pack, unpack
from tidegate_ai_formats.wire import dumps, split_data_url, take_dict, take_list, take_str

from .dialects import DETAIL_FORMATS, DETAIL_NAMES, FAMILY

LEGACY: Final = "function_call"
"""The id that a call has which came in that field, from before there were several."""
_AUDIO: Final = {"audio/mpeg": "mp3", "audio/mp3": "mp3", "audio/wav": "wav", "audio/x-wav": "wav"}


# -- parsing ------------------------------------------------------------------------------------


def parse_message(message: Json) -> list[Part]:
    """The parts of an assistant's message, taken out of it."""
    parts: list[Part] = []
    details = message.get("reasoning_details")
    if details:
        parse_details(message, parts)
    for carrier in ("reasoning_content", "reasoning"):
        thought = message.get(carrier)
        if type(thought) is str and thought and not any(type(p) is Reasoning for p in parts):
            del message[carrier]
            parts.append(Reasoning(thought, carrier=carrier))
    content = message.get("content")
    if type(content) is str:
        if content or not (message.get("tool_calls") or message.get("function_call")):
            del message["content"]
            parts.append(Text(content))
    elif type(content) is list:
        del message["content"]
        parts += [parse_part(part) for part in content]
    if message.get("annotations"):
        parse_annotations(message, parts)
    if refusal := take_str(message, "refusal"):
        parts.append(Refusal(refusal))
    if message.get("audio"):
        parse_audio(message, parts)
    if message.get("images"):
        parts += [parse_part(image) for image in take_list(message, "images") or ()]
    if message.get("tool_calls"):
        parts += [parse_call(call) for call in take_list(message, "tool_calls") or ()]
    if isinstance(message.get("function_call"), dict):
        call = {"id": LEGACY, "type": "function", "function": message.pop("function_call")}
        parts.append(parse_call(call))
    return parts


def parse_details(message: Json, parts: list[Part]) -> None:
    """OpenRouter's `reasoning_details`; the plain `reasoning` beside them says the same."""
    details = take_list(message, "reasoning_details")
    if not details:
        return
    found = [detail_part(detail) for detail in details if isinstance(detail, dict)]
    for part in found:
        part.carrier = "details"
    found[0].raw = details
    text = "".join(part.text for part in found)
    for carrier in ("reasoning", "reasoning_content"):
        thought = message.get(carrier)
        if thought and text in ("", thought):
            if not text:  # streams give the text apart from its proof
                open_one = next((part for part in found if not part.encrypted), found[0])
                open_one.text, found[0].raw = thought, None
            found[0].carrier = f"details+{carrier}"
            del message[carrier]
            break
    parts += found


def detail_part(detail: Json) -> Reasoning:
    """One entry of `reasoning_details`."""
    origin = DETAIL_FORMATS.get(detail.get("format") or "", "")
    part = Reasoning(origin=origin, id=detail.get("id") or "")
    match detail.get("type"):
        case "reasoning.text":
            part.text = detail.get("text") or ""
            _prove(part, detail.get("signature") or "", encrypted=False)
        case "reasoning.summary":
            part.text, part.summary = detail.get("summary") or "", True
        case "reasoning.encrypted":
            _prove(part, detail.get("data") or "", encrypted=True)
    return part


def _prove(part: Reasoning, value: str, *, encrypted: bool) -> None:
    """Give a thought its proof. Whose it is says its packing, else the `format` of the entry."""
    origin = part.origin
    unpack(value, "", encrypted=encrypted).put(part)
    part.origin = part.origin or origin


def parse_part(part: Any) -> Part:
    """One entry of a content array."""
    if not isinstance(part, dict):
        return Opaque(FAMILY, {"value": part})
    kind = part.get("type")
    cache = take_dict(part, "cache_control")
    match kind:
        case "text" if type(part.get("text")) is str:
            del part["type"]
            return Text(part.pop("text"), cache=cache, extras=part or None)
        case "thinking" if type(part.get("thinking")) in (str, list):
            return _parse_thinking(part)
        case "image_url":
            return _parse_image(part, cache)
        case "refusal":
            del part["type"]
            return Refusal(take_str(part, "refusal"), extras=part or None)
        case "input_audio" | "file" | "document_url" | "file_url" | "video_url":
            return _parse_media(part, kind, cache)
    if cache is not None:
        part["cache_control"] = cache
    return Opaque(FAMILY, part)


def _parse_thinking(part: Json) -> Reasoning:
    del part["type"]
    chunks = part.get("thinking")
    if isinstance(chunks, str):
        del part["thinking"]
        return Reasoning(chunks, carrier="content-text", extras=part or None)
    assert isinstance(chunks, list)
    text = "".join(chunk.get("text") or "" for chunk in chunks if isinstance(chunk, dict))
    plain = all(isinstance(chunk, dict) and chunk.keys() == {"type", "text"} for chunk in chunks)
    if plain and len(chunks) <= 1:
        del part["thinking"]
        return Reasoning(text, carrier="content" if chunks else "content-none", extras=part or None)
    return Reasoning(text, carrier="content", raw=part.pop("thinking"), extras=part or None)


def _parse_image(part: Json, cache: Json | None) -> Media:
    del part["type"]
    media = Media("image", cache=cache)
    source = part.pop("image_url", None)
    url = source
    if isinstance(source, dict):
        url = source.pop("url", "")
        media.detail = take_str(source, "detail")
        if source:
            part["image_url"] = source
    else:
        part["image_url"] = None  # Mistral's short form: a string
    set_url(media, url if isinstance(url, str) else "")
    media.extras = part or None
    return media


def set_url(media: Media, url: str) -> None:
    """Give a medium its URL, taken apart where the data stands in it."""
    data = split_data_url(url)
    if data is None:
        media.url = url
    else:
        media.mime, media.data = data


def _parse_media(part: Json, kind: str, cache: Json | None) -> Media:
    del part["type"]
    media = Media("file", cache=cache)
    if kind == "input_audio":
        media.kind = "audio"
        audio = take_dict(part, "input_audio") or {}
        media.data = take_str(audio, "data")
        suffix = take_str(audio, "format")
        media.mime = {"mp3": "audio/mpeg"}.get(suffix, f"audio/{suffix}")
    elif kind == "file":
        file = take_dict(part, "file") or {}
        media.name = take_str(file, "filename")
        media.file_id = take_str(file, "file_id")
        set_url(media, take_str(file, "file_data"))
        if file:
            part["file"] = file
    elif kind == "document_url":
        set_url(media, take_str(part, "document_url"))
        media.name = take_str(part, "document_name")
        part["type"] = kind
    else:
        if kind == "video_url":
            media.kind = "video"
        source = take_dict(part, kind) or {}
        url = take_str(source, "url")
        if kind == "file_url" and ":" not in url:
            media.data = url  # Perplexity: base64 without a prefix
        else:
            set_url(media, url)
        part["type"] = kind
        if source:
            part[kind] = source
    media.extras = part or None
    return media


def parse_annotations(message: Json, parts: list[Part]) -> None:
    """Annotations hang on the text. What is no URL citation stays where it is."""
    text = next((part for part in parts if type(part) is Text), None)
    annotations = message["annotations"]
    if text is None or not isinstance(annotations, list):
        return
    text.citations = [parse_citation(one) for one in annotations if isinstance(one, dict)]
    del message["annotations"]


def parse_citation(raw: Json) -> Citation:
    """One annotation."""
    inner = raw.get("url_citation")
    source = inner if isinstance(inner, dict) else {}
    return Citation(
        source.get("url") or "",
        source.get("title") or "",
        source.get("cited_text") or source.get("content") or "",
        source.get("start_index"),
        source.get("end_index"),
        FAMILY,
        raw,
    )


def parse_audio(message: Json, parts: list[Part]) -> None:
    """Sound that the model made."""
    audio = take_dict(message, "audio")
    if audio is None:
        return
    parts.append(
        Media(
            "audio",
            data=take_str(audio, "data"),
            file_id=take_str(audio, "id"),
            transcript=take_str(audio, "transcript"),
            extras=audio or None,
        )
    )


def parse_call(call: Json) -> ToolCall:
    """One entry of `tool_calls`. Gemini's OpenAI endpoint hides signatures in `extra_content`."""
    kind = take_str(call, "type")
    custom = kind == "custom"
    inner = take_dict(call, "custom" if custom else "function") or {}
    arguments = inner.pop("input" if custom else "arguments", None)
    if not isinstance(arguments, str):
        arguments = dumps(arguments) if arguments is not None else ""
    part = ToolCall(take_str(call, "id"), take_str(inner, "name"), arguments, custom=custom)
    if inner:
        call["function"] = inner
    if "extra_content" in call:
        take_signature(call, part)
    part.extras = call or None
    return part


def take_signature(call: Json, part: ToolCall) -> None:
    """`extra_content.google.thought_signature`, of a call or the delta of one."""
    google = (call["extra_content"] or {}).get("google")
    if isinstance(google, dict) and google.keys() == {"thought_signature"}:
        del call["extra_content"]
        part.signature, part.origin = google["thought_signature"], "gemini"


# -- writing ------------------------------------------------------------------------------------


def write_detail(part: Reasoning, index: int) -> Json:
    """A thought with a proof, as OpenRouter writes it."""
    known = part.origin in DETAIL_NAMES
    common: Json = {"format": DETAIL_NAMES.get(part.origin, "unknown"), "index": index}
    if part.id:
        common["id"] = part.id
    proof = pack(part, part.origin if known else "")
    if part.encrypted:
        return {"type": "reasoning.encrypted", "data": proof, **common}
    if part.summary:
        return {"type": "reasoning.summary", "summary": part.text, **common}
    return {"type": "reasoning.text", "text": part.text, "signature": proof, **common}


def write_thinking(part: Reasoning) -> Json:
    """A thought as Mistral writes it, in the content."""
    thinking: Any = part.raw
    if thinking is None:
        thinking = [{"type": "text", "text": part.text}]
        if part.carrier == "content-text":
            thinking = part.text
        elif part.carrier == "content-none" and not part.text:
            thinking = []
    return {"type": "thinking", "thinking": thinking}


def write_call(part: ToolCall, index: int | None = None) -> Json:
    """A tool call."""
    call: Json = {}
    if index is not None:
        call["index"] = index
    call["id"] = part.id
    if part.custom:
        call["type"] = "custom"
        call["custom"] = {"name": part.name, "input": part.arguments}
    else:
        call["type"] = "function"
        call["function"] = {"name": part.name, "arguments": part.arguments}
    if part.signature and part.origin == "gemini":
        call["extra_content"] = {"google": {"thought_signature": part.signature}}
    return call


def write_citation(citation: Citation, base: int = 0, length: int = 0) -> Json:
    """An annotation. Without positions it covers the text of its part."""
    if citation.family == FAMILY and citation.raw is not None:
        return citation.raw
    start, end = citation.start, citation.end
    inner: Json = {
        "start_index": base + (start if start is not None else 0),
        "end_index": base + (end if end is not None else length),
        "title": citation.title,
        "url": citation.url,
    }
    if citation.text:
        inner["cited_text"] = citation.text
    return {"type": "url_citation", "url_citation": inner}


def write_media(part: Media, losses: Losses, field: str) -> Json | None:
    """A medium in a request; None where it can't be said."""
    kind = part.extras.get("type") if part.extras else None
    if part.text:
        return {"type": "text", "text": part.text}
    url = part.url or f"data:{part.mime};base64,{part.data}"
    if kind in ("document_url", "file_url", "video_url"):
        return _write_dialect_media(part, kind, url)
    if part.kind == "image":
        if part.file_id:
            losses.drop(field, f"{losses.target} takes no image by file id")
            return None
        image: Json = {"url": url}
        if part.detail:
            image["detail"] = part.detail
        return {"type": "image_url", "image_url": image}
    if part.kind == "audio" and part.data:
        suffix = _AUDIO.get(part.mime, part.mime.removeprefix("audio/"))
        return {"type": "input_audio", "input_audio": {"data": part.data, "format": suffix}}
    if part.kind == "file" and (part.data or part.file_id):
        file: Json = {"file_id": part.file_id} if part.file_id else {"file_data": url}
        if part.name:
            file["filename"] = part.name
        return {"type": "file", "file": file}
    losses.drop(field, f"{losses.target} takes no {part.kind} by URL")
    return None


def _write_dialect_media(part: Media, kind: str, url: str) -> Json:
    if kind == "document_url":
        out: Json = {"type": kind, kind: url}
        if part.name:
            out["document_name"] = part.name
        return out
    plain = kind == "file_url" and part.data and not part.mime
    return {"type": kind, kind: {"url": part.data if plain else url}}
