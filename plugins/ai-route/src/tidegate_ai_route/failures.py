"""What went wrong with an attempt: one word for what each provider says in its own way."""

from __future__ import annotations

import re
from typing import Any, Final, Literal, get_args

import orjson

from tidegate.api import errors

type Failure = Literal[
    "rate-limit",
    "server-error",
    "timeout",
    "context-window",
    "content-policy",
    "auth",
    "unknown-model",
    "untranslatable",
    "invalid-request",
]
"""`server-error`: a status of 500 and up, and no answer at all. `auth`: the provider does not
take our key, or asks for money. `untranslatable`: the provider's format can't say the request.
`invalid-request`: any other fault of the request."""

FAILURES: Final[tuple[Failure, ...]] = tuple(
    name for name in get_args(Failure.__value__) if name != "invalid-request"
)
"""What falls back where the configuration does not say: all but what would fail again."""

_CONTEXT: Final = re.compile(
    r"context[ _-]?(?:length|window|size)"
    r"|(?:prompt|input|message)s?[^.]{0,30} (?:is|are) too long"
    r"|maximum (?:context|input|number of tokens)|max(?:imum)?[_ ](?:input|prompt)[_ ]tokens"
    r"|exceeds? the (?:available|maximum|max)[^.]{0,40}(?:context|tokens)"
    r"|too[ _]many[ _](?:input[ _]|prompt[ _])?tokens|input token count|string_above_max_length"
    r"|tokens? (?:limit )?exceed",
    re.IGNORECASE,
)
_POLICY: Final = re.compile(
    r"content[ _-]?(?:policy|filter|management|moderation)|responsible.?ai"
    r"|safety (?:system|setting)|moderation_blocked|guardrail"
    r"|(?:prompt|request|input|output) (?:was |is )?(?:flagged|blocked)"
    r"|prohibited[ _]content|data_inspection_failed|usage polic",
    re.IGNORECASE,
)
_QUOTA: Final = re.compile(
    r"insufficient_quota|credit balance|payment|billing_(?:hard|not)", re.IGNORECASE
)
_MODEL: Final = re.compile(
    r"model[^.]{0,80}(?:not[ _]found|does not exist|not exist|is not supported|not_supported"
    r"|unknown|no longer|deprecated)|(?:unknown|invalid|no such)[ _]model|model_not_found"
    r"|DeploymentNotFound",
    re.IGNORECASE,
)
_KEY: Final = re.compile(r"api[ _-]?key", re.IGNORECASE)
_OVERLOADED: Final = re.compile(r"overloaded", re.IGNORECASE)
_EXPLAINED: Final = 4096
"""Characters of an error in which its reason is looked for."""


def failure_of(status: int, body: bytes | None) -> Failure:
    """What an answer with a status of 400 and up says."""
    text = explanation(body)
    if status in (401, 402, 403):
        return "content-policy" if status == 403 and _POLICY.search(text) else "auth"
    if status in (408, 504, 524):
        return "timeout"
    if status == 429:
        return "auth" if _QUOTA.search(text) else "rate-limit"
    if status >= 500:
        return "server-error"
    if status == 413 or _CONTEXT.search(text):
        return "context-window"
    if _POLICY.search(text):
        return "content-policy"
    if status == 404 or _MODEL.search(text):
        return "unknown-model"
    if _OVERLOADED.search(text):
        return "server-error"
    return "auth" if _KEY.search(text) else "invalid-request"


def failure_of_error(code: str) -> Failure | None:
    """What an attempt's error code says; None: it was not the upstream's fault."""
    if code == errors.UPSTREAM_TIMEOUT.code:
        return "timeout"
    if code == errors.UPSTREAM_BUSY.code:
        return "rate-limit"
    return "server-error" if code.startswith("upstream_") else None


def explanation(body: bytes | None) -> str:
    """The words of an error: codes, types and messages, wherever they stand in its JSON."""
    if not body:
        return ""
    try:
        value = orjson.loads(body)
    except ValueError:
        return body[:_EXPLAINED].decode("utf-8", "replace")
    words: list[str] = []
    _collect(value, words)
    return " . ".join(words)[:_EXPLAINED]


def _collect(value: Any, words: list[str], depth: int = 0) -> None:
    if isinstance(value, str):
        words.append(value[:1024])
    elif isinstance(value, dict | list) and depth < 6 and len(words) < 32:
        for inner in value.values() if isinstance(value, dict) else value:
            _collect(inner, words, depth + 1)
