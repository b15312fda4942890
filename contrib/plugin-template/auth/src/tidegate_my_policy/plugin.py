"""Lets in who presents a token that the configuration knows by its hash."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from pydantic import Field

from tidegate.api import (
    AddonConfig,
    AddonContext,
    Denial,
    ErrorCode,
    Exchange,
    Model,
    Plugin,
    Principal,
    hook,
)

INVALID_TOKEN: Final = ErrorCode("invalid_token", 401, "This token is not known.")


class Caller(Model):
    """Who holds a token."""

    name: str
    team: str = ""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """`printf %s "$TOKEN" | sha256sum`: a token is random and long, so a plain hash will do."""


class MyPolicyConfig(AddonConfig):
    """The options of an `[[addon]]` table."""

    header: str = Field(default="x-token", pattern=r"^[a-z0-9-]+$")
    callers: tuple[Caller, ...]


class MyPolicy(Plugin[MyPolicyConfig]):
    """Lets in who presents a token that the configuration knows by its hash."""

    Config = MyPolicyConfig
    codes = (INVALID_TOKEN,)

    def __init__(self, config: MyPolicyConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        self._callers = {c.sha256: Principal(c.name, c.team) for c in config.callers}

    @hook
    def authenticate(self, exchange: Exchange) -> Principal | Denial | None:
        """Look the token's hash up: what a timing could tell is of the hash, not of the token."""
        token = exchange.consume_header(self.config.header)
        if token is None:
            return None  # not our kind of credential: another addon may know the caller
        digest = sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
        return self._callers.get(digest) or INVALID_TOKEN.denial()
