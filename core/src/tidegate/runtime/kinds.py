"""What is special about header fields: which are dropped, rewritten, or say how to frame.

It depends on names only, and a client sends the same names in the same order again and again. So
a head is not walked: its `Shape` is looked up by its names, and says at which places to look.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Final

from tidegate.api.messages import Fields

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
FORWARDED_FOR: Final = b"x-forwarded-for"
_FORWARDING: Final = frozenset(
    {
        b"forwarded",
        FORWARDED_FOR,
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

_NOT_UPSTREAM: Final = UPSTREAM_DROPS | _FORWARDING | {b"via"}

_LONGEST: Final = 2048
"""Bytes of names, and `_MOST` names, that a shape which is remembered may have."""
_MOST: Final = 64
_REMEMBERED: Final = 1024


class Shape:
    """What the names of a head say. Places are indexes into its fields.

    Attributes:
        names: in lower case.
        hosts, connection, content_type, explain, via: places of the fields of that name.
        forwarding: places of fields that say who called.
        framing: name (lower case) and place of fields that say how the message is framed, or
            ask for something of the carrier.
        upstream: for each field, whether it goes upstream where the caller is not trusted.
        caller: for each field of a response, whether it goes to the caller.
    """

    __slots__ = (
        "_without",
        "caller",
        "connection",
        "content_type",
        "explain",
        "forwarding",
        "framing",
        "hosts",
        "names",
        "upstream",
        "via",
    )

    def __init__(self, names: tuple[bytes, ...]) -> None:
        self.names = lowered = tuple([name.lower() for name in names])
        self.hosts = self._places(b"host")
        self.connection = self._places(b"connection")
        self.content_type = self._places(b"content-type")
        self.explain = self._places(b"x-tidegate-explain")
        self.via = self._places(b"via")
        self.forwarding = tuple([i for i, name in enumerate(lowered) if name in _FORWARDING])
        self.framing = tuple([(name, i) for i, name in enumerate(lowered) if name in _FRAMING])
        self.upstream = tuple([name not in _NOT_UPSTREAM for name in lowered])
        self.caller = tuple([name not in _CLIENT_DROPS for name in lowered])
        self._without: dict[tuple[str, ...], tuple[bool, ...]] = {}

    def _places(self, wanted: bytes) -> tuple[int, ...]:
        return tuple([i for i, name in enumerate(self.names) if name == wanted])

    def without(self, names: tuple[str, ...]) -> tuple[bool, ...]:
        """For each field, whether it has none of these names (lower case)."""
        found = self._without.get(names)
        if found is None:
            unwanted = {name.encode() for name in names}
            found = tuple([name not in unwanted for name in self.names])
            if len(self._without) < 16:
                self._without[names] = found
        return found


class Shapes(dict[tuple[bytes, ...], Shape]):
    """Shapes by names as they came. Bounded: names are the callers' to choose."""

    def __missing__(self, names: tuple[bytes, ...]) -> Shape:
        shape = Shape(names)
        if len(names) <= _MOST and sum(map(len, names)) <= _LONGEST:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[names] = shape
        return shape


_shapes: Final = Shapes()
_name: Final = itemgetter(0)


def shape_of(fields: Fields) -> Shape:
    """The shape of a head."""
    return _shapes[tuple(map(_name, fields))]
