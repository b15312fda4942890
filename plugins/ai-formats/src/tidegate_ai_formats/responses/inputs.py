"""What users and tools say: entries of their content, both ways."""

from __future__ import annotations

from tidegate_ai_formats.losses import Losses
from tidegate_ai_formats.model import Json, Media, Opaque, Part, Text, ToolResult
from tidegate_ai_formats.wire import take_list, take_str

from .items import FAMILY, parse_content


def write_input(part: Part, losses: Losses, field: str, *, same: bool) -> Json | None:
    """One entry of a user's (or a tool's) content."""
    if isinstance(part, Text):
        out: Json = {"type": "input_text", "text": part.text}
    elif isinstance(part, Media):
        media = _write_media(part, losses, field)
        if media is None:
            return None
        out = media
    elif isinstance(part, Opaque) and part.family == FAMILY and same:
        return part.value
    else:
        losses.drop(field)
        return None
    if part.cache is not None:
        losses.note(f"{field}.cache_control", "prompts are cached without being told here")
    if same:
        out |= part.extras or {}
    else:
        losses.extras(part.extras, field)
    return out


def _write_media(part: Media, losses: Losses, field: str) -> Json | None:
    url = part.url or f"data:{part.mime};base64,{part.data}"
    if part.text:
        return {"type": "input_text", "text": part.text}
    if part.kind == "image":
        out: Json = {"type": "input_image"}
        if part.file_id:
            out["file_id"] = part.file_id
        else:
            out["image_url"] = url
        if part.detail:
            out["detail"] = part.detail
        return out
    if part.kind == "audio" and part.data:
        suffix = {"audio/mpeg": "mp3"}.get(part.mime, part.mime.removeprefix("audio/"))
        return {"type": "input_audio", "input_audio": {"data": part.data, "format": suffix}}
    if part.kind != "file":
        losses.drop(field, f"{losses.target} takes no {part.kind}")
        return None
    out = {"type": "input_file"}
    if part.name:
        out["filename"] = part.name
    if part.file_id:
        out["file_id"] = part.file_id
    elif part.data:
        out["file_data"] = url if part.mime else part.data
    else:
        out["file_url"] = part.url
    return out


def parse_output(item: Json) -> ToolResult:
    """What a tool gave back."""
    custom = item.pop("type") == "custom_tool_call_output"
    result = ToolResult(take_str(item, "call_id"), [], custom=custom)
    output = item.get("output")
    if isinstance(output, str):
        del item["output"]
        result.parts = [Text(output)]
    elif isinstance(output, list):
        result.parts = [parse_content(one) for one in take_list(item, "output") or ()]
    result.extras = item or None
    return result


def write_output(part: ToolResult, losses: Losses, field: str, *, same: bool) -> Json:
    """The item of what a tool gave back."""
    kind = "custom_tool_call_output" if part.custom else "function_call_output"
    out: Json = {"type": kind, "call_id": part.call_id}
    only = part.parts[0] if len(part.parts) == 1 else None
    if isinstance(only, Text) and not only.extras:
        out["output"] = only.text
    elif part.parts:
        written = [
            write_input(one, losses, f"{field}.output[{n}]", same=same)
            for n, one in enumerate(part.parts)
        ]
        out["output"] = [one for one in written if one is not None]
    else:
        out["output"] = ""
    if part.is_error:
        losses.drop(f"{field}.is_error", "a tool's failure is said in its output only")
    if same:
        out |= part.extras or {}
    else:
        losses.extras(part.extras, field)
    return out
