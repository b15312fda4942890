"""Entity tags and their comparison (RFC 9110 §8.8.3)."""

from __future__ import annotations

import re
from typing import Final

_TAG: Final = re.compile(rb'[ \t]*((?:W/)?"[\x21\x23-\x7e\x80-\xff]*")[ \t]*(?:,|$)')


def parse_tags(value: bytes) -> list[bytes]:
    """The entity tags of an If-None-Match list; what is not one is passed over.

    An opaque tag may contain a comma, so the list can't be split at commas. A bare word is
    taken as the tag that some servers send without quotes.
    """
    found: list[bytes] = []
    at = 0
    while at < len(value):
        match = _TAG.match(value, at)
        if match:
            found.append(match[1])
            at = match.end()
            continue
        end = value.find(b",", at)
        end = len(value) if end < 0 else end
        word = value[at:end].strip()
        if word and b'"' not in word:
            found.append(word)
        at = end + 1
    return found


def opaque(tag: bytes) -> bytes:
    """The tag without its weakness."""
    return tag.removeprefix(b"W/")


def weakly_equal(one: bytes, other: bytes) -> bool:
    """§8.8.3.2: equal but for weakness."""
    return opaque(one) == opaque(other)


def strongly_equal(one: bytes, other: bytes) -> bool:
    """§8.8.3.2: equal, and neither is weak."""
    return one == other and is_strong(one)


def is_strong(tag: bytes) -> bool:
    """Whether a tag changes with every byte of the representation."""
    return tag.startswith(b'"') and tag.endswith(b'"') and len(tag) >= 2
