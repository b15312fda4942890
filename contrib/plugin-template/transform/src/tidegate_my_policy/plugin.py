"""Tells upstream who is calling, and callers nothing about the servers behind."""

from __future__ import annotations

from pydantic import Field

from tidegate.api import AddonConfig, Exchange, Plugin, hook


class MyPolicyConfig(AddonConfig):
    """The options of an `[[addon]]` table."""

    field: str = Field(default="x-caller", pattern=r"^[a-z0-9-]+$")
    hide: tuple[str, ...] = ("server", "x-powered-by")


class MyPolicy(Plugin[MyPolicyConfig]):
    """Tells upstream who is calling, and callers nothing about the servers behind."""

    Config = MyPolicyConfig

    @hook
    def transform_request(self, exchange: Exchange) -> None:
        """Set the caller's id; what a caller wrote there itself never counts."""
        headers = exchange.request.headers
        headers.pop(self.config.field, None)
        if exchange.principal is not None:
            headers[self.config.field] = exchange.principal.id

    @hook
    def transform_response(self, exchange: Exchange) -> None:
        """Remove the fields that tell of the server."""
        assert exchange.response is not None
        for name in self.config.hide:
            exchange.response.headers.pop(name, None)
