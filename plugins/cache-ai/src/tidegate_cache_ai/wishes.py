"""Cache-Control as far as a cache of answers obeys it (RFC 9111 §5.2)."""

from __future__ import annotations

from tidegate.api.messages import Fields

type Wishes = dict[str, str]


def wishes_of(fields: Fields) -> Wishes:
    """The directives of Cache-Control: name → argument, or ""; the first of a name counts."""
    found: Wishes = {}
    for name, value in fields:
        if len(name) == 13 and name.lower() == b"cache-control":
            for member in value.decode("latin-1").split(","):
                directive, _, argument = member.strip().partition("=")
                found.setdefault(directive.strip().lower(), argument.strip(' "'))
    return found


def seconds(wishes: Wishes, name: str) -> int | None:
    """Delta-seconds of a directive: None where it is absent, 0 where it can't be read."""
    argument = wishes.get(name)
    if argument is None:
        return None
    return min(int(argument[:12]), 2**31) if argument.isascii() and argument.isdigit() else 0
