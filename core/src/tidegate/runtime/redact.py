"""Keeps secrets out of logs, of error texts, and of what goes upstream."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

from tidegate.api.exchange import Exchange

MASK: Final = "***"
SECRET_FIELDS: Final = frozenset(
    {
        b"authorization",
        b"proxy-authorization",
        b"cookie",
        b"set-cookie",
        b"x-api-key",
        b"api-key",
        b"x-goog-api-key",
        b"x-amz-security-token",
    }
)
"""Fields whose values are credentials, lower case."""

_PATTERNS: Final = re.compile(
    r"(?i)(?P<keep>\b(?:bearer|basic)\s+|(?:authorization|cookie|x-api-key|api[-_]?key|key|token|"
    r"password|secret)[\"']?\s*[=:]\s*[\"']?(?:bearer\s+|basic\s+)?)(?P<secret>[^\s\"',;&}]{4,})"
    r"|(?P<bare>\b(?:tg|sk|pk|gsk|xai|ghp)[-_][A-Za-z0-9_-]{12,})"
)


def mask_text(text: str) -> str:
    """Mask what looks like a credential in free text."""
    return _PATTERNS.sub(lambda m: f"{m['keep'] or ''}{MASK}", text)


def scrub(text: str, exchange: Exchange) -> str:
    """Mask in `text` every credential that `exchange` carried, then what looks like one."""
    secrets = [value for _, _, value in exchange.credentials]
    secrets += [
        value.decode("latin-1")
        for name, value in exchange.request.headers.fields
        if name.lower() in SECRET_FIELDS
    ]
    for secret in secrets:
        for part in (secret, secret.rpartition(" ")[2]):
            if len(part) >= 4:
                text = text.replace(part, MASK)
    return mask_text(text)


class RedactingFilter(logging.Filter):
    """Masks credentials in every record; sits on the root handlers of every process."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        masked = mask_text(message)
        if masked != message:
            record.msg, record.args = masked, None
        return True


def strip_credentials(exchange: Exchange) -> None:
    """Remove consumed fields, cookies and query parameters; the rest keeps its very bytes."""
    data = exchange.request.data
    fields: set[bytes] = set()
    parameters: set[str] = set()
    cookies: set[bytes] = set()
    for kind, name, _ in exchange.credentials:
        if kind == "header":
            fields.add(name.lower().encode())
        elif kind == "cookie":
            cookies.add(name.encode())
        else:
            parameters.add(name)
    if cookies:
        data.headers.fields = tuple(without_cookies(data.headers.fields, cookies))
    if fields:
        headers = data.headers
        headers.fields = tuple([f for f in headers.fields if f[0].lower() not in fields])
    if parameters and b"?" in data.path:
        path, _, query = data.path.partition(b"?")
        kept = [
            pair
            for pair in query.split(b"&")
            if unquote_to_bytes(pair.partition(b"=")[0].replace(b"+", b" ")).decode(
                errors="replace"
            )
            not in parameters
        ]
        data.path = path + b"?" + b"&".join(kept) if kept else path


def without_cookies(
    fields: Iterable[tuple[bytes, bytes]], names: set[bytes]
) -> Iterator[tuple[bytes, bytes]]:
    """Fields without these cookies (RFC 6265 §4.2.1); none is left empty."""
    for name, value in fields:
        if name.lower() == b"cookie":
            pairs = value.split(b";")
            kept = [p for p in pairs if p.partition(b"=")[0].strip() not in names]
            if len(kept) < len(pairs):
                value = b";".join(kept).strip()
                if not value:
                    continue
        yield name, value
