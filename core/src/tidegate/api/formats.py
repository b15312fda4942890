"""API formats of language models: how plugins find translators, and what they learn of a call.

A distribution offers formats in the entry-point group `tidegate.formats` (name → `module:OBJECT`).
Plugins never import each other: they ask `find_format`, and get an object of this protocol.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache, lru_cache
from importlib.metadata import entry_points
from typing import Any, Final, Literal, Protocol, cast

import orjson

from .exchange import Exchange, StashKey
from .types import Denial
from .upstream import Codec

FORMATS: Final = "tidegate.formats"
"""The entry-point group."""

type TranslationPolicy = Literal["strict", "drop-and-warn"]


class AiUsage(Protocol):
    """Tokens of one call. `input` counts cached ones too, `output` those of thought too."""

    input: int
    output: int
    cache_read: int
    cache_write: int
    cache_write_1h: int
    reasoning: int
    audio_input: int
    audio_output: int


class AiAnswer(Protocol):
    """A whole answer, as a format's parser understood it."""

    @property
    def usage(self) -> AiUsage | None: ...

    @property
    def finishes(self) -> tuple[str, ...]:
        """Why each candidate ended: stop, stop_sequence, length, tool_calls, content_filter,
        refusal, pause, error; "" where it did not end."""


class AiRequest(Protocol):
    """What a caller asks, as a format's parser understood it."""

    family: str
    model: str
    stream: bool
    max_tokens: int | None
    temperature: float | None

    @property
    def messages(self) -> list[Any]: ...

    @property
    def tools(self) -> list[Any]: ...

    @property
    def output(self) -> Any:
        """What the answer must be: an object whose `kind` is text, json or schema; or None."""


@dataclass(slots=True)
class AiCall:
    """What is known of a call to a model; `exchange.stash[AI_CALL]`.

    `usage` and `finish` hold after the answer (of a stream: what has come up to now).
    `warnings` are what translation lost, request first.
    """

    format: str
    """The caller's format."""
    request: AiRequest
    provider_format: str = ""
    provider: str = ""
    """The provider's name in the configuration, where a plugin chose one."""
    model: str = ""
    """As the provider was asked for it."""
    usage: AiUsage | None = None
    finish: str = ""
    warnings: list[str] = field(default_factory=list)
    cut: Callable[[Denial], bytes] | None = None
    """Ends the caller's stream with an error, in its own framing; set by a codec that streams."""


AI_CALL: Final = StashKey[AiCall]("ai.call")


@dataclass(slots=True)
class AiSpent:
    """What a call to a model has used, as far as it crossed the wire.

    Put into `exchange.stash[AI_SPENT]` at the exchange's end, before the functions run that
    other addons gave to `exchange.at_end` in `authenticate` or `authorize`: settle there.
    """

    provider: str
    model: str
    """As the provider names it in its answer, else as it was asked for."""
    format: str
    usage: AiUsage
    cost: Decimal | None = None
    """US dollars, exact; None: no price is known."""
    estimated: bool = False
    """True where the provider did not say all of `usage`, and no tokenizer of its counted it."""
    finish: str = ""


AI_SPENT: Final = StashKey[AiSpent]("ai.spent")


class ErrorShape(Protocol):
    """How a model API says errors, so that its official clients raise the right exception."""

    def error_body(self, denial: Denial, request_id: str) -> bytes:
        """The body of an answer with the denial's status; JSON."""

    def error_end(self, denial: Denial, request_id: str) -> bytes:
        """The server-sent events that end a stream with an error, from wherever it stands."""


class AiFormat(ErrorShape, Protocol):
    """One format. Everything is sans-I/O: values in, values out."""

    @property
    def name(self) -> str: ...

    @property
    def family(self) -> str: ...

    @property
    def kind(self) -> str:
        """chat, embeddings, images, speech, transcription, moderations, rerank, count-tokens."""

    def parse_request(self, body: dict[str, Any], path: str = "") -> AiRequest:
        """The request in a JSON object, which the parser takes apart. ValueError: it is none."""

    def translation(
        self,
        provider: AiFormat,
        *,
        policy: TranslationPolicy = "drop-and-warn",
        model: str | None = None,
    ) -> Codec:
        """The codec for callers of this format and a provider of another (or of the same).

        `model`: what the provider calls the model, where that is not what the caller says.
        """

    def read_answer(self, content: bytes, *, stream: bool) -> AiAnswer:
        """The answer in a body, of a stream the whole of it. ValueError: it is none, or cut."""

    def write_answer(
        self, answer: AiAnswer, request: AiRequest, *, stream: bool, target: str = ""
    ) -> tuple[str, bytes]:
        """(content type, body) of an answer to `request`, whole or as a stream.

        `target`: path and query of the request, which say in some formats how a stream is framed.
        The answer is one that a format of this distribution has read, and is used up.
        """


