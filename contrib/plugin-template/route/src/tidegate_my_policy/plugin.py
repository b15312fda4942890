"""Sends an exchange to the upstream that one of its request fields names."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, field_validator

from tidegate.api import (
    AddonConfig,
    AddonContext,
    Exchange,
    Plugin,
    Upstream,
    hook,
    upstream_from_url,
)


class MyPolicyConfig(AddonConfig):
    """The options of an `[[addon]]` table."""

    field: str = Field(default="x-stage", pattern=r"^[a-z0-9-]+$")
    upstreams: Mapping[str, str]

    @field_validator("upstreams")
    @classmethod
    def _are_urls(cls, urls: Mapping[str, str]) -> Mapping[str, str]:
        for url in urls.values():
            upstream_from_url(url)
        return urls


class MyPolicy(Plugin[MyPolicyConfig]):
    """Sends an exchange to the upstream that one of its request fields names."""

    Config = MyPolicyConfig

    def __init__(self, config: MyPolicyConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        self._upstreams = {
            value: upstream_from_url(url, name=value) for value, url in config.upstreams.items()
        }

    @hook
    def route(self, exchange: Exchange) -> Upstream | None:
        """The upstream of the field's value. None leaves the exchange to the next addon."""
        return self._upstreams.get(exchange.header(self.config.field) or "")
