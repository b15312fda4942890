"""The addon: turns a call of a prompt into a chat call, and its answer into the prompt's."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

import orjson
from mitmproxy import http

from tidegate.api import (
    AddonContext,
    Body,
    Denial,
    Event,
    EventResult,
    Exchange,
    Plugin,
    SseEvent,
    hook,
)
from tidegate.api.errors import METHOD_NOT_ALLOWED

from . import answers, openapi
from .answers import INVALID, JOB, NOT_JSON, OUTPUT, REFUSED, TEMPLATE, Job
from .book import Book, Signature, signature
from .operation import InvalidVariables, Operation
from .options import AiPromptsConfig
from .templates import RenderError

CHAT: Final = "/v1/chat/completions"
CHECK_EVERY: Final = 1.0
"""Seconds after which a change of the prompts' files is seen."""


class AiPrompts(Plugin[AiPromptsConfig]):
    """Prompts as APIs."""

    Config = AiPromptsConfig
    codes = (NOT_JSON, INVALID, TEMPLATE, OUTPUT, REFUSED)

    def __init__(self, config: AiPromptsConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        try:
            self.book = Book(config, context.base)
        except ValueError as error:
            raise ValueError(str(error)) from None
        self._openapi = f"{config.prefix}/openapi.json"
        self._watching: asyncio.Task[None] | None = None

    # -- calls ----------------------------------------------------------------------------------

    @hook(needs=lambda config: Body(request=True, limit=config.max_body))
    def transform_request(self, exchange: Exchange) -> http.Response | Denial | None:
        """Make the chat call of a prompt's call. What is wrong with it is answered here."""
        path = exchange.path
        method = exchange.request.data.method
        if path == self._openapi and method in (b"GET", b"HEAD"):
            body = orjson.dumps(openapi.document(self.book))
            return http.Response.make(200, body, {"content-type": "application/json"})
        entry = self.book.entries.get(path)
        if entry is None:
            return None
        if method != b"POST":
            return METHOD_NOT_ALLOWED.denial(headers=(("allow", "POST"),))
        return self._call(exchange, entry.operation)

    def _call(self, exchange: Exchange, operation: Operation) -> http.Response | None:
        try:
            asked = exchange.request_json() if exchange.request.content else {}
        except ValueError:
            asked = None
        if not isinstance(asked, dict):
            return answers.problem(exchange, NOT_JSON)
        wanted = answers.wanted_of(exchange, asked)
        variables = {name: value for name, value in asked.items() if name != "stream"}
        try:
            body = operation.chat(operation.variables(variables), stream=wanted == "stream")
        except InvalidVariables as error:
            self.context.counters.add("calls_refused_total")
            return answers.problem(exchange, INVALID, str(error), error.faults)
        except RenderError as error:
            self.context.counters.add("templates_failed_total")
            return answers.problem(exchange, TEMPLATE, str(error))
        exchange.stash[JOB] = Job(operation, wanted, exchange.path)
        exchange.notes["prompt"] = f"{operation.prompt.name}/v{operation.version.version}"
        exchange.at_end(_restore)
        self.context.counters.add("calls_total")
        request = exchange.request
        request.data.path = CHAT.encode()
        exchange.path = CHAT
        headers = request.headers
        headers.pop("content-encoding", None)
        headers["content-type"] = "application/json"
        headers["accept"] = "text/event-stream" if wanted == "stream" else "application/json"
        request.content = orjson.dumps(body)
        return None

    # -- answers --------------------------------------------------------------------------------

    @hook(needs=Body(response=True))
    def transform_response(self, exchange: Exchange) -> Denial | None:
        """Make the prompt's answer of the chat's. A stream is made event by event."""
        job = exchange.stash.get(JOB)
        response = exchange.response
        if job is None or response is None or response.data.content is None:
            return None
        denial = answers.give(job, exchange, response)
        if denial is not None:
            self.context.counters.add("outputs_invalid_total")
        return denial

    @hook
    def transform_event(self, exchange: Exchange, event: Event) -> EventResult:
        """The text that a chunk of the chat's stream adds."""
        job = exchange.stash.get(JOB)
        if job is None or not isinstance(event, SseEvent):
            return None
        sent = answers.event(job, exchange, event)
        if isinstance(sent, Denial):
            self.context.counters.add("outputs_invalid_total")
        return sent

    def explain(self, hook: str, exchange: Exchange) -> str:
        """Which paths it serves."""
        return f"serves {', '.join(list(self.book.entries)[:8])}"

    # -- life -----------------------------------------------------------------------------------

    @hook
    async def startup(self, previous: Plugin[Any] | None) -> None:
        """Keep an eye on the folder."""
        if self.config.folder is not None:
            self._watching = asyncio.create_task(self._watch(await self._signature()))

    @hook
    async def shutdown(self) -> None:
        """Stop watching."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching

    async def _signature(self) -> Signature:
        assert self.config.folder is not None
        return await asyncio.to_thread(signature, self.context.base / self.config.folder)

    async def _watch(self, seen: Signature) -> None:
        """Read the prompts anew when a file changed. Broken ones leave all as they were."""
        while True:
            await asyncio.sleep(CHECK_EVERY)
            try:
                found = await self._signature()
                if found != seen:
                    seen = found
                    self.book = await asyncio.to_thread(Book, self.config, self.context.base)
                    self.context.counters.add("prompt_reloads_total")
            except (OSError, ValueError) as error:
                self.context.counters.add("prompt_errors_total")
                self.context.log.error("the prompts stay as they were: %s", error)

    @hook
    def cli_commands(self, app: Any) -> None:
        """`tidegate prompts list|show|render|test`."""
        from . import cli

        cli.add_to(app, self)


def _restore(exchange: Exchange) -> None:
    """Show the log the path that was called."""
    exchange.path = exchange.stash[JOB].path
