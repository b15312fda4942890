"""Values with placeholders, compiled once."""

from __future__ import annotations

import re
from collections.abc import Callable
from string import Formatter
from typing import Final

from tidegate.api import Exchange
from tidegate.api.fields import field_value

type Value = Callable[[Exchange], bytes]

PLACEHOLDERS: Final[dict[str, Callable[[Exchange], str]]] = {
    "principal": lambda exchange: "" if exchange.principal is None else exchange.principal.id,
    "team": lambda exchange: "" if exchange.principal is None else exchange.principal.team,
    "request_id": lambda exchange: exchange.id,
    "client": lambda exchange: exchange.client.address,
}

_CONTROLS: Final = re.compile(rb"[\x00-\x1f\x7f]+")


def compile_value(template: str) -> Value:
    """The function that renders `template`; `{{` and `}}` are braces.

    Raises ValueError for an unknown placeholder. What placeholders bring in is not ours to trust:
    control characters are taken out of it, so that it can't end the field or begin another.
    """
    parts = parse(field_value(template))
    if all(name is None for _, name in parts):
        constant = "".join(literal for literal, _ in parts).encode()
        return lambda _: constant
    pieces: list[bytes | Callable[[Exchange], str]] = []
    for literal, name in parts:
        pieces.append(literal.encode())
        if name is not None:
            pieces.append(PLACEHOLDERS[name])

    def render(exchange: Exchange) -> bytes:
        return b"".join(
            piece if isinstance(piece, bytes) else clean(piece(exchange)) for piece in pieces
        ).strip(b" ")

    return render


def parse(template: str) -> list[tuple[str, str | None]]:
    """(literal, name of the placeholder after it or None) of each part."""
    out = []
    for literal, name, spec, conversion in Formatter().parse(template):
        if name is not None and (name not in PLACEHOLDERS or spec or conversion):
            known = ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)
            raise ValueError(f"{{{name}}} is not a placeholder: there are {known}; {{{{ is a brace")
        out.append((literal, name))
    return out


def clean(text: str) -> bytes:
    """`text` as UTF-8 without control characters."""
    return _CONTROLS.sub(b"", text.encode("utf-8", "replace"))
