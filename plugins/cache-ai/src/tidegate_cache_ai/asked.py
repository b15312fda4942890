"""A call as the cache looks at it: what kind it is, its name, and whether it is the cache's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import orjson

from tidegate.api import Exchange, StashKey
from tidegate.api.caching import CACHE_HINTS
from tidegate.api.formats import AiCall, ai_call, inbound_format

from .keys import ambiguous, call_name, credentials, stateful
from .options import CacheAiConfig
from .wishes import Wishes, seconds, wishes_of

_EMBEDDINGS: Final = re.compile(
    r"(?:/openai)?(?:/v\d+|/deployments/[^/]+)?/embeddings|/v\d+/embed|/api/embed"
    r"|/v1(?:beta)?/.*models/[^/:]+:(?:embedContent|batchEmbedContents)"
)
LARGEST_CALL: Final = 4 * 1024 * 1024
"""Bytes of a call that is looked up: longer ones would hold others up, and hardly come again."""
_USUAL_TEMPERATURE: Final = 1.0
"""What a provider takes where a caller says nothing."""


def is_call(exchange: Exchange) -> bool:
    """Whether a request is a call that may be answered from the cache, as far as its head tells."""
    return exchange.request.data.method == b"POST" and (
        inbound_format(exchange.path) is not None
        or _EMBEDDINGS.fullmatch(exchange.path) is not None
    )


@dataclass(slots=True)
class Asked:
    """One call.

    Attributes:
        call: what its format's parser understood; None for embeddings.
        why: why the cache has no part in it, in words; "" where it has.
        name, partition: what it is looked up by.
        mark: the tier's, from before it was sent.
        content_type, coding, body: of the answer; the body once it has passed whole.
    """

    call: AiCall | None
    model: str
    wishes: Wishes
    why: str = ""
    name: bytes = b""
    partition: bytes = b""
    mark: int = 0
    content_type: str = ""
    coding: str = ""
    body: bytes | None = None

    @property
    def stream(self) -> bool:
        """Whether the caller wants the answer as a stream."""
        return self.call is not None and self.call.request.stream

    def accepts(self, age: int) -> bool:
        """Whether the caller takes an answer of this age."""
        if "no-cache" in self.wishes or "no-store" in self.wishes:
            return False
        most = seconds(self.wishes, "max-age")
        return most is None or (age <= most and most > 0)


ASKED: Final = StashKey[Asked]("cache-ai")


def understand(exchange: Exchange, config: CacheAiConfig) -> Asked | None:
    """The call that a request is; None where it is none."""
    data = exchange.request.data
    wishes = wishes_of(data.headers.fields)
    content = exchange.request.content or b""
    if len(content) > LARGEST_CALL:
        return Asked(None, "", wishes, why=f"it is longer than {LARGEST_CALL} bytes")
    try:
        body = orjson.loads(content)
        call = ai_call(exchange) if inbound_format(exchange.path) is not None else None
    except (ValueError, LookupError):
        return None  # the provider says what is wrong with it
    if not isinstance(body, dict):
        return None
    asked = Asked(call, str(body.get("model") or ""), wishes)
    if call is not None:
        asked.model = call.request.model
    asked.why = _why_not(call, body, content, wishes, config)
    if not asked.why:
        query = data.path.decode("latin-1").partition("?")[2]
        more = [name.encode() for name in config.headers]
        hints = exchange.stashed(CACHE_HINTS)
        asked.name = call_name(
            exchange.host,
            exchange.path,
            query,
            body,
            data.headers.fields,
            more,
            hints.key if hints is not None else (),
        )
        asked.partition = partition_of(exchange, config)
    return asked


def _why_not(
    call: AiCall | None, body: dict[str, Any], content: bytes, wishes: Wishes, config: CacheAiConfig
) -> str:
    if "no-store" in wishes:
        return "the request says no-store"
    if stateful(body):
        return "it goes on from another call"
    if call is not None:
        temperature = call.request.temperature
        heat = _USUAL_TEMPERATURE if temperature is None else temperature
        if heat > config.temperature:
            return f"its temperature is {heat:g}, above {config.temperature:g}"
        if any(getattr(tool, "builtin", False) for tool in call.request.tools):
            return "it has a tool that the provider runs"
    if ambiguous(content):
        return "an object of its body has a key twice"
    return ""


def partition_of(exchange: Exchange, config: CacheAiConfig) -> bytes:
    """Whose answers a caller gets. What is beyond the gateway tells callers apart as well."""
    principal = exchange.principal
    if principal is None:
        owner = b"anonymous:" + credentials(exchange.request.data.headers.fields)
    elif config.partition == "shared":
        owner = b"shared"
    elif config.partition == "team" and principal.team:
        owner = b"team:" + principal.team.encode()
    else:
        owner = b"principal:" + principal.id.encode()
    upstream = exchange.upstream
    if upstream is not None:  # intercepted: a Host field alone doesn't say who answered
        owner += b"@" + upstream.url.encode()
    return owner
