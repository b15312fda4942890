"""The addon: puts the models on each exchange, and routes calls to them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
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
from tidegate.api.store import StoreError

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
    NO_RETRY,
    RATE_LIMITED,
    UNAVAILABLE,
    UNSUPPORTED,
    UNTRANSLATABLE,
)
from .source import ConfiguredSource, Source
from .teams import Catalogue, Held, TeamModels, Teams

FIRST_TOKEN: Final = 5.0
"""Seconds that a starting worker waits for access tokens, so that the first call has one."""


def _body(config: AiProvidersConfig) -> Body:
    """Bodies are gathered where a provider is on; else only of teams that have some."""
    try:
        on = bool(ConfiguredSource(config, os.environ, Path()).providers())
    except ValueError:  # a file that is elsewhere: the addon itself will say
        on = True
    idle = not on and config.unknown == "pass"
    return Body(request=True, limit=config.body, when=_of_a_team if idle else None)


def _of_a_team(exchange: Exchange) -> bool:
    """Whether the caller's team has providers of its own."""
    return isinstance(exchange.stashed(MODELS), TeamModels)


class AiProviders(Plugin[AiProvidersConfig]):
    """Models of many providers, by one name each."""

    Config = AiProvidersConfig
    codes = CODES

    def __init__(self, config: AiProvidersConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        self.source = ConfiguredSource(config, os.environ, context.base)
        self._tokens: list[AccessToken] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.catalog = self._catalog(self.source, self._credentials(self.source))
        self.teams = Teams(self.catalog, config.team_hosts, self._catalog, self._tell)

    def _credentials(self, source: Source) -> dict[str, Credentials]:
        """Of those providers that have no keys, but what the machine or a file has."""
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
        return credentials

    def _catalog(
        self, source: Source, credentials: Mapping[str, Credentials] = MappingProxyType({})
    ) -> Catalog:
        config = self.config
        return Catalog(
            source,
            policy=config.policy,
            recover=config.recover,
            alarm=self._alarm,
            credentials=credentials,
        )

    def _tell(self, text: str) -> None:
        self.context.log.warning("%s", text)

    def _alarm(self, event: str, text: str) -> None:
        self.context.counters.add(f"keys_{event}_total")
        self._tell(text)

    # -- life -----------------------------------------------------------------------------------

    @hook
    async def startup(self, previous: Plugin[Any] | None) -> None:
        """Take over what was learned of keys; begin to keep access tokens."""
        if isinstance(previous, AiProviders):
            self.teams.adopt(previous.teams)
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
        """Let others find the models that the caller may use."""
        exchange.stash[MODELS] = self.teams.of(exchange)

    @hook(needs=_body)
    def route(self, exchange: Exchange) -> Upstream | http.Response | Denial | None:
        """To the model that a call names."""
        path, method = exchange.path, exchange.request.data.method
        models = self.teams.of(exchange)
        if not models.names and self.config.unknown == "pass":
            return None
        if method == b"GET":
            return self._list(exchange, models, path)
        if method != b"POST":
            return None
        if inbound_format(path) is not None:
            return self._chat(exchange, models)
        return self._other(exchange, models) if inbound_endpoint(path) is not None else None

    def _chat(self, exchange: Exchange, models: Catalogue) -> Upstream | Denial | None:
        try:
            call = ai_call(exchange)
        except ValueError as error:
            return INVALID_REQUEST.denial(f"{INVALID_REQUEST.message} {_reason(error)}")
        assert call is not None
        name = call.request.model
        model = models.find(name)
        if model is None:
            return self._unknown(models, name, "chat")
        lacking = missing(model, call.request)
        if lacking:
            return UNSUPPORTED.denial(f"The model {name!r} takes no {lacking}.")
        try:
            return self._usable(models.upstream(model, call))
        except LookupError:
            return UNTRANSLATABLE.denial()

    def _other(self, exchange: Exchange, models: Catalogue) -> Upstream | Denial | None:
        """Calls that are no chat. Tokens are counted for models of chat."""
        try:
            call = endpoint_call(exchange)
        except ValueError as error:
            return INVALID_REQUEST.denial(f"{INVALID_REQUEST.message} {_reason(error)}")
        assert call is not None
        kind = find_format(call.format).kind
        counting = kind == "count-tokens"
        name = call.request.model
        model = models.find(name, "chat" if counting else kind)
        if model is None:
            return self._unknown(models, name, kind)
        if counting and kind not in models.providers[model.provider].serves:
            return None  # its provider does not count: others may
        try:
            return self._usable(models.upstream(model, call))
        except LookupError:
            return UNTRANSLATABLE.denial()

    def _unknown(self, models: Catalogue, name: str, kind: str) -> Denial | None:
        """Others may have it, where the configuration says so; but none of a provider of ours."""
        if self.config.unknown == "pass" and name.partition("/")[0] not in models.names:
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
            headers = NO_RETRY if pool.refused else ()
            return UNAVAILABLE.denial(headers=headers, retry_after=min(wait, 60.0))
        return RATE_LIMITED.denial(retry_after=wait)

    def _list(
        self, exchange: Exchange, models: Catalogue, path: str
    ) -> http.Response | Denial | None:
        asked = list_asked(path)
        if asked is None:
            return None
        shape, name = asked
        virtual = exchange.stash.get(VIRTUAL, ())
        if shape == "openai" and exchange.header("anthropic-version") is not None:
            shape = "anthropic"
        if not name:
            return _json(render(shape, entries(models, virtual)))
        found = several(name) if name in virtual else None
        for kind in ("chat", *SHAPES):
            found = found or models.find(name, kind)
        return (
            self._unknown(models, name, "chat") if found is None else _json(one(shape, name, found))
        )

    def stored(self) -> Mapping[str, Held]:
        """The providers of teams, as the store has them now: for verbs. Raises StoreError."""
        try:
            store = self.context.platform_store()
        except StoreError as error:
            if error.code != "store_missing":
                raise
            return {}
        stored = store.snapshot().providers
        return {team: self.teams.made(team, its) for team, its in stored.items()}

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
        for provider in self.teams.of(exchange).providers.values():
            keys = len(provider.keys)
            parts.append(f"{provider.label} ({keys} key{'' if keys == 1 else 's'})")
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
