"""The keys of an issuer (RFC 7517), and which of them may have signed a token. No I/O."""

from __future__ import annotations

from typing import Any, Final

import orjson
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, Key, OKPKey, RSAKey

MAX_DOCUMENT: Final = 1 << 20
"""Bytes of a key set or a discovery document."""
MAX_KEYS: Final = 200
MIN_RSA_BITS: Final = 2048
"""RFC 7518 §3.3."""
TRIED: Final = 4
"""Keys that are tried where a token names none."""

_CURVES: Final = {
    "ES256": ("P-256",),
    "ES384": ("P-384",),
    "ES512": ("P-521",),
    "EdDSA": ("Ed25519", "Ed448"),
    "Ed25519": ("Ed25519",),
}


class KeySetError(ValueError):
    """The document is no set of keys that could verify anything."""


class KeySet:
    """The usable keys of a document. What it can't use is left out (RFC 7517 §5)."""

    __slots__ = ("_keys", "document")

    def __init__(self, document: bytes) -> None:
        """Raises KeySetError where it is not JSON of a key set, or no key of it is usable."""
        self.document = document
        try:
            rows = orjson.loads(document)["keys"]
        except (ValueError, KeyError, TypeError):
            raise KeySetError('it is not JSON of the form {"keys": […]}') from None
        if not isinstance(rows, list) or len(rows) > MAX_KEYS:
            raise KeySetError(f"`keys` is not a list of at most {MAX_KEYS} keys")
        self._keys = [key for row in rows if (key := _usable(row)) is not None]
        if not self._keys:
            raise KeySetError("it has no public key for signatures")

    def candidates(self, algorithm: str, kid: str | None) -> list[Key]:
        """The keys that may have made a signature; more than one only where `kid` is None."""
        fitting = [
            key for key in self._keys if (kid is None or key.kid == kid) and _fits(key, algorithm)
        ]
        return fitting[:TRIED]


def _usable(row: Any) -> Key | None:
    if not isinstance(row, dict) or row.get("use", "sig") != "sig":
        return None
    operations = row.get("key_ops")
    if operations is not None and "verify" not in operations:
        return None
    try:
        key = JWKRegistry.import_key(row)
        if isinstance(key, RSAKey) and key.public_key.key_size < MIN_RSA_BITS:
            return None
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return key if isinstance(key, RSAKey | ECKey | OKPKey) else None


def _fits(key: Key, algorithm: str) -> bool:
    """Whether a key is of the kind that an algorithm takes, and its owner says nothing else.

    The kind is the key's, never the token's: that an RSA key is taken for the secret of an HMAC,
    or a key for another curve, ends here.
    """
    if key.alg is not None and key.alg != algorithm and {key.alg, algorithm} != _SAME:
        return False
    if isinstance(key, RSAKey):
        return algorithm[:2] in ("RS", "PS")
    if isinstance(key, ECKey):
        return algorithm[:2] == "ES" and key.curve_name in _CURVES.get(algorithm, ())
    if isinstance(key, OKPKey):
        return algorithm[:2] == "Ed" and key.curve_name in _CURVES.get(algorithm, ())
    return False


_SAME: Final = {"EdDSA", "Ed25519"}
"""Two names of one algorithm (RFC 9864 §2.2)."""
