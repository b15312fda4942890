"""Names and values of header fields that an operator writes: checked when they are loaded."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["CARRIER_FIELDS", "field_name", "field_value"]

CARRIER_FIELDS: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Fields that belong to one connection (RFC 9110 §7.6.1) or frame a message (RFC 9112 §6).

The carriers write them anew for each hop; no one else may set or remove them. Lower case.
"""

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def field_name(name: str) -> str:
    """`name`, if an operator may set that field. Raises ValueError with the reason if not."""
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is not a field name (RFC 9110 §5.1)")
    if name.lower() == "host":
        raise ValueError(
            "`host` comes from the upstream's URL; `preserve_host` of a route keeps it"
        )
    if name.lower() in CARRIER_FIELDS:
        raise ValueError(f"`{name}` belongs to the connection: the gateway writes it itself")
    return name


def field_value(value: str) -> str:
    """`value` without spaces around it. Raises ValueError where it holds control characters."""
    if _CONTROLS.search(value):
        raise ValueError("a field value holds no control characters (RFC 9110 §5.5)")
    return value.strip(" \t")