class CountingFormat(AiFormat, Protocol):
    """A format of calls that ask how many tokens a prompt has (`kind` "count-tokens")."""

    def counted(self, tokens: int) -> dict[str, Any]:
        """The answer that says so many."""


_NAMED: Final = r"models/[^/:]+(?:/[^/:]+){0,3}"
"""A model in a path of Google's: callers may name it `provider/model`."""
_INBOUND: Final = (
    (r"(?:/[\w.~-]+)*/chat/completions", "openai-chat"),
    (r"(?:/api|/openai)?(?:/v\d+)?/responses", "openai-responses"),
    (r"(?:/api|/anthropic)?(?:/v\d+)?/messages", "anthropic-messages"),
    (r"/v1(?:beta)?/.*" + _NAMED + r":(?:streamG|g)enerateContent", "gemini"),
    (r"/model/[^/]+/converse(?:-stream)?", "bedrock-converse"),
    (r"/v2/chat", "cohere-chat"),
    (r"/api/chat", "ollama-chat"),
)
_OPENAI: Final = r"(?:/api|/openai|/inference)?(?:/v\d+|/deployments/[^/]+)?"
_GOOGLE: Final = r"/v1(?:beta\d*)?/.*" + _NAMED
_ENDPOINTS: Final = (
    (_OPENAI + r"/embeddings", "openai-embeddings"),
    (_GOOGLE + r":(?:batchEmbedContents|embedContent)", "gemini-embeddings"),
    (_GOOGLE + r":predict", "vertex-embeddings"),
    (r"/v2/embed", "cohere-embeddings"),
    (r"/api/embed", "ollama-embeddings"),
    (r"/v2/rerank", "cohere-rerank"),
    (_OPENAI + r"/rerank", "jina-rerank"),
    (_OPENAI + r"/images/(?:generations|edits|variations)", "openai-images"),
    (_OPENAI + r"/audio/speech", "openai-speech"),
    (_OPENAI + r"/audio/(?:transcriptions|translations)", "openai-transcription"),
    (_OPENAI + r"/moderations", "openai-moderations"),
    (r"(?:/v\d+)?/messages/count_tokens", "anthropic-count-tokens"),
    (_GOOGLE + r":countTokens", "gemini-count-tokens"),
    (r"(?:/openai)?(?:/v\d+)?/responses/input_tokens", "openai-count-tokens"),
    (r"(?:/openai)?/v1/models(?:/.+)?", "openai-models"),
    (r"/v1beta/models(?:/[^:]+)?", "gemini-models"),
)


def _one_of(table: tuple[tuple[str, str], ...]) -> re.Pattern[str]:
    return re.compile("|".join(f"({path})" for path, _ in table))


_PATHS: Final = _one_of(_INBOUND)
_OTHERS: Final = _one_of(_ENDPOINTS)


@lru_cache(maxsize=1024)
def inbound_format(path: str) -> str | None:
    """The format that callers of `path` chat in; None: it is no such path.

    >>> inbound_format("/v1/chat/completions")
    'openai-chat'
    """
    found = _PATHS.fullmatch(path)
    return None if found is None or found.lastindex is None else _INBOUND[found.lastindex - 1][1]


@lru_cache(maxsize=1024)
def inbound_endpoint(path: str) -> str | None:
    """The format of a call to a model that is no chat: embeddings, images, … None: it is none.

    >>> inbound_endpoint("/v1/embeddings")
    'openai-embeddings'
    """
    found = _OTHERS.fullmatch(path)
    return None if found is None or found.lastindex is None else _ENDPOINTS[found.lastindex - 1][1]


