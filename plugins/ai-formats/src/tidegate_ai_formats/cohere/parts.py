"""Parts of messages, both ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tidegate_ai_formats.chat.parts import parse_call, set_url
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
    ToolResult,
)
from tidegate_ai_formats.wire import dumps, merged, take_list, take_str

FAMILY: Final = "cohere"
PLAN: Final = "tool_plan"


def parse_content(content: Any) -> list[Part]:
    """The parts of `content`: a string or an array."""
    if isinstance(content, str):
        return [Text(content)]
    return [parse_part(one) for one in content or ()]


def parse_part(raw: Any) -> Part:
    """One entry of a content array."""
    if not isinstance(raw, dict):
        return Opaque(FAMILY, {"value": raw})
    kind = raw.get("type")
    if kind == "text" and type(raw.get("text")) is str:
        del raw["type"]
        return Text(raw.pop("text"), extras=raw or None)
    if kind == "thinking" and type(raw.get("thinking")) is str:
        del raw["type"]
        return Reasoning(raw.pop("thinking"), extras=raw or None)
    if kind == "image_url" and isinstance(raw.get("image_url"), dict):
        del raw["type"]
        image = raw.pop("image_url")
        media = Media("image", detail=take_str(image, "detail"))
        set_url(media, take_str(image, "url"))
        if image:
            raw["image_url"] = image
        media.extras = raw or None
        return media
    return Opaque(FAMILY, raw)


def parse_message(message: Json) -> list[Part]:
    """The parts of an assistant's message, taken out of it."""
    parts: list[Part] = []
    if plan := message.get(PLAN):
        del message[PLAN]
        parts.append(Reasoning(plan, carrier=PLAN))
    content = message.get("content")
    if isinstance(content, str | list) and (content or not message.get("tool_calls")):
        parts += parse_content(message.pop("content"))
    if message.get("citations"):
        cite(message, [part for part in parts if not _is_plan(part)])
    parts += [parse_call(call) for call in take_list(message, "tool_calls") or ()]
    return parts


def _is_plan(part: Part) -> bool:
    return isinstance(part, Reasoning) and part.carrier == PLAN


def cite(message: Json, content: Sequence[Part]) -> None:
    """Hang citations on the texts they are of; those of other things stay where they are."""
    rest = []
    for raw in message.pop("citations"):
        place = raw.get("content_index")
        part = content[place] if isinstance(place, int) and place < len(content) else None
        if place is None:
            part = next((one for one in content if isinstance(one, Text)), None)
        if isinstance(part, Text):
            part.citations = [*(part.citations or ()), parse_citation(raw)]
        else:
            rest.append(raw)
    if rest:
        message["citations"] = rest


def parse_citation(raw: Json) -> Citation:
    """A citation. Its first source is the one that other formats name."""
    sources = raw.get("sources") or [{}]
    source = sources[0] or {}
    data = source.get("document") or source.get("tool_output") or {}
    if not isinstance(data, dict):
        data = {}
    text = data.get("text") or data.get("snippet") or data.get("content") or ""
    return Citation(
        str(data.get("url") or source.get("id") or ""),
        str(data.get("title") or ""),
        text if isinstance(text, str) else dumps(text),
        raw.get("start"),
        raw.get("end"),
        FAMILY,
        raw,
    )


def write_citation(citation: Citation, text: str, place: int) -> Json:
    """A citation of the text at `place` in the content."""
    if citation.family == FAMILY and citation.raw is not None:
        return citation.raw
    start = citation.start if citation.start is not None else 0
    end = citation.end if citation.end is not None else len(text)
    document = {"title": citation.title, "text": citation.text, "url": citation.url}
    source = {"type": "document", "id": citation.url, "document": document}
    return {
        "start": start,
        "end": end,
        "text": text[start:end],
        "sources": [source],
        "content_index": place,
        "type": "TEXT_CONTENT",
    }


