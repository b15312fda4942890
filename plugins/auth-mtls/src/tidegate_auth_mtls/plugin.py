"""The addon: whose a client's certificate is, and whether it still counts."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from pydantic import Field, model_validator

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

from .certificates import Holder, RevocationError, Revocations, read

REVOKED: Final = ErrorCode("certificate_revoked", 401, "This certificate was revoked.")
EXPIRED: Final = ErrorCode("certificate_expired", 401, "This certificate is not valid now.")
UNKNOWN: Final = ErrorCode(
    "revocation_unknown", 503, "It can't be told whether this certificate was revoked."
)

KEPT: Final = 4_096
"""Certificates that are remembered, taken apart."""
CHECK_EVERY: Final = 2.0
"""Seconds between two looks at the file of revoked certificates."""
CLAIMED: Final = frozenset(
    {b"client-cert", b"client-cert-chain", b"x-client-cert", b"x-forwarded-client-cert",
     b"x-ssl-client-cert", b"ssl-client-cert"}
)  # fmt: skip
"""Fields in which a proxy tells upstreams of a certificate (RFC 9440): a caller may not."""

type Kind = Literal["common_name", "dns", "email", "organization", "organizational_unit", "uri"]


class CertificateOf(Model):
    """A client, by its certificate. All that is given must fit."""

    name: str = Field(min_length=1)
    team: str = Field(default="", pattern="^[^/]*$")
    roles: tuple[str, ...] = ()
    fingerprint: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    common_name: str | None = None
    organization: str | None = None
    organizational_unit: str | None = None
    dns: str | None = None
    uri: str | None = None
    email: str | None = None
    ip: str | None = None

    @model_validator(mode="after")
    def _something(self) -> CertificateOf:
        if self.fingerprint is None and not self.wanted():
            raise ValueError("say which certificate: `fingerprint`, `dns`, `uri`, …")
        return self

    def wanted(self) -> dict[str, str]:
        """The names that a certificate must have."""
        kinds = ("common_name", "organization", "organizational_unit", "dns", "uri", "email", "ip")
        return {kind: value for kind in kinds if (value := getattr(self, kind)) is not None}

    def fits(self, holder: Holder) -> bool:
        """Whether it is this client's certificate."""
        if self.fingerprint is not None and self.fingerprint != holder.fingerprint:
            return False
        return all(value in holder.names.get(kind, ()) for kind, value in self.wanted().items())


class Names(Model):
    """Where the name and the team of other clients stand in their certificates."""

    name: Kind
    team: Kind | str = ""


class AuthMtlsConfig(AddonConfig):
    """The options. The first of `clients` that fits counts, then `others`."""

    clients: tuple[CertificateOf, ...] = ()
    others: Names | None = None
    crl: str | None = None

    @model_validator(mode="after")
    def _someone(self) -> AuthMtlsConfig:
        if not self.clients and self.others is None:
            raise ValueError("give `clients` or `others`")
        return self


class AuthMtls(Plugin[AuthMtlsConfig]):
    """Client certificates: who is calling. The listener has verified them by its `client_ca`."""

    Config = AuthMtlsConfig
    codes = (REVOKED, EXPIRED, UNKNOWN)

    def __init__(self, config: AuthMtlsConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        self._crl = None if config.crl is None else context.base / config.crl
        self._revocations: Revocations | None = None
        self._known: dict[bytes, tuple[Holder, Principal | None]] = {}
        self._watching: asyncio.Task[None] | None = None

    # -- exchanges ----------------------------------------------------------------------------

    @hook
    def authenticate(self, exchange: Exchange) -> Principal | Denial | None:
        """The holder of the certificate of the connection."""
        for raw, _ in exchange.request.data.headers.fields:
            if raw.lower() in CLAIMED:
                exchange.consume_header(raw.decode().lower())
        der = exchange.client.certificate
        if der is None:
            return None
        holder, principal = self._known.get(der) or self._read(der)
        if principal is None:
            return None
        if not holder.since <= exchange.now < holder.until:  # connections may outlive it
            return EXPIRED.denial(headers=CHALLENGE)
        if self._revocations is not None:
            revoked = self._revocations.revoked(holder, exchange.now)
            if revoked is None:
                return UNKNOWN.denial(retry_after=10.0)
            if revoked:
                return REVOKED.denial(headers=CHALLENGE)
        return principal

    def _read(self, der: bytes) -> tuple[Holder, Principal | None]:
        holder = read(der)
        if len(self._known) >= KEPT:
            self._known.clear()
        found = self._known[der] = (holder, self._principal(holder))
        return found

    def _principal(self, holder: Holder) -> Principal | None:
        attributes: dict[str, Any] = {"fingerprint": holder.fingerprint}
        for client in self.config.clients:
            if client.fits(holder):
                if client.roles:
                    attributes["roles"] = client.roles
                return Principal(client.name, client.team, MappingProxyType(attributes))
        others = self.config.others
        if others is None:
            return None
        name = holder.only(others.name)
        team = others.team
        if team in KINDS:
            team = holder.only(team) or "/"
        if name is None or "/" in team:
            return None  # a slash parts team and name: neither is to be taken for another
        escaped = name if team else name.replace("/", "%2F")
        return Principal(escaped, team, MappingProxyType(attributes))

    def explain(self, hook: str, exchange: Exchange) -> str:
        """Where it looks."""
        if exchange.client.certificate is None:
            return "the connection has no client certificate"
        return "the client's certificate is none of those that are named"

    # -- life ---------------------------------------------------------------------------------

    @hook
    async def startup(self, previous: Plugin[Any] | None) -> None:
        """Read the file of revoked certificates, then keep an eye on it."""
        if self._crl is not None:
            document = await asyncio.to_thread(_document, self._crl)
            self._revocations = await asyncio.to_thread(Revocations, document)
            self._watching = asyncio.create_task(self._watch(self._crl, document))

    @hook
    async def shutdown(self) -> None:
        """Stop watching."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching

    async def _watch(self, file: Path, before: bytes) -> None:
        """Take a changed file. A broken one leaves the lists as they were, until they end."""
        while True:
            await asyncio.sleep(CHECK_EVERY)
            try:
                document = await asyncio.to_thread(_document, file)
                if document != before:
                    before = document
                    self._revocations = await asyncio.to_thread(Revocations, document)
                    self.context.counters.add("crl_reloads_total")
            except RevocationError as error:
                self.context.counters.add("crl_errors_total")
                self.context.log.error("the lists stay as they were: %s: %s", file, error)


def _document(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise RevocationError(error.strerror or "it can't be read") from None


KINDS: Final = frozenset(
    {"common_name", "dns", "email", "organization", "organizational_unit", "uri"}
)
CHALLENGE: Final = (("www-authenticate", "Mutual"),)
"""RFC 9110 §11.6.1 asks for one in a 401; there is no registered scheme for certificates."""
