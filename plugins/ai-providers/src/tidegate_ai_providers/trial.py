"""A test call: one short question to a provider, by the very way that callers' requests go."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any, Final

import orjson
from mitmproxy import http

from tidegate.api import Client, Exchange
from tidegate.api.formats import AI_CALL, ai_call, endpoint_call
from tidegate.api.models import Model

from .catalog import NO_KEY, Catalog, fields_of
from .google import AccessToken
from .known import COMPATIBLE
from .pool import KeyPool
from .source import Provider
from .wire import Wire

QUESTION: Final = "Say hello in one word."
HERE: Final = Client("127.0.0.1", 0, "127.0.0.1")
log = logging.getLogger("tidegate.addon.ai-providers")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a test call ended. `text`: what the model said, or what went wrong."""

    model: str
    ok: bool
    status: int | None
    seconds: float
    text: str
    input: int = 0
    output: int = 0


def model_to_try(provider: Provider, example: str, asked: str = "") -> Model | None:
    """The model that was asked for, else the usual one, else the first that is listed."""
    kinds = ("chat", "embeddings")
    listed = {model.name: model for model in provider.models}
    name = asked.removeprefix(f"{provider.name}/") or (example if provider.open else "")
    if name:
        found = (listed.get(name), *(provider.model(name, kind) for kind in kinds))
        return next((model for model in found if model is not None), None)
    first = (m for kind in kinds for m in provider.models if m.kind == kind)
    return next(first, None)


def first_offered(provider: Provider, timeout: float = 10.0) -> Model | None:
    """The first model that a compatible server lists; None: it lists none, or can't be asked."""
    import httpx2

    if provider.kind != COMPATIBLE or not provider.open:
        return None
    key = provider.keys[0] if provider.keys else NO_KEY
    try:
        answer = httpx2.get(
            f"{provider.url}/models", headers=list(fields_of(provider, key)), timeout=timeout
        )
        name = orjson.loads(answer.content)["data"][0]["id"]
    except (httpx2.HTTPError, ValueError, LookupError, TypeError):
        return None
    return provider.model(str(name), "chat")


def try_model(catalog: Catalog, model: Model, timeout: float = 60.0) -> Outcome:
    """Ask it, with the first of the provider's keys. Never raises for what a provider does."""
    chat = model.kind == "chat"
    body: dict[str, Any] = {"model": model.id}
    if chat:
        body["messages"] = [{"role": "user", "content": QUESTION}]
    else:
        body["input"] = [QUESTION]
    path = "/v1/chat/completions" if chat else "/v1/embeddings"
    exchange = _exchange(path, body)
    call = ai_call(exchange) or endpoint_call(exchange)
    assert call is not None
    pool = catalog.upstream(model, call)
    started = time.monotonic()
    try:
        response = asyncio.run(_send(catalog, model, pool, exchange, timeout))
    except (OSError, ValueError) as error:
        return Outcome(model.id, False, None, time.monotonic() - started, str(error))
    return outcome(exchange, model, response, time.monotonic() - started)


def _exchange(path: str, body: dict[str, Any]) -> Exchange:
    request = http.Request.make(
        "POST",
        f"http://127.0.0.1{path}",
        orjson.dumps(body),
        ((b"content-type", b"application/json"),),
    )
    return Exchange("test-call", request, HERE, path=path, now=time.time())


async def _send(
    catalog: Catalog, model: Model, pool: KeyPool, exchange: Exchange, timeout: float
) -> http.Response:
    """Send it, and decode what comes back. OSError, ValueError: it did not come to an answer."""
    import httpx2

    held = catalog.credentials.get(model.provider)
    if isinstance(held, AccessToken):
        await held.fetch()
    leaf = pool.pick(exchange, ())
    if leaf is None or not isinstance(leaf.codec, Wire):
        raise ValueError("there are no credentials for it")
    sent = leaf.codec.encode(exchange, exchange.request.copy())
    if isinstance(sent, http.Response):
        return sent
    own = (b"host", b"content-length")
    fields = [(n, v) for n, v in sent.headers.fields if n.lower() not in own]
    try:
        async with httpx2.AsyncClient(timeout=timeout) as client:
            answer = await client.post(
                f"{leaf.scheme}://{leaf.authority.decode()}{leaf.path}{sent.path}",
                content=sent.data.content or b"",
                headers=[*fields, *leaf.headers],
            )
    except httpx2.HTTPError as error:
        raise OSError(f"{leaf.url} can't be reached ({type(error).__name__})") from None
    kind = answer.headers.get("content-type", "application/json")
    response = http.Response.make(answer.status_code, answer.content, {"content-type": kind})
    return leaf.codec.inner.decode(exchange, response)


def outcome(exchange: Exchange, model: Model, response: http.Response, seconds: float) -> Outcome:
    """What an answer in OpenAI's shape says."""
    try:
        body = orjson.loads(response.content or b"")
    except ValueError:
        body = {}
    status = response.status_code
    if status != 200:
        error = body.get("error") if isinstance(body, dict) else None
        said = error.get("message") if isinstance(error, dict) else error
        return Outcome(model.id, False, status, seconds, str(said or "no reason was given")[:500])
    if model.kind != "chat":
        text = f"a vector of {len(body['data'][0]['embedding'])} numbers"
        return Outcome(model.id, True, status, seconds, text)
    message = body["choices"][0]["message"]
    call = exchange.stash.get(AI_CALL)
    usage = call.usage if call is not None else None
    counts = (usage.input, usage.output) if usage is not None else (0, 0)
    text = str(message.get("content") or "(no text)").strip()
    return Outcome(model.id, True, status, seconds, text[:200], *counts)
