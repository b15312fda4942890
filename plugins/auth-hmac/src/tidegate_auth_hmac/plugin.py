"""The addon: which signatures it takes, and what it says."""

from __future__ import annotations

import asyncio
import os
from typing import Any, Final

from pydantic import Field, field_validator, model_validator

from tidegate.api import (
    AddonConfig,
    AddonContext,
    Body,
    Denial,
    Duration,
    ErrorCode,
    Exchange,
    Model,
    Plugin,
    Principal,
    Secret,
    StashKey,
    hook,
)

from .nonces import Nonces, NoncesFull
from .signature import (
    Signature,
    Unsigned,
    digests,
    digests_match,
    field_value,
    has_body,
    has_tag,
    read,
)

INVALID: Final = ErrorCode("signature_invalid", 401, "This request's signature is not valid.")
EXPIRED: Final = ErrorCode(
    "signature_expired", 401, "This request's signature is too old, or its clock is wrong."
)
REPLAYED: Final = ErrorCode("signature_replayed", 401, "This request was sent before.")
DIGEST: Final = ErrorCode(
    "content_digest_mismatch", 400, "The body is not the one that Content-Digest describes."
)
FULL: Final = ErrorCode(
    "nonce_store_full", 503, "Signed requests can't be told from repeated ones. Try again shortly."
)

_EXPECTED: Final = StashKey[dict[str, bytes]]("auth-hmac.digests")


class SecretKey(Model):
    """A key: its id, and the secret that both sides know."""

    id: str = Field(min_length=1, max_length=128, pattern=r"^[\x20-\x7e]+$")
    secret: Secret
    name: str = Field(min_length=1)
    team: str = Field(default="", pattern="^[^/]*$")
    roles: tuple[str, ...] = ()

    @field_validator("secret")
    @classmethod
    def _long(cls, value: Secret) -> Secret:
        if len(value.get_secret_value().encode()) < 32:
            raise ValueError("a secret has at least 32 bytes (RFC 2104 §3)")
        return value

    def principal(self) -> Principal:
        """Who holds it."""
        attributes: dict[str, Any] = {"key": self.id}
        if self.roles:
            attributes["roles"] = self.roles
        return Principal(self.name, self.team, attributes)


class AuthHmacConfig(AddonConfig):
    """The options. `components` must be signed; `content-digest` as well where there is a body."""

    keys: tuple[SecretKey, ...] = Field(min_length=1)
    tag: str = Field(default="tidegate", pattern=r"^[A-Za-z0-9_.-]+$")
    components: tuple[str, ...] = ("@method", "@authority", "@path", "@query")
    window: Duration = Field(default=300.0, ge=1, le=86_400)
    skew: Duration = Field(default=30.0, le=600)
    digest: bool = True

    @model_validator(mode="after")
    def _ids(self) -> AuthHmacConfig:
        ids = [key.id for key in self.keys]
        if len(set(ids)) < len(ids):
            raise ValueError("two keys have the same id")
        return self


class AuthHmac(Plugin[AuthHmacConfig]):
    """Signed requests (RFC 9421, HMAC-SHA256): who is calling."""

    Config = AuthHmacConfig
    codes = (INVALID, EXPIRED, REPLAYED, DIGEST, FULL)

    def __init__(self, config: AuthHmacConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        self._keys = {
            key.id: (key.secret.get_secret_value().encode(), key.principal()) for key in config.keys
        }
        self._nonces: Nonces | None = None
        wanted = " ".join(f'"{name}"' for name in (*config.components, "content-digest"))
        accept = f'sig=({wanted});created;nonce;keyid;alg="hmac-sha256";tag="{config.tag}"'
        self._challenge = (("www-authenticate", "Signature"), ("accept-signature", accept))

    # -- exchanges ----------------------------------------------------------------------------

    @hook
    def authenticate(self, exchange: Exchange) -> Principal | Denial | None:
        """The holder of the key that the request is signed with."""
        if exchange.header("signature-input") is None:
            return None
        stated = field_value(exchange, "signature-input")
        if not has_tag(stated, self.config.tag):
            return None
        exchange.consume_header("signature-input")
        exchange.consume_header("signature")
        try:
            value = field_value(exchange, "signature")
            signature = read(stated, value, self.config.tag)
            secret, principal = self._keys.get(signature.key, (b"", None))
            right = signature.made_with(secret, exchange)
        except Unsigned:
            return self._denied(INVALID)
        if principal is None or not right or not self._covered(signature, exchange):
            return self._denied(INVALID)
        denial = self._untimely(signature, exchange.now)
        if denial is None:
            exchange.stash[_EXPECTED] = digests(exchange) if has_body(exchange) else {}
        return denial or principal

    def _covered(self, signature: Signature, exchange: Exchange) -> bool:
        wanted = self.config.components
        return signature.covers((*wanted, "content-digest") if has_body(exchange) else wanted)

    def _untimely(self, signature: Signature, now: float) -> Denial | None:
        """Whether a right signature is out of its time, or was used before."""
        window, skew = self.config.window, self.config.skew
        expires = signature.expires
        if not now - window - skew <= signature.created <= now + skew:
            return self._denied(EXPIRED)
        if expires is not None and now > expires + skew:
            return self._denied(EXPIRED)
        if self._nonces is None:
            return FULL.denial(retry_after=1.0)
        try:
            oldest = now - window - 2 * skew
            first = self._nonces.first(signature.key, signature.nonce, signature.created, oldest)
        except NoncesFull:
            self.context.counters.add("nonce_store_full_total")
            return FULL.denial(retry_after=window)
        if not first:
            self.context.counters.add("replays_total")
        return None if first else self._denied(REPLAYED)

    @hook(needs=lambda config: Body(request=True) if config.digest else None)
    def authorize(self, exchange: Exchange) -> Denial | None:
        """Deny a body that is not the one that was signed."""
        expected = exchange.stashed(_EXPECTED) if self.config.digest else None
        # What is signed are the bytes on the wire, whatever their coding (RFC 9530 §2). One that
        # no head announced (HTTP/2 needs no length) has no digest: it is refused here.
        content = exchange.request.data.content or b""
        if expected is None or digests_match(content, expected) or not (content or expected):
            return None
        return DIGEST.denial()

    def _denied(self, code: ErrorCode) -> Denial:
        return code.denial(headers=self._challenge)

    def explain(self, hook: str, exchange: Exchange) -> str:
        """Where it looks."""
        if hook == "authorize":
            return "the body is the one that was signed, or none was"
        return f'looked for signature-input with tag="{self.config.tag}"'

    # -- life ---------------------------------------------------------------------------------

    @hook
    async def startup(self, previous: Plugin[Any] | None) -> None:
        """Open the nonces, which all workers share."""
        before = previous._nonces if isinstance(previous, AuthHmac) else None
        if before is not None:
            self._nonces = before.shared()
        else:
            self._nonces = await asyncio.to_thread(Nonces, self.context.state / "nonces")
        for key in self.config.keys:
            if key.secret.get_secret_value() not in os.environ.values():
                self.context.log.warning(
                    'the secret of "%s" stands in the file: write secret = "${NAME}", with the'
                    " secret in the environment",
                    key.id,
                )

    @hook
    def shutdown(self) -> None:
        """Close the nonces."""
        if self._nonces is not None:
            self._nonces.close()
            self._nonces = None
