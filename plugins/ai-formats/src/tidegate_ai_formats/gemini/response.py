"""Whole answers, usage and errors, both ways."""

from __future__ import annotations

from datetime import datetime
from time import gmtime, strftime
from typing import Any, Final

from tidegate_ai_formats.losses import STATUS, Failure, Losses, kind_of
from tidegate_ai_formats.model import (
    Candidate,
    Citation,
    Finish,
    FinishReason,
    Json,
    Part,
    Response,
    Text,
    ToolCall,
    Usage,
)
from tidegate_ai_formats.signatures import lower
from tidegate_ai_formats.wire import count, take_int, take_list, take_str

from .parts import FAMILY, INVENTED, PartWriter, parse_part

FINISH: Final[dict[str, FinishReason]] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "MALFORMED_FUNCTION_CALL": "error",
    "UNEXPECTED_TOOL_CALL": "error",
    "OTHER": "error",
}
_NATIVE: Final = {
    "length": "MAX_TOKENS",
    "content_filter": "SAFETY",
    "refusal": "SAFETY",
    "error": "OTHER",
}


def parse_response(body: Json) -> Response:
    """A whole answer. One that was blocked has no candidate: it finishes for that reason."""
    raw = take_list(body, "candidates")
    usage = body.pop("usageMetadata", None)
    id = take_str(body, "responseId")
    response = Response(FAMILY, id, take_str(body, "modelVersion"), [])
    if usage is not None:
        response.usage = parse_usage(usage)
    for n, candidate in enumerate(raw or ()):
        response.candidates.append(parse_candidate(candidate, n, id))
    response.created = take_created(body)
    feedback = body.get("promptFeedback")
    if not raw and isinstance(feedback, dict) and feedback.get("blockReason"):
        response.candidates.append(Candidate([], Finish("content_filter")))
    elif raw is None and "responseId" not in body and usage is None and not id:
        raise ValueError("an answer without candidates")
    response.extras = body or None
    return response


def take_created(body: Json) -> int:
    """Unix seconds of `createTime`; the field itself stays, for it says more."""
    created = body.get("createTime")
    if not isinstance(created, str):
        return 0
    try:
        return int(datetime.fromisoformat(created[:26].rstrip("Z") + "+00:00").timestamp())
    except ValueError:
        return 0


def parse_candidate(candidate: Json, n: int, id: str) -> Candidate:
    """One candidate."""
    content = candidate.get("content")
    parts: list[Part] = []
    if isinstance(content, dict):
        for raw in take_list(content, "parts") or ():
            part = parse_part(raw)
            if isinstance(part, ToolCall) and not part.id:
                part.id = f"{INVENTED}{id}_{len(parts)}"
            parts.append(part)
        if content.get("role") == "model":
            del content["role"]
        if not content:
            del candidate["content"]
    finish = take_finish(candidate, parts)
    index = take_int(candidate, "index")
    if index is None:
        index = n
    elif index == 0:
        candidate["index"] = 0  # said, though it is the default
    grounding = candidate.get("groundingMetadata")
    if isinstance(grounding, dict):
        cite(grounding, parts)
    if isinstance(candidate.get("logprobsResult"), dict):
        text = next((part for part in parts if type(part) is Text), None)
        if text is not None:
            text.logprobs = parse_logprobs(candidate["logprobsResult"])
    return Candidate(parts, finish, index, candidate or None)


def take_finish(candidate: Json, parts: list[Part]) -> Finish | None:
    """Why it ended; an answer that calls tools says STOP too."""
    word = take_str(candidate, "finishReason")
    if not word or word == "FINISH_REASON_UNSPECIFIED":
        return None
    reason = FINISH.get(word, "stop")
    if reason == "stop" and any(type(part) is ToolCall for part in parts):
        reason = "tool_calls"
    return Finish(reason, word)


def parse_logprobs(result: Json) -> list[Json] | None:
    """Probabilities of tokens, as OpenAI writes them. The original stays in the extras."""
    tops = result.get("topCandidates") or []
    out = []
    for n, chosen in enumerate(result.get("chosenCandidates") or ()):
        top = tops[n].get("candidates") or [] if n < len(tops) else []
        token = _logprob(chosen)
        token["top_logprobs"] = [_logprob(one) for one in top]
        out.append(token)
    return out or None


def _logprob(one: Json) -> Json:
    token = one.get("token") or ""
    probability = one.get("logProbability") or 0.0
    return {"token": token, "logprob": probability, "bytes": list(token.encode())}


def cite(grounding: Json, parts: list[Part]) -> None:
    """Citations of grounded text. Segments count bytes of UTF-8, citations characters."""
    texts = [part for part in parts if isinstance(part, Text) and part.text]
    if texts:
        citations = grounded(grounding, texts[0].text)
        texts[0].citations = citations or None


def grounded(grounding: Json, text: str) -> list[Citation]:
    """The citations in `text`."""
    chunks = grounding.get("groundingChunks") or []
    data = text.encode()
    out = []
    for support in grounding.get("groundingSupports") or ():
        segment = support.get("segment") or {}
        start = len(data[: segment.get("startIndex") or 0].decode(errors="ignore"))
        end = len(data[: segment.get("endIndex") or 0].decode(errors="ignore"))
        for number in support.get("groundingChunkIndices") or ():
            if not 0 <= number < len(chunks):
                continue
            source = chunks[number].get("web") or chunks[number].get("retrievedContext") or {}
            uri, title = source.get("uri") or "", source.get("title") or ""
            out.append(Citation(uri, title, "", start, end, FAMILY))
    return out


