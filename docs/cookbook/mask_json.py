"""Masks members of JSON answers by name, at any depth, in bodies and in event streams."""

import json
from typing import Any

from tidegate.api import AddonConfig, Body, Event, Exchange, Plugin, SseEvent, hook


class Options(AddonConfig):
    """The names of the members whose values nobody is to see."""

    members: frozenset[str]


class MaskJson(Plugin[Options]):
    """What can't be parsed raises, and so is not let by: 502, or the stream is cut."""

    Config = Options

    @hook(needs=Body(response=True))
    def transform_response(self, exchange: Exchange) -> None:
        response = exchange.response  # of an event stream, `content` is None here
        if response and response.content and "json" in response.headers.get("content-type", ""):
            response.content = self._text(response.content.decode()).encode()

    @hook  # having it is what lets streams flow: core knows that they are masked too
    def transform_event(self, exchange: Exchange, event: Event) -> None:
        if isinstance(event, SseEvent):
            event.data = event.data if event.data == "[DONE]" else self._text(event.data)
        elif not event.from_client:
            event.content = self._text(event.content.decode()).encode()

    def _text(self, text: str) -> str:
        return json.dumps(self._masked(json.loads(text)))

    def _masked(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._masked(item) for item in value]
        if isinstance(value, dict):
            hidden = self.config.members
            return {k: "***" if k in hidden else self._masked(v) for k, v in value.items()}
        return value
