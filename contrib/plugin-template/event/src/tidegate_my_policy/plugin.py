"""Masks words in event streams and WebSocket messages as they pass."""

from __future__ import annotations

import re

from tidegate.api import AddonConfig, AddonContext, Event, Exchange, Plugin, SseEvent, hook


class MyPolicyConfig(AddonConfig):
    """The options of an `[[addon]]` table."""

    words: tuple[str, ...]
    mask: str = "***"


class MyPolicy(Plugin[MyPolicyConfig]):
    """Masks words in event streams and WebSocket messages as they pass."""

    Config = MyPolicyConfig

    def __init__(self, config: MyPolicyConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        words = "|".join(re.escape(word) for word in sorted(config.words, key=len, reverse=True))
        self._words = re.compile(rf"\b(?:{words})\b" if words else r"(?!)", re.IGNORECASE)

    @hook
    def transform_event(self, exchange: Exchange, event: Event) -> None:
        """Change the event in place. A word that is cut over two events is not seen."""
        if isinstance(event, SseEvent):
            event.data = self._masked(event.data)
        elif event.text:
            event.content = self._masked(event.content.decode()).encode()

    def _masked(self, text: str) -> str:
        masked, count = self._words.subn(lambda _: self.config.mask, text)
        if count:
            self.context.counters.add("words_masked_total", count)
        return masked