def parse_usage(usage: Json) -> Usage:
    """Usage: thought stands beside the candidates' tokens, tools' prompts beside the prompt."""
    thoughts = count(usage, "thoughtsTokenCount")
    return Usage(
        count(usage, "promptTokenCount") + count(usage, "toolUsePromptTokenCount"),
        count(usage, "candidatesTokenCount") + thoughts,
        count(usage, "cachedContentTokenCount"),
        0,
        0,
        thoughts,
        _modality(usage.get("promptTokensDetails"), "AUDIO"),
        _modality(usage.get("candidatesTokensDetails"), "AUDIO"),
        FAMILY,
        usage,
    )


def _modality(details: Any, name: str) -> int:
    if type(details) is not list:
        return 0
    return sum(count(one, "tokenCount") for one in details if one.get("modality") == name)


def write_usage(usage: Usage) -> Json:
    """Usage as Gemini writes it."""
    if usage.family == FAMILY and usage.raw is not None:
        return usage.raw
    out: Json = {
        "promptTokenCount": usage.input,
        "candidatesTokenCount": usage.output - usage.reasoning,
        "totalTokenCount": usage.input + usage.output,
    }
    if usage.cache_read:
        out["cachedContentTokenCount"] = usage.cache_read
    if usage.reasoning:
        out["thoughtsTokenCount"] = usage.reasoning
    if usage.audio_input:
        rest = usage.input - usage.audio_input
        out["promptTokensDetails"] = [
            {"modality": "TEXT", "tokenCount": rest},
            {"modality": "AUDIO", "tokenCount": usage.audio_input},
        ]
    return out


def write_finish(finish: Finish, *, same: bool) -> str:
    """The word for why it ended."""
    if same and finish.native:
        return finish.native
    return _NATIVE.get(finish.reason, "STOP")


def write_created(created: int) -> str:
    """`createTime` of Unix seconds."""
    return strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(created))


def write_response(response: Response, losses: Losses) -> Json:
    """A whole answer."""
    same = response.family == FAMILY
    blocked = same and bool(response.extras and response.extras.get("promptFeedback"))
    out: Json = {
        "candidates": [
            write_candidate(one, losses, same=same)
            for one in response.candidates
            if not (blocked and not one.parts and one.finish and not one.finish.native)
        ]
    }
    if not out["candidates"]:
        del out["candidates"]
    if response.usage is not None:
        out["usageMetadata"] = write_usage(response.usage)
        if response.usage.cache_write and not same:
            losses.note("usage.cache_write", "it has no place here")
    if response.model:
        out["modelVersion"] = response.model
    if response.id:
        out["responseId"] = response.id
    if same:
        out |= response.extras or {}
    else:
        if response.created:
            out["createTime"] = write_created(response.created)
        losses.extras(response.extras)
    return out


def write_candidate(candidate: Candidate, losses: Losses, *, same: bool) -> Json:
    """One candidate."""
    writer = PartWriter(losses, same=same, request=False)
    field = f"candidates[{candidate.index}]"
    parts = candidate.parts if same else lower(candidate.parts, FAMILY)
    out: Json = {"content": {"parts": writer.all(parts, field), "role": "model"}}
    if candidate.finish is not None:
        out["finishReason"] = write_finish(candidate.finish, same=same)
        if candidate.finish.stop is not None:
            losses.note("stop_sequence", "it has no place here")
    if candidate.index or not same:
        out["index"] = candidate.index
    if same:
        extras = dict(candidate.extras or {})
        content = extras.pop("content", None)
        if isinstance(content, dict):
            out["content"] |= content
        if not out["content"]["parts"]:
            out["content"] = {"role": "model", **(content if content is not None else {})}
        out |= extras
    else:
        losses.extras(candidate.extras, field)
    return out


_STATUSES: Final = {
    "invalid_request": "INVALID_ARGUMENT",
    "context_length": "INVALID_ARGUMENT",
    "content_filter": "INVALID_ARGUMENT",
    "authentication": "UNAUTHENTICATED",
    "permission": "PERMISSION_DENIED",
    "not_found": "NOT_FOUND",
    "conflict": "ABORTED",
    "too_large": "INVALID_ARGUMENT",
    "rate_limit": "RESOURCE_EXHAUSTED",
    "quota": "RESOURCE_EXHAUSTED",
    "overloaded": "UNAVAILABLE",
    "timeout": "DEADLINE_EXCEEDED",
    "server": "INTERNAL",
}


def parse_error(status: int, body: Any) -> Failure:
    """An error: `{"error": {code, message, status, details}}`, in an array in array streams."""
    if isinstance(body, list) and body:
        body = body[0]
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        text = body if isinstance(body, str) else ""
        return Failure(status, kind_of(status, text), text or f"status {status}", family=FAMILY)
    status = status or (error["code"] if isinstance(error.get("code"), int) else 500)
    word = error.get("status") or ""
    message = error.get("message") or f"status {status}"
    return Failure(status, kind_of(status, message), message, word, family=FAMILY, raw=body)


def write_error(failure: Failure) -> tuple[int, Json]:
    """Status and body: Google's SDKs raise by status and show `status` and `message`."""
    if failure.family == FAMILY and failure.raw is not None:
        return failure.status, failure.raw
    status = STATUS.get(failure.kind, failure.status)
    word = _STATUSES.get(failure.kind, "INTERNAL")
    return status, {"error": {"code": status, "message": failure.message, "status": word}}
