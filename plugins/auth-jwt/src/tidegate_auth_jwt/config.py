"""The options: which issuers are trusted, and what their claims mean."""

from __future__ import annotations

from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from tidegate.api import AddonConfig, Duration, Model

type Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
    "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
]  # fmt: skip
"""Signatures by a private key only (RFC 7518 §3.1, RFC 8037, RFC 9864). `none` and the HMACs are
left out: a public key must never serve as the secret of an HMAC."""

ALGORITHMS: Final[tuple[Algorithm, ...]] = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
    "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
)  # fmt: skip


class Claims(Model):
    """Which claim says what. A dot leads into an object: `realm_access.roles`.

    A claim that has dots in its own name (`https://example.com/team`) is found as well.
    """

    name: str = Field(default="sub", min_length=1)
    team: str | None = None
    roles: str | None = None
    attributes: dict[str, str] = Field(default_factory=dict)

    @field_validator("attributes")
    @classmethod
    def _free(cls, value: dict[str, str]) -> dict[str, str]:
        if taken := {"roles", "issuer"} & value.keys():
            raise ValueError(f"`{min(taken)}` is filled already: give it another name")
        return value


class IssuerConfig(Model):
    """An issuer. Its keys come from `jwks_url`, `jwks_file`, or by discovery from `issuer`."""

    issuer: str = Field(min_length=1)
    audience: tuple[str, ...] = Field(min_length=1)
    jwks_url: str | None = None
    jwks_file: str | None = None
    algorithms: tuple[Algorithm, ...] = Field(default=ALGORITHMS, min_length=1)
    type: str | None = None
    team: str | None = Field(default=None, pattern="^[^/]+$")
    claims: Claims = Claims()

    @field_validator("jwks_url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        return None if value is None else web_address(value)

    @model_validator(mode="after")
    def _one_source(self) -> IssuerConfig:
        if self.jwks_url is not None and self.jwks_file is not None:
            raise ValueError("give `jwks_url` or `jwks_file`, not both")
        if self.jwks_url is None and self.jwks_file is None:
            web_address(self.issuer)
        if self.team is not None and self.claims.team is not None:
            raise ValueError("give `team` or `claims.team`, not both")
        return self


class AuthJwtConfig(AddonConfig):
    """The options. `header` names the fields that may carry a token, in order of precedence."""

    issuers: tuple[IssuerConfig, ...] = Field(min_length=1)
    header: tuple[str, ...] = Field(default=("authorization",), min_length=1)
    leeway: Duration = Field(default=30.0, le=600)
    refresh: Duration = Field(default=600.0, ge=1)
    max_stale: Duration = Field(default=86_400.0, ge=1)
    timeout: Duration = Field(default=5.0, gt=0, le=30)

    @model_validator(mode="after")
    def _apart(self) -> AuthJwtConfig:
        names = [entry.issuer for entry in self.issuers]
        if len(set(names)) < len(names):
            raise ValueError("an issuer stands there twice")
        for number, entry in enumerate(self.issuers):
            if len(names) > 1 and entry.team is None and entry.claims.team is None:
                raise ValueError(
                    f"issuers.{number}: with several issuers each has a `team` or `claims.team`:"
                    " two of them may know different people by the same name"
                )
        return self


def web_address(value: str) -> str:
    """`value`, if it is an address to fetch from. Raises ValueError."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise ValueError(f"{value!r} is not a URL to fetch from: write https://…")
    return value
