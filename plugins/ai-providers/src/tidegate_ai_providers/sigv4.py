"""AWS Signature Version 4 (docs.aws.amazon.com, "Create a signed AWS API request"), sans-I/O.

For services other than S3: paths are encoded once more, payloads are always hashed.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl, quote

ALGORITHM: Final = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key; `token` of a session. Only the key's id is ever shown."""

    id: str
    secret: str = field(repr=False)
    token: str = field(default="", repr=False)


def sign(
    method: str,
    host: str,
    target: str,
    body: bytes,
    credentials: Credentials,
    *,
    region: str,
    service: str,
    now: float,
) -> list[tuple[bytes, bytes]]:
    """The fields that sign a request: `authorization`, `x-amz-date`, `x-amz-security-token`.

    `target` is path and query as they are sent; `host` the Host field; `now` Unix seconds. Other
    fields are not signed: those on the way may change them.
    """
    when = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    signed = {"host": host, "x-amz-date": when}
    if credentials.token:
        signed["x-amz-security-token"] = credentials.token
    names = ";".join(sorted(signed))
    path, _, query = target.partition("?")
    canonical = "\n".join(
        (
            method,
            quote(path, safe="/~"),
            canonical_query(query),
            *(f"{name}:{signed[name]}" for name in sorted(signed)),
            "",
            names,
            hashlib.sha256(body).hexdigest(),
        )
    )
    scope = f"{when[:8]}/{region}/{service}/aws4_request"
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    key = signing_key(credentials.secret, when[:8], region, service)
    signature = _hmac(key, f"{ALGORITHM}\n{when}\n{scope}\n{hashed}").hex()
    value = f"{ALGORITHM} Credential={credentials.id}/{scope}, "
    value += f"SignedHeaders={names}, Signature={signature}"
    fields = [(b"authorization", value.encode()), (b"x-amz-date", when.encode())]
    if credentials.token:
        fields.append((b"x-amz-security-token", credentials.token.encode()))
    return fields


def canonical_query(query: str) -> str:
    """The query with its parameters encoded and sorted."""
    pairs: Sequence[tuple[str, str]] = parse_qsl(query, keep_blank_values=True)
    encoded = sorted((quote(name, safe="~"), quote(value, safe="~")) for name, value in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded)


@lru_cache(maxsize=64)
def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """The key of a day: four hashes that are the same for each request of it."""
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = _hmac(key, part)
    return key


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
