"""The addon: tells callers what translation lost. The translators need no addon to be on."""

from __future__ import annotations

from tidegate.api import AddonConfig, Exchange, Plugin, hook
from tidegate.api.formats import AI_CALL

from .losses import header
from .translation import WARNINGS


class AiFormatsConfig(AddonConfig):
    """Options of `ai-formats`."""

    warnings: bool = True
    """Whether answers carry `x-tidegate-warnings`."""


class AiFormats(Plugin[AiFormatsConfig]):
    """Tells callers what was lost between their format and the provider's."""

    Config = AiFormatsConfig

    @hook
    def transform_response(self, exchange: Exchange) -> None:
        """Set or remove the header. Of streams it says what the request lost."""
        call = exchange.stash.get(AI_CALL)
        response = exchange.response
        if call is None or response is None:
            return
        if not self.config.warnings:
            response.headers.pop(WARNINGS, None)
        elif call.warnings and WARNINGS not in response.headers:
            response.headers[WARNINGS] = header(call.warnings)
