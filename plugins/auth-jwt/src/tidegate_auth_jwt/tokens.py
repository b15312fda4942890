"""A token: taken apart, verified, its claims judged and read. No I/O, no clock."""

from __future__ import annotations

import math
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import orjson
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import Key

from tidegate.api import Denial, ErrorCode, Principal

from .config import ALGORITHMS, Claims, IssuerConfig

INVALID: Final = ErrorCode("token_invalid", 401, "This token is not valid.")
EXPIRED: Final = ErrorCode("token_expired", 401, "This token has expired.")
NOT_ACTIVE: Final = ErrorCode("token_not_active", 401, "This token is not valid yet.")
AUDIENCE: Final = ErrorCode("token_wrong_audience", 401, "This token is meant for another API.")
UNAVAILABLE: Final = ErrorCode(
    "issuer_unavailable", 503, "The keys of the token's issuer can't be had. Try again shortly."
)

MAX_TOKEN: Final = 16_384
"""Characters of a token. A longer one is refused unread."""
MAX_NAME: Final = 256

_JWS: Final = jws.JWSRegistry(algorithms=list(ALGORITHMS), strict_check_header=False)
_JWS.max_header_length = MAX_TOKEN  # an instance's own: some issuers put certificates there


@dataclass(frozen=True, slots=True)
class Token:
    """A token taken apart: nothing in it is true before `signed_by`."""

    text: str
    algorithm: str
    kid: str | None
    type: str
    claims: Mapping[str, Any]

    def signed_by(self, key: Key) -> bool:
        """Whether `key` made its signature."""
        try:
            jws.deserialize_compact(self.text, key, registry=_JWS)
        except (JoseError, ValueError, TypeError, KeyError):
            return False
        return True


def parse(text: str) -> Token | None:
    """A compact JWS (RFC 7515 §7.1) with JSON claims; None: it is none that is acceptable."""
    if len(text) > MAX_TOKEN or text.count(".") != 2 or not text.isascii():
        return None
    head, body, _ = text.split(".")
    header, claims = _object(head), _object(body)
    if header is None or claims is None:
        return None
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "")
    # Extensions that must be understood (RFC 7515 §4.1.11) are not: none is defined for tokens.
    # Nor is a payload that is not encoded (RFC 7797), which would need one.
    if "crit" in header or "b64" in header or not isinstance(algorithm, str):
        return None
    if not (kid is None or isinstance(kid, str)) or not isinstance(kind, str):
        return None
    return Token(text, algorithm, kid, kind, claims)


def _object(segment: str) -> dict[str, Any] | None:
    try:
        padded = segment + "=" * (-len(segment) % 4)
        value = orjson.loads(b64decode(padded, b"-_", validate=True))
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def acceptable(token: Token, issuer: IssuerConfig) -> bool:
    """Whether its header is one that this issuer's tokens may have."""
    if token.algorithm not in issuer.algorithms:
        return False
    wanted = issuer.type
    return wanted is None or _media_type(token.type) == _media_type(wanted)


def _media_type(text: str) -> str:
    """RFC 7515 §4.1.9: `application/` may be left out, and case says nothing."""
    return text.lower().removeprefix("application/")


@dataclass(frozen=True, slots=True)
class Verified:
    """Whom a verified token names, and between which Unix seconds it holds."""

    principal: Principal
    since: float
    until: float


def judge(token: Token, issuer: IssuerConfig, now: float, leeway: float) -> Verified | Denial:
    """What a token says whose signature is right. Only then may a denial tell what is wrong."""
    claims = token.claims
    expires = _time(claims, "exp")
    starts = [_time(claims, name) for name in ("nbf", "iat") if name in claims]
    if expires is None or None in starts:
        return denied(INVALID)
    since = max((s for s in starts if s is not None), default=-math.inf) - leeway
    if now >= expires + leeway:
        return denied(EXPIRED)
    if now < since:
        return denied(NOT_ACTIVE)
    meant = claims.get("aud")
    audiences = meant if isinstance(meant, list) else [meant]
    if issuer.audience != ("*",) and not any(a in issuer.audience for a in audiences):
        return denied(AUDIENCE)
    principal = principal_of(claims, issuer)
    return denied(INVALID) if principal is None else Verified(principal, since, expires + leeway)


def denied(code: ErrorCode) -> Denial:
    """RFC 6750 §3: what a 401 says of the token."""
    text = code.message.rstrip(".")
    challenge = f'Bearer error="invalid_token", error_description="{text}"'
    return code.denial(headers=(("www-authenticate", challenge),))


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519 §2); None: it is none."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and abs(value) < 1e12 else None


def principal_of(claims: Mapping[str, Any], issuer: IssuerConfig) -> Principal | None:
    """Who a token is about; None: a claim that must be there is missing or no name.

    A slash parts team and name in a principal's id, so no team has one, and a name without a
    team has it escaped: else a name could be chosen that is another team's.
    """
    names: Claims = issuer.claims
    name = _name(claim(claims, names.name))
    team = issuer.team or ""
    if names.team is not None:
        team = _name(claim(claims, names.team)) or "/"
    if not name or "/" in team:
        return None
    attributes: dict[str, Any] = {"issuer": issuer.issuer}
    if names.roles is not None:
        attributes["roles"] = _texts(claim(claims, names.roles))
    for attribute, path in names.attributes.items():
        value = claim(claims, path)
        if value is not None:
            attributes[attribute] = value
    return Principal(name if team else name.replace("/", "%2F"), team, MappingProxyType(attributes))


def claim(claims: Mapping[str, Any], path: str) -> Any:
    """The claim of that name, else what the dots of `path` lead to, else None."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def _name(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    usable = isinstance(value, str) and len(value) <= MAX_NAME and value.isprintable()
    return value if usable else ""


def _texts(value: Any) -> tuple[str, ...]:
    """A list of texts, or a text with spaces between them, as `scope` is (RFC 8693 §4.2)."""
    if isinstance(value, str):
        return tuple(value.split())
    return tuple(v for v in value if isinstance(v, str)) if isinstance(value, list) else ()
