"""API formats of language models: how plugins find translators, and what they learn of a call.

A distribution offers formats in the entry-point group `tidegate.formats` (name → `module:OBJECT`).
Plugins never import each other: they ask `find_format`, and get an object of this protocol.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Final, Literal, Protocol, cast

from .exchange import Exchange, StashKey
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


class AiRequest(Protocol):
    """What a caller asks, as a format's parser understood it."""

    family: str
    model: str
    stream: bool
    max_tokens: int | None

    @property
    def messages(self) -> list[Any]: ...

    @property
    def tools(self) -> list[Any]: ...


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
    model: str = ""
    """As the provider was asked for it."""
    usage: AiUsage | None = None
    finish: str = ""
    warnings: list[str] = field(default_factory=list)


AI_CALL: Final = StashKey[AiCall]("ai.call")


class AiFormat(Protocol):
    """One format. Everything is sans-I/O: values in, values out."""

    @property
    def name(self) -> str: ...

    @property
    def family(self) -> str: ...

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


_INBOUND: Final = (
    (r"(?:/openai)?(?:/v\d+|/deployments/[^/]+)?/chat/completions", "openai-chat"),
    (r"(?:/openai)?(?:/v\d+)?/responses", "openai-responses"),
    (r"(?:/v\d+)?/messages", "anthropic-messages"),
    (r"/v1(?:beta)?/.*models/[^/:]+:(?:streamG|g)enerateContent", "gemini"),
    (r"/model/[^/]+/converse(?:-stream)?", "bedrock-converse"),
    (r"/v2/chat", "cohere-chat"),
    (r"/api/chat", "ollama-chat"),
)
_PATHS: Final = re.compile("|".join(f"({path})" for path, _ in _INBOUND))


def inbound_format(path: str) -> str | None:
    """The format that callers of `path` speak; None: it is no model API's path.

    >>> inbound_format("/v1/chat/completions")
    'openai-chat'
    """
    found = _PATHS.fullmatch(path)
    return None if found is None or found.lastindex is None else _INBOUND[found.lastindex - 1][1]


def ai_call(exchange: Exchange) -> AiCall | None:
    """The call to a model that this request is, parsed once for all; None: its path is no such API.

    Needs `Body(request=True)`. ValueError: the body is not a request of that format.
    """
    call = exchange.stash.get(AI_CALL)
    if call is None and exchange.request.data.method == b"POST":
        name = inbound_format(exchange.path)
        if name is not None:
            request = find_format(name).parse_request(exchange.request_json(), exchange.path)
            call = exchange.stash[AI_CALL] = AiCall(name, request)
    return call


def format_names() -> list[str]:
    """The names of the formats that are installed; nothing is imported."""
    return sorted({point.name for point in entry_points(group=FORMATS)})


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
