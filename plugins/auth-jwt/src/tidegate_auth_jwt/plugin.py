"""The addon: where it looks for a token, and what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from tidegate.api import AddonContext, Denial, Exchange, Plugin, Principal, hook

from .config import AuthJwtConfig
from .issuer import Issuer
from .tokens import (
    AUDIENCE,
    EXPIRED,
    INVALID,
    MAX_TOKEN,
    NOT_ACTIVE,
    UNAVAILABLE,
    Token,
    Verified,
    acceptable,
    denied,
    judge,
    parse,
)

KEPT: Final = 4096
"""Verified tokens that are remembered."""
KEPT_SIZE: Final = 8 << 20
"""Characters of all of them together."""


class AuthJwt(Plugin[AuthJwtConfig]):
    """JSON Web Tokens of issuers: who is calling.

    A signature is verified once: the token is then remembered until it ends, so that the next
    request with it costs a look-up. What is remembered is forgotten when the issuer's keys
    change. Tokens that are wrong are never remembered.
    """

    Config = AuthJwtConfig
    codes = (INVALID, EXPIRED, NOT_ACTIVE, AUDIENCE, UNAVAILABLE)

    def __init__(self, config: AuthJwtConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        self._order = tuple(dict.fromkeys(name.lower() for name in config.header))
        self._names = {name.encode(): name for name in self._order}
        self._known: dict[str, Verified] = {}
        self._size = 0
        self.issuers = {
            entry.issuer: Issuer(entry, config, context, self._forget) for entry in config.issuers
        }

    # -- exchanges ----------------------------------------------------------------------------

    @hook
    def authenticate(
        self, exchange: Exchange
    ) -> Principal | Denial | Coroutine[Any, Any, Principal | Denial] | None:
        """Whom the token of the request names. It waits only where keys must be fetched."""
        text = self._token(exchange)
        if text is None:
            return None
        known = self._known.get(text)
        if known is not None and known.since <= exchange.now < known.until:
            return known.principal
        token = parse(text)
        name = None if token is None else token.claims.get("iss")
        issuer = self.issuers.get(name) if isinstance(name, str) else None
        if token is None or issuer is None or not acceptable(token, issuer.config):
            return denied(INVALID)
        unknown = issuer.keys is None or not issuer.keys.candidates(token.algorithm, token.kid)
        if unknown and issuer.may_fetch:
            return self._after_fetch(token, issuer, exchange.now)
        return self._verify(token, issuer, exchange.now)

    async def _after_fetch(self, token: Token, issuer: Issuer, now: float) -> Principal | Denial:
        await issuer.fetch()
        return self._verify(token, issuer, now)

    def _verify(self, token: Token, issuer: Issuer, now: float) -> Principal | Denial:
        if issuer.keys is None:
            return UNAVAILABLE.denial(retry_after=5.0)
        keys = issuer.keys.candidates(token.algorithm, token.kid)
        if not any(token.signed_by(key) for key in keys):
            return denied(INVALID)
        found = judge(token, issuer.config, now, self.config.leeway)
        if isinstance(found, Denial):
            return found
        self._remember(token.text, found)
        return found.principal

    def _remember(self, text: str, found: Verified) -> None:
        known = self._known
        if text not in known:
            self._size += len(text)
        known[text] = found
        while len(known) > KEPT or self._size > KEPT_SIZE:
            oldest = next(iter(known))
            self._size -= len(oldest)
            del known[oldest]

    def _forget(self) -> None:
        """An issuer's keys changed: what an old one signed is to be verified anew."""
        self._known.clear()
        self._size = 0

    def _token(self, exchange: Exchange) -> str | None:
        """The first token by the order of `header`. All are consumed: none goes on."""
        names = self._names
        found: dict[str, str] = {}
        for raw, value in exchange.request.data.headers.fields:
            name = names.get(raw) or names.get(raw.lower())
            if name is None:
                continue
            text = value.decode("utf-8", "surrogateescape")
            if name == "authorization":
                scheme, _, text = text.partition(" ")
                text = text.strip()
                # A JSON object in base64url begins so; anything else is another addon's.
                if scheme.lower() != "bearer" or not text.startswith("ey"):
                    continue
                if text.count(".") > 2 and len(text) <= MAX_TOKEN:
                    continue  # an encrypted token (RFC 7516)
            found.setdefault(name, text)
        if not found:
            return None
        for name in found:
            exchange.consume_header(name)
        return next(found[name] for name in self._order if name in found)

    def explain(self, hook: str, exchange: Exchange) -> str:
        """Where it looks for a token."""
        places = [f"{n} (Bearer)" if n == "authorization" else n for n in self._order]
        return f"looked for a token in {', '.join(places)}"

    # -- life ---------------------------------------------------------------------------------

    @hook
    async def startup(self, previous: Plugin[Any] | None) -> None:
        """Read files of keys; fetch the others beside the exchanges."""
        before = previous.issuers if isinstance(previous, AuthJwt) else {}
        for name, issuer in self.issuers.items():
            old = before.get(name)
            await issuer.start(old if old and old.config == issuer.config else None)

    @hook
    async def shutdown(self) -> None:
        """Stop fetching."""
        await asyncio.gather(*(issuer.stop() for issuer in self.issuers.values()))
