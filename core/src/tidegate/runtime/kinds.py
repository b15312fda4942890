"""What is special about header fields: which are dropped, rewritten, or say how to frame.

Looked up by a field's name in whatever case it came.
"""

from __future__ import annotations

from typing import Final

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""RFC 9110 §7.6.1 and the fields that old clients treat so."""

UPSTREAM_DROPS: Final = HOP_BY_HOP | {
    b"content-length",
    b"expect",
    b"host",
    b"http2-settings",
    b"x-original-url",
    b"x-real-ip",
    b"x-request-id",
    b"x-rewrite-url",
    b"x-tidegate-explain",
}
_FORWARDING: Final = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-forwarded-server",
    }
)
_FRAMING: Final = frozenset(
    {b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"http2-settings"}
)
_CLIENT_DROPS: Final = HOP_BY_HOP | {b"content-length", b"x-request-id", b"x-tidegate-explain"}

HOST: Final = 1
CONNECTION: Final = 2
KEPT_HERE: Final = 4
"""Not passed upstream."""
KEPT_BACK: Final = 8
"""Not passed to the caller."""
FORWARDING: Final = 16
VIA: Final = 32
FRAMING: Final = 64
"""Says how a message is framed, or asks for something of the carrier."""
CONTENT_TYPE: Final = 128
EXPLAIN: Final = 256
"""Asks for the trace of the exchange."""


class FieldKinds(dict[bytes, int]):
    """What is special about a field, by its name in whatever case: flags, or 0.

    One look-up by the bytes that came costs a third of lowering them and asking each set. Names
    are remembered as they come, within bounds.
    """

    def __missing__(self, name: bytes) -> int:
        lowered = name.lower()
        kind = (
            HOST * (lowered == b"host")
            | CONNECTION * (lowered == b"connection")
            | KEPT_HERE * (lowered in UPSTREAM_DROPS)
            | KEPT_BACK * (lowered in _CLIENT_DROPS)
            | FORWARDING * (lowered in _FORWARDING)
            | VIA * (lowered == b"via")
            | FRAMING * (lowered in _FRAMING)
            | CONTENT_TYPE * (lowered == b"content-type")
            | EXPLAIN * (lowered == b"x-tidegate-explain")
        )
        if len(name) <= 64 and len(self) < 4096:
            self[name] = kind
        return kind


KINDS: Final = FieldKinds()
