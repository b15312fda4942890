"""Tells callers what an answer of a language model has cost, and the log as well."""

import json
from collections.abc import Mapping

from tidegate.api import AddonConfig, Body, Event, Exchange, Plugin, SseEvent, hook


class Options(AddonConfig):
    """US dollars for a million tokens by model: of the prompt, of the answer."""

    prices: Mapping[str, tuple[float, float]]


class CostHeader(Plugin[Options]):
    """A stream's fields are sent before its cost is known: that goes to the log alone."""

    Config = Options

    @hook(needs=Body(response=True))
    def transform_response(self, exchange: Exchange) -> None:
        """`on_error = "skip"`: an answer without a cost is better than none."""
        response = exchange.response
        if response and response.content and "json" in response.headers.get("content-type", ""):
            self._note(exchange, response.content)
            if "cost_usd" in exchange.notes:
                response.headers["x-cost-usd"] = f"{exchange.notes['cost_usd']:.6f}"

    @hook
    def transform_event(self, exchange: Exchange, event: Event) -> None:
        if isinstance(event, SseEvent) and '"usage"' in event.data:
            self._note(exchange, event.data)

    def _note(self, exchange: Exchange, text: str | bytes) -> None:
        answer = json.loads(text)
        usage, price = answer.get("usage"), self.config.prices.get(answer.get("model", ""))
        if usage and price:
            cost = usage["prompt_tokens"] * price[0] + usage["completion_tokens"] * price[1]
            exchange.notes["cost_usd"] = round(cost / 1_000_000, 6)
