"""Answers how many tokens a prompt has, where the model's provider has no endpoint for that."""

from __future__ import annotations

from typing import Final, cast

import orjson
from mitmproxy import http

from tidegate.api import Exchange
from tidegate.api.formats import (
    CountingFormat,
    endpoint_call,
    find_format,
    inbound_endpoint,
    request_id_field,
)
from tidegate.api.models import MODELS

from .texts import prompt_of
from .tokens import rough, tokenizer_for

FORMATS: Final = frozenset(("anthropic-count-tokens", "gemini-count-tokens", "openai-count-tokens"))
MARK: Final = b"x-tidegate-counted"
"""Tells that it was counted here: `exact`, or `estimated`."""
LONGEST: Final = 512 * 1024
"""Bytes of a prompt that is counted; of a longer one the tokens are estimated by its length."""


def asks(exchange: Exchange) -> bool:
    """Whether a request asks for tokens to be counted."""
    return exchange.request.data.method == b"POST" and inbound_endpoint(exchange.path) in FORMATS


def model_to_count_for(exchange: Exchange) -> str | None:
    """The provider's name of the model; None: its provider counts, or nobody here knows it."""
    models = exchange.stashed(MODELS)
    if models is None:
        return None
    try:
        call = endpoint_call(exchange)
    except ValueError:
        return None  # whoever knows the providers says what is wrong with it
    model = models.find(call.request.model) if call is not None else None
    if call is None or model is None:
        return None
    try:
        models.upstream(model, call)
    except LookupError:
        return model.name
    return None


def count(content: bytes, model: str) -> tuple[int, bool]:
    """Tokens of a request's body, and whether that is exact. Slow: for a thread."""
    if len(content) > LONGEST:
        return rough(len(content)), False
    body = orjson.loads(content)
    prompt = prompt_of(body.get("generateContentRequest") or body)
    tokenizer = tokenizer_for(model)
    return tokenizer.prompt(prompt), tokenizer.exact and not prompt.media


def answer(exchange: Exchange, tokens: int, *, exact: bool) -> http.Response:
    """What the caller is told, in the shape of the API that was called."""
    name = inbound_endpoint(exchange.path)
    assert name is not None
    body = cast(CountingFormat, find_format(name)).counted(tokens)
    fields = [(b"content-type", b"application/json"), (MARK, b"exact" if exact else b"estimated")]
    field = request_id_field(exchange.path)
    if field is not None:
        fields.append((field, exchange.id.encode()))
    return http.Response.make(200, orjson.dumps(body), fields)
