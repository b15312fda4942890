"""Parts of contents, both ways."""

from __future__ import annotations

import re
from collections.abc import Sequence
from mimetypes import guess_type
from typing import Any, Final

from tidegate_ai_formats.losses import Losses
from tidegate_ai_formats.model import (
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
from tidegate_ai_formats.signatures import pack_base64, unpack_base64
from tidegate_ai_formats.wire import arguments_object, dumps, loads, merged, take_str

FAMILY: Final = "gemini"
INVENTED: Final = "tgcall_"
"""Begins the ids of calls that had none: they never go back to a provider of this format."""
_NAMES: Final = (
    "thoughtSignature inlineData fileData functionCall functionResponse executableCode "
    "codeExecutionResult videoMetadata mimeType displayName fileUri systemInstruction "
    "safetySettings toolConfig generationConfig cachedContent functionDeclarations "
    "googleSearch googleSearchRetrieval codeExecution urlContext googleMaps computerUse "
    "parametersJsonSchema responseJsonSchema functionCallingConfig retrievalConfig "
    "allowedFunctionNames maxOutputTokens topP topK stopSequences candidateCount "
    "presencePenalty frequencyPenalty responseLogprobs responseMimeType responseSchema "
    "responseModalities speechConfig mediaResolution thinkingConfig includeThoughts "
    "thinkingBudget thinkingLevel imageConfig enableEnhancedCivicAnswers"
)
_SNAKE: Final = {
    re.sub("[A-Z]", lambda m: "_" + m[0].lower(), name): name for name in _NAMES.split()
}


def camel(obj: Json) -> Json:
    """`obj` with its own keys (not those of its values) in camelCase, where we know them."""
    for key in obj:
        if key in _SNAKE:
            return {_SNAKE.get(key, key): value for key, value in obj.items()}
    return obj


# -- parsing ------------------------------------------------------------------------------------


def parse_part(raw: Any, call_id: str = "") -> Part:
    """One part; `call_id` names a call or a result that has no id."""
    if not isinstance(raw, dict):
        return Opaque(FAMILY, {"value": raw})
    raw = camel(raw)
    given = raw.pop("thoughtSignature") if type(raw.get("thoughtSignature")) is str else ""
    if type(raw.get("text")) is str:
        text = raw.pop("text")
        if raw.get("thought") is True:
            del raw["thought"]
            part = Reasoning(text, extras=raw or None)
            if given:
                unpack_base64(given, FAMILY).put(part)
            return part
        return Text(text, signature=given, origin=FAMILY if given else "", extras=raw or None)
    if type(raw.get("functionCall")) is dict:
        return _parse_call(raw, call_id, given)
    media = _parse_media(raw)
    if media is not None and not given:
        return media
    if type(raw.get("functionResponse")) is dict and not given:
        return _parse_result(raw, call_id)
    if given:
        raw["thoughtSignature"] = given
    return Opaque(FAMILY, raw)


def _parse_call(raw: Json, call_id: str, signature: str) -> ToolCall:
    call = raw.pop("functionCall")
    arguments = call.pop("args", None)
    part = ToolCall(
        take_str(call, "id") or call_id,
        take_str(call, "name"),
        dumps(arguments) if arguments is not None else "",
        signature,
        FAMILY if signature else "",
    )
    if call:
        raw["functionCall"] = call
    part.extras = raw or None
    return part


def _parse_media(raw: Json) -> Media | None:
    for key in ("inlineData", "fileData"):
        inner = raw.get(key)
        if type(inner) is dict and "thoughtSignature" not in raw:
            del raw[key]
            inner = camel(inner)
            mime = take_str(inner, "mimeType")
            media = Media(kind_of_mime(mime), mime, name=take_str(inner, "displayName"))
            media.data = take_str(inner, "data")
            media.url = take_str(inner, "fileUri")
            if inner:
                raw[key] = inner
            media.extras = raw or None
            return media
    return None


def kind_of_mime(mime: str) -> MediaKind:
    """What a media type is for us."""
    kind = mime.partition("/")[0]
    return kind if kind in ("image", "audio", "video") else "file"  # type: ignore[return-value]


def _parse_result(raw: Json, call_id: str) -> ToolResult:
    inner = raw.pop("functionResponse")
    response = inner.pop("response", None)
    result = ToolResult(
        take_str(inner, "id") or call_id, [], take_str(inner, "name"), raw={"response": response}
    )
    if isinstance(response, dict) and len(response) == 1:
        key, only = next(iter(response.items()))
        if key in ("output", "result", "error") and isinstance(only, str):
            result.is_error = key == "error"
            response = only
    if response is not None:
        result.parts = [Text(response if isinstance(response, str) else dumps(response))]
    parts = inner.get("parts")
    if isinstance(parts, list):
        for part in parts:
            media = _parse_media(camel(dict(part)))
            result.parts.append(media or Opaque(FAMILY, part))
        result.raw["parts"] = [
            {k: camel(v) if isinstance(v, dict) else v for k, v in camel(p).items()} for p in parts
        ]
        del inner["parts"]
    if inner:
        raw["functionResponse"] = inner
    result.extras = raw or None
    return result


# -- writing ------------------------------------------------------------------------------------


class PartWriter:
    """Writes parts; `request`: for a provider, which takes no thought but its own."""

    def __init__(self, losses: Losses, *, same: bool, request: bool) -> None:
        self.losses = losses
        self.same = same
        self.request = request
        self.names: dict[str, str] = {}
        """Names of tools by the ids of their calls: results name the tool here."""

    def all(self, parts: Sequence[Part], field: str) -> list[Json]:
        """The parts of one content."""
        out = []
        for n, part in enumerate(parts):
            one = self.part(part, f"{field}[{n}]")
            if one is not None:
                out.append(one)
        return out

    def part(self, part: Part, field: str) -> Json | None:
        """One part, or None where it can't be said."""
        match part:
            case Text():
                out: Json | None = {"text": part.text}
                if part.logprobs and not self.same:
                    self.losses.drop("logprobs")
                if part.cache:
                    self.losses.drop(f"{field}.cache_control")
                if part.citations and not self.same:
                    self.losses.note(f"{field}.citations", "they have no place here")
            case ToolCall():
                out = self._call(part, field)
            case Reasoning():
                return self._thought(part, field)
            case ToolResult():
                out = self._result(part, field)
            case Media():
                out = self._media(part, field)
            case Refusal():
                out = {"text": part.text}
            case Opaque(family, value):
                if family == FAMILY and self.same:
                    return value
                self.losses.drop(f"{field}.{value.get('type') or next(iter(value), 'part')}")
                return None
        if out is None:
            return None
        if isinstance(part, Text | ToolCall):
            self._sign(part, out)
        extras = part.extras
        if extras and self.same:
            merged(out, extras)
        elif extras:
            self.losses.extras(extras, field)
        return out

    def _sign(self, part: Text | ToolCall, out: Json) -> None:
        if part.signature and (not self.request or part.origin == FAMILY):
            out["thoughtSignature"] = pack_base64(part, FAMILY)

    def _call(self, part: ToolCall, field: str) -> Json:
        self.names[part.id] = part.name
        call: Json = {}
        if part.id and not part.id.startswith(INVENTED):
            call["id"] = part.id
        call["name"] = part.name
        arguments = arguments_object(part.arguments)
        if arguments is None:
            if not part.custom:
                self.losses.note(f"{field}.arguments", "they are no JSON object: sent as `input`")
            arguments = {"input": part.arguments}
        if part.arguments or not self.same:
            call["args"] = arguments
        return {"functionCall": call}

    def _thought(self, part: Reasoning, field: str) -> Json | None:
        if self.request and not (self.same or part.origin == FAMILY):
            self.losses.note(f"{field}.thought", "thought of another model can't be sent back")
            return None
        out: Json = {"text": part.text, "thought": True}
        if part.signature or part.encrypted:
            out["thoughtSignature"] = pack_base64(part, FAMILY)
        if part.extras and self.same:
            out |= part.extras
        return out

    def _result(self, part: ToolResult, field: str) -> Json:
        out: Json = {}
        if part.call_id and not part.call_id.startswith(INVENTED):
            out["id"] = part.call_id
        out["name"] = part.name or self.names.get(part.call_id, "")
        if self.same and part.raw is not None:
            return {"functionResponse": out | part.raw}
        text = "".join(one.text for one in part.parts if isinstance(one, Text))
        value: Any = None
        if text[:1] == "{" and not part.is_error:
            try:
                value = loads(text)
            except ValueError:
                value = None
        if not isinstance(value, dict):
            value = {"error" if part.is_error else "output": text}
        out["response"] = value
        media = [
            self._media(one, f"{field}.content[{n}]")
            for n, one in enumerate(part.parts)
            if isinstance(one, Media)
        ]
        for n, one in enumerate(part.parts):
            if isinstance(one, Opaque):
                self.losses.drop(f"{field}.content[{n}].{one.value.get('type', 'part')}")
        if any(media):
            out["parts"] = [one for one in media if one]
        return {"functionResponse": out}

    def _media(self, part: Media, field: str) -> Json | None:
        if part.text:
            return {"text": part.text}
        if part.file_id and not part.data and not part.url:
            self.losses.drop(field, "a file of another provider can't be named here")
            return None
        if part.detail and part.detail != "auto":
            self.losses.drop(f"{field}.detail")
        if part.transcript:
            self.losses.drop(f"{field}.transcript")
        inner: Json = {}
        mime = part.mime or guess_type(part.url)[0] or ""
        if mime:
            inner["mimeType"] = mime
        if part.name and self.same:
            inner["displayName"] = part.name
        elif part.name:
            self.losses.note(f"{field}.filename", "a file has no name here")
        if part.data:
            return {"inlineData": inner | {"data": part.data}}
        return {"fileData": inner | {"fileUri": part.url}}
