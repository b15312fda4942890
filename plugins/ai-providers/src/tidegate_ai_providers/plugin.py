"""The addon: puts the models on each exchange, and routes calls to them."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import orjson
from mitmproxy import http

from tidegate.api import AddonContext, Body, Denial, Exchange, Plugin, Upstream, hook
from tidegate.api.formats import (
    ai_call,
    endpoint_call,
    find_format,
    inbound_endpoint,
    inbound_format,
)
from tidegate.api.models import MODELS, VIRTUAL

from .aws import AwsCredentials
from .catalog import Catalog, Credentials
from .config import AiProvidersConfig
from .google import AccessToken, GoogleCredentials
from .known import SHAPES
from .listing import entries, list_asked, one, render, several
from .needs import missing
from .pool import KeyPool
from .refusals import (
    CODES,
    INVALID_REQUEST,
    MODEL_NOT_FOUND,
    RATE_LIMITED,
    UNAVAILABLE,
    UNSUPPORTED,
    UNTRANSLATABLE,
)
from .source import ConfiguredSource, Source

FIRST_TOKEN: Final = 5.0
"""Seconds that a starting worker waits for access tokens, so that the first call has one."""


def _body(config: AiProvidersConfig) -> Body | None:
    """Bodies are gathered where a provider is on: none, and the addon costs nothing."""
    try:
        on = bool(ConfiguredSource(config, os.environ, Path()).providers())
    except ValueError:  # a file that is elsewhere: the addon itself will say
        on = True
    return Body(request=True, limit=config.body) if on else None


class AiProviders(Plugin[AiProvidersConfig]):
    """Models of many providers, by one name each."""

    Config = AiProvidersConfig
    codes = CODES

    def __init__(self, config: AiProvidersConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        self.source = ConfiguredSource(config, os.environ, context.base)
        self._tokens: list[AccessToken] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.catalog = self._catalog(self.source)

    def _catalog(self, source: Source) -> Catalog:
        credentials: dict[str, Credentials] = {}
        for provider in source.providers():
            for format in (*provider.formats, *provider.serves.values()):
                find_format(format)  # LookupError: it is not installed
            if provider.kind == "bedrock" and not provider.keys:
                credentials[provider.name] = AwsCredentials(os.environ, provider.profile)
            elif provider.kind == "vertex" and not provider.keys:
                assert provider.credentials is not None
                held = GoogleCredentials(provider.credentials)
                token = AccessToken(held, self.context.log, provider.name)
                self._tokens.append(token)
                credentials[provider.name] = token
        config = self.config
        return Catalog(
            source,
            policy=config.policy,
            recover=config.recover,
            alarm=self._alarm,
            credentials=credentials,
        )

    def _alarm(self, event: str, text: str) -> None:
        self.context.counters.add(f"keys_{event}_total")
        self.context.log.warning("%s", text)

    # -- life -----------------------------------------------------------------------------------

    @hook
    async def startup(self, previous: Plugin[Any] | None) -> None:
        """Take over what was learned of keys; begin to keep access tokens."""
        if isinstance(previous, AiProviders):
            self.catalog.adopt(previous.catalog)
        if self._tokens:
            self._tasks = [asyncio.create_task(token.keep()) for token in self._tokens]
            tried = [asyncio.ensure_future(token.tried.wait()) for token in self._tokens]
            _, waiting = await asyncio.wait(tried, timeout=FIRST_TOKEN)
            for unfinished in waiting:
                unfinished.cancel()

    @hook
    async def shutdown(self) -> None:
        """Stop keeping tokens."""
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self._tasks = []

    # -- exchanges ------------------------------------------------------------------------------

    @hook
    def authorize(self, exchange: Exchange) -> None:
        """Let others find the models."""
        exchange.stash[MODELS] = self.catalog

    @hook(needs=_body)
    def route(self, exchange: Exchange) -> Upstream | http.Response | Denial | None:
        """To the model that a call names."""
        path, method = exchange.path, exchange.request.data.method
        if not self.catalog.providers and self.config.unknown == "pass":
            return None
        if method == b"GET":
            return self._list(exchange, path)
        if method != b"POST":
            return None
        if inbound_format(path) is not None:
            return self._chat(exchange)
        return self._other(exchange) if inbound_endpoint(path) is not None else None

    def _chat(self, exchange: Exchange) -> Upstream | Denial | None:
        try:
            call = ai_call(exchange)
        except ValueError as error:
            return INVALID_REQUEST.denial(f"{INVALID_REQUEST.message} {_reason(error)}")
        assert call is not None
        name = call.request.model
        model = self.catalog.find(name)
        if model is None:
            return self._unknown(name, "chat")
        lacking = missing(model, call.request)
        if lacking:
            return UNSUPPORTED.denial(f"The model {name!r} takes no {lacking}.")
        try:
            return self._usable(self.catalog.upstream(model, call))
        except LookupError:
            return UNTRANSLATABLE.denial()

    def _other(self, exchange: Exchange) -> Upstream | Denial | None:
        """Calls that are no chat. Tokens are counted for models of chat."""
        try:
            call = endpoint_call(exchange)
        except ValueError as error:
            return INVALID_REQUEST.denial(f"{INVALID_REQUEST.message} {_reason(error)}")
        assert call is not None
        kind = find_format(call.format).kind
        counting = kind == "count-tokens"
        name = call.request.model
        model = self.catalog.find(name, "chat" if counting else kind)
        if model is None:
            return self._unknown(name, kind)
        if counting and kind not in self.catalog.providers[model.provider].serves:
            return None  # its provider does not count: others may
        try:
            return self._usable(self.catalog.upstream(model, call))
        except LookupError:
            return UNTRANSLATABLE.denial()

    def _unknown(self, name: str, kind: str) -> Denial | None:
        """Others may have it, where the configuration says so; but none of a provider of ours."""
        if self.config.unknown == "pass" and name.partition("/")[0] not in self.catalog.providers:
            return None
        what = "model" if kind == "chat" else f"model for {kind}"
        return MODEL_NOT_FOUND.denial(
            f"There is no {what} {_shown(name)} here. GET /v1/models lists them."
        )

    @staticmethod
    def _usable(pool: KeyPool) -> Upstream | Denial:
        wait = pool.wait()
        if not wait:
            return pool
        if pool.refused or wait == float("inf"):
            return UNAVAILABLE.denial(retry_after=min(wait, 60.0))
        return RATE_LIMITED.denial(retry_after=wait)

    def _list(self, exchange: Exchange, path: str) -> http.Response | Denial | None:
        asked = list_asked(path)
        if asked is None:
            return None
        shape, name = asked
        virtual = exchange.stash.get(VIRTUAL, ())
        if shape == "openai" and exchange.header("anthropic-version") is not None:
            shape = "anthropic"
        if not name:
            return _json(render(shape, entries(self.catalog, virtual)))
        found = several(name) if name in virtual else None
        for kind in ("chat", *SHAPES):
            found = found or self.catalog.find(name, kind)
        return self._unknown(name, "chat") if found is None else _json(one(shape, name, found))

    @hook
    def cli_commands(self, app: Any) -> None:
        """`tidegate providers add | list | known | models | test | remove`."""
        from .commands import commands

        name = self.context.name
        app.add_typer(
            commands(self), name="providers" if name == "ai-providers" else f"providers-{name}"
        )

    def explain(self, hook: str, exchange: Exchange) -> str:
        """Which providers are on, and how many keys they have."""
        parts = []
        for name, provider in self.catalog.providers.items():
            keys = len(provider.keys)
            parts.append(f"{name} ({keys} key{'' if keys == 1 else 's'})")
        return f"providers: {', '.join(parts)}" if parts else "no provider is on"


def _json(value: object) -> http.Response:
    return http.Response.make(200, orjson.dumps(value), {"content-type": "application/json"})


def _shown(name: str) -> str:
    """A caller's text in an error: bounded, one line."""
    return repr(name if len(name) <= 100 else f"{name[:100]}…")


def _reason(error: ValueError) -> str:
    """What a format's parser says of a request; of broken JSON, that it is broken."""
    if isinstance(error, orjson.JSONDecodeError):
        return "It is not valid JSON."
    return f"({str(error)[:200]})"