def write_call(part: ToolCall, losses: Losses, field: str, *, same: bool) -> Json:
    """A tool call."""
    call: Json = {
        "id": part.id,
        "type": "function",
        "function": {"name": part.name, "arguments": part.arguments},
    }
    if part.custom:
        call["function"]["arguments"] = dumps({"input": part.arguments})
    elif not part.arguments and not same:
        call["function"]["arguments"] = "{}"
    if part.signature:
        losses.note(f"{field}.signature", "proofs of thought have no place here")
    if same:
        merged(call, part.extras)
    else:
        losses.extras(part.extras, field)
    return call


def write_message(
    parts: Sequence[Part], losses: Losses, field: str, *, same: bool, request: bool = False
) -> Json:
    """The assistant's message."""
    message: Json = {"role": "assistant"}
    content: list[Json] = []
    citations: list[Json] = []
    calls: list[Json] = []
    for n, part in enumerate(parts):
        where = f"{field}[{n}]"
        if isinstance(part, ToolCall):
            calls.append(write_call(part, losses, where, same=same))
        elif isinstance(part, Reasoning):
            if part.carrier == PLAN:
                message[PLAN] = message.get(PLAN, "") + part.text
                continue
            if part.signature or part.encrypted:
                losses.note(f"{where}.signature", "proofs of thought have no place here")
            if part.text:
                thought: Json = {"type": "thinking", "thinking": part.text}
                content.append(thought | ((part.extras or {}) if same else {}))
        elif isinstance(part, Text | Refusal):
            if isinstance(part, Text) and part.citations:
                citations += [write_citation(c, part.text, len(content)) for c in part.citations]
            text = {"type": "text", "text": part.text}
            if isinstance(part, Text) and part.logprobs:
                losses.drop("logprobs")
            content.append(text | ((part.extras or {}) if same else {}))
            if not same:
                losses.extras(part.extras, where)
        elif isinstance(part, Opaque) and part.family == FAMILY and same:
            content.append(part.value)
        else:
            losses.drop(where, f"{losses.target} can't say this")
    if content:
        only = content[0]
        plain = request and len(content) == 1 and only.keys() == {"type", "text"}
        message["content"] = only["text"] if plain else content
    if calls:
        message["tool_calls"] = calls
    if citations:
        message["citations"] = citations
    return message


def write_content(parts: Sequence[Part], losses: Losses, field: str, *, same: bool) -> Any:
    """A string where it is plain text, else an array."""
    only = parts[0] if len(parts) == 1 else None
    if isinstance(only, Text) and not only.extras:
        return only.text
    if not parts:
        return ""
    out = []
    for n, part in enumerate(parts):
        one = _write_part(part, losses, f"{field}.content[{n}]", same=same)
        if one is not None:
            out.append(one)
    return out


def _write_part(part: Part, losses: Losses, field: str, *, same: bool) -> Json | None:
    if isinstance(part, Opaque) and part.family == FAMILY and same:
        return part.value
    if isinstance(part, Text):
        out: Json = {"type": "text", "text": part.text}
    elif isinstance(part, Media) and part.text:
        return {"type": "text", "text": part.text}
    elif isinstance(part, Media) and part.kind == "image" and not part.file_id:
        image: Json = {"url": part.url or f"data:{part.mime};base64,{part.data}"}
        if part.detail:
            image["detail"] = part.detail
        out = {"type": "image_url", "image_url": image}
    else:
        losses.drop(field)
        return None
    if part.cache is not None:
        losses.note(f"{field}.cache_control", "prompts are cached without it here")
    if same:
        return merged(out, part.extras)
    losses.extras(part.extras, field)
    return out


def parse_result(message: Json) -> ToolResult:
    """A message of the role `tool`."""
    result = ToolResult(take_str(message, "tool_call_id"), [])
    content = message.pop("content", None)
    result.parts = parse_content(content)
    result.extras = message or None
    return result
