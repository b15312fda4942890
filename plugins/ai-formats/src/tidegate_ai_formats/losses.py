"""What a translation can't say: warnings or a refusal, by policy; and failures of providers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn, cast

from .model import Json, Request, Role

type Policy = Literal["strict", "drop-and-warn"]


class Untranslatable(ValueError):
    """A request says what the provider's format can't. `field` is its path in the request."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class InvalidRequest(ValueError):
    """A request is not one of the format that it came in. `field` is its path."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field


ROLES: Final[tuple[Role, ...]] = ("system", "developer", "user", "assistant", "tool")


def take_role(message: Json, field: str, roles: tuple[Role, ...] = ROLES) -> Role:
    """The role of a message, taken out of it. Raises InvalidRequest."""
    role = message.pop("role", None)
    if role in roles:
        return cast(Role, role)
    raise InvalidRequest(f"{field}.role", f"{role!r} is not a role here")


@dataclass(frozen=True, slots=True)
class Warning:
    """One thing that did not come across."""

    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}"


class Losses:
    """Where writers tell what they can't say. Under `strict` telling raises `Untranslatable`."""

    __slots__ = ("answers", "strict", "target", "warnings")

    def __init__(self, target: str = "", policy: Policy = "drop-and-warn") -> None:
        self.target = target
        self.strict = policy == "strict"
        self.answers = False
        self.warnings: list[Warning] = []

    def turn(self, target: str) -> None:
        """The request is written; from now on it is about the answer, which is never refused."""
        self.target, self.strict, self.answers = target, False, True

    def drop(self, field: str, reason: str = "") -> None:
        """`field` is lost; `reason` defaults to "<target> has no such field"."""
        reason = reason or f"{self.target} can't say this"
        if self.strict:
            raise Untranslatable(field, reason)
        self.warnings.append(Warning(field, reason))

    def note(self, field: str, reason: str) -> None:
        """`field` is lost, which is no reason to refuse: thought of another provider, say."""
        self.warnings.append(Warning(field, reason))

    def refuse(self, field: str, reason: str) -> NoReturn:
        """Without `field` the request means nothing: it is refused under any policy."""
        raise Untranslatable(field, reason)

    def unsupported(self, request: Request, *names: str) -> None:
        """Those parameters of a request that the target has not, where they say something."""
        for name in names:
            value = getattr(request, name)
            if value and not (name == "n" and value == 1):
                self.drop(name)

    def extras(self, extras: Json | None, field: str = "") -> None:
        """The extras of another family are lost, except those that say nothing."""
        if extras:
            prefix = f"{field}." if field else ""
            for key, value in extras.items():
                if key in SILENT or (self.answers and key in ECHOES and not field):
                    continue
                if key in HINTS:
                    self.note(prefix + key, f"{self.target} has no such hint")
                elif says_something(value):
                    self.drop(prefix + key)

    def header(self) -> str:
        """The value of `x-tidegate-warnings`."""
        return header(list(map(str, self.warnings)))


def header(warnings: list[str]) -> str:
    """What was lost, as a header field: at most 20 entries, ASCII, no line ends."""
    said = list(dict.fromkeys(warnings))
    if len(said) > MOST:
        said[MOST:] = [f"{len(said) - MOST} more"]
    text = "; ".join(said)
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if " " <= c <= "~" else "?" for c in text)


MOST = 20
SILENT = frozenset(("status", "index", "createTime", "created_at", "completed_at", "finishMessage"))
"""Fields that say nothing new: when, which in the row, that an item is whole, how it ended."""
ECHOES = frozenset(
    (
        "background",
        "billing",
        "frequency_penalty",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "parallel_tool_calls",
        "presence_penalty",
        "previous_response_id",
        "reasoning",
        "store",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "truncation",
        "user",
    )
)
"""Fields of a whole answer that repeat its request (Responses)."""
HINTS = frozenset(
    ("caller", "include", "prompt_cache_key", "prompt_cache_retention", "safety_identifier")
)
"""Fields that help a provider and change no answer: their loss is no reason to refuse."""


def says_something(value: Any) -> bool:
    """Whether a field is more than an empty or absent one: null, false, "", [], {"a": null}."""
    if isinstance(value, dict):
        return any(map(says_something, value.values()))
    if isinstance(value, list):
        return any(map(says_something, value))
    return value is not None and value is not False and value != ""


@dataclass(slots=True)
class Failure:
    """A provider's error, or ours, in neutral words.

    `kind` is one of: invalid_request, authentication, permission, not_found, conflict,
    too_large, context_length, rate_limit, quota, content_filter, overloaded, timeout, server.
    """

    status: int
    kind: str
    message: str
    code: str = ""
    param: str | None = None
    request_id: str = ""
    family: str = ""
    raw: Json | None = None


_BY_STATUS = {
    400: "invalid_request",
    401: "authentication",
    402: "quota",
    403: "permission",
    404: "not_found",
    408: "timeout",
    409: "conflict",
    413: "too_large",
    422: "invalid_request",
    429: "rate_limit",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}
STATUS = {
    "invalid_request": 400,
    "authentication": 401,
    "quota": 429,
    "permission": 403,
    "not_found": 404,
    "conflict": 409,
    "too_large": 413,
    "context_length": 400,
    "rate_limit": 429,
    "content_filter": 400,
    "overloaded": 503,
    "timeout": 504,
    "server": 500,
}
_CONTEXT = (
    "context_length",
    "context length",
    "context window",
    "maximum context",
    "prompt is too long",
    "prompt too long",
    "too many tokens",
    "too_many_tokens",
    "too_many_prompt_tokens",
    "input is too long",
    "input token count",
    "input tokens exceed",
    "length of all messages is too long",
)


def kind_of(status: int, *words: str) -> str:
    """The kind of an error by its status and by what it says."""
    said = " ".join(words).lower()
    if status in (400, 413, 422) and any(phrase in said for phrase in _CONTEXT):
        return "context_length"
    if status == 400 and ("api key" in said or "api_key_invalid" in said):
        return "authentication"
    if status == 400 and ("content_filter" in said or "content management policy" in said):
        return "content_filter"
    if "insufficient_quota" in said:
        return "quota"
    return _BY_STATUS.get(status) or ("server" if status >= 500 else "invalid_request")