_REQUEST_IDS: Final = {
    "anthropic-messages": b"request-id",
    "anthropic-count-tokens": b"request-id",
}


def request_id_field(path: str) -> bytes | None:
    """Where clients of a model API's `path` look for the id of a request; None: `X-Request-Id`."""
    return _REQUEST_IDS.get(inbound_format(path) or inbound_endpoint(path) or "")


def ai_call(exchange: Exchange) -> AiCall | None:
    """The call to a model that this request is, parsed once for all; None: its path is no such API.

    Needs `Body(request=True)`. ValueError: the body is not a request of that format.
    """
    call = exchange.stash.get(AI_CALL)
    if call is None and exchange.request.data.method == b"POST":
        name = inbound_format(exchange.path)
        if name is not None:
            body = orjson.loads(_content_of(exchange))  # its own: parsers take it apart
            if not isinstance(body, dict):
                raise ValueError("the body is not a JSON object")
            request = find_format(name).parse_request(body, exchange.path)
            call = exchange.stash[AI_CALL] = AiCall(name, request)
    return call


def endpoint_call(exchange: Exchange) -> AiCall | None:
    """As `ai_call`, of calls that are no chat. Of a form (RFC 7578) the fields are the request.

    Needs `Body(request=True)`. ValueError: the body is not a request of that format.
    """
    call = exchange.stash.get(AI_CALL)
    if call is None and exchange.request.data.method == b"POST":
        name = inbound_endpoint(exchange.path)
        if name is not None:
            request = find_format(name).parse_request(_fields_of(exchange), exchange.path)
            call = exchange.stash[AI_CALL] = AiCall(name, request)
    return call


def _fields_of(exchange: Exchange) -> dict[str, Any]:
    """The JSON object of a body, or the text fields of a form."""
    request = exchange.request
    if (exchange.header("content-type") or "").lower().startswith("multipart/form-data"):
        fields = request.multipart_form.items(multi=True)
        names = [name for name, _ in fields]
        if names.count(b"model") != 1:
            raise ValueError("the form has no field `model`, or several")
        return {name.decode(): value.decode("utf-8", "replace") for name, value in fields
                if len(value) <= _FIELD}  # fmt: skip
    body = orjson.loads(_content_of(exchange))
    if not isinstance(body, dict):
        raise ValueError("the body is not a JSON object")
    return body


def _content_of(exchange: Exchange) -> bytes:
    """The body, decoded. Few are encoded: then this is cheaper than `request.content`."""
    request = exchange.request
    if exchange.header("content-encoding") is None:
        return request.data.content or b""
    return request.content or b""


_FIELD: Final = 4096
"""Bytes of a form's field that are text of a parameter; what is longer is a file."""


def _shape_of(path: str) -> ErrorShape | None:
    """How errors are said at a path; None: it is no model API's, or its format not installed."""
    name = inbound_format(path) or inbound_endpoint(path)
    return find_format(name) if name in format_names() else None


def error_body(path: str, denial: Denial, request_id: str) -> bytes | None:
    """An error as callers of a model API's `path` expect it; None: it is no such path."""
    shape = _shape_of(path)
    return None if shape is None else shape.error_body(denial, request_id)


def error_end(exchange: Exchange, denial: Denial, *, events: bool) -> bytes | None:
    """What ends the stream of a call to a model with an error; None: it is no such call.

    `events`: what the caller gets is made of server-sent events.
    """
    call = exchange.stash.get(AI_CALL)
    if call is not None and call.cut is not None:
        return call.cut(denial)
    shape = _shape_of(exchange.path) if events else None
    return None if shape is None else shape.error_end(denial, exchange.id)


@cache
def format_names() -> tuple[str, ...]:
    """The names of the formats that are installed; nothing is imported."""
    return tuple(sorted({point.name for point in entry_points(group=FORMATS)}))


@cache
def find_format(name: str) -> AiFormat:
    """The format of an entry point, or a dialect of it: `openai-chat/mistral`.

    LookupError: no installed distribution offers it.
    """
    base, _, dialect = name.partition("/")
    for point in entry_points(group=FORMATS, name=base):
        found = point.load()
        return cast(AiFormat, found.in_dialect(dialect) if dialect else found)
    raise LookupError(f"there is no format {name!r}; installed are: {', '.join(format_names())}")
