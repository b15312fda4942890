"""What a hook changed in a message: told by name, with hashes in place of values.

Shadow records and traces are read by people who may not see what passes. A hash tells whether
two values are the same; it is keyed anew in each process, so that it can't be looked up.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import Any, Final

from mitmproxy import http

from .messages import Fields

_KEY: Final = os.urandom(16)
HASHED: Final = 64 * 1024
"""Bytes of a body up to which it is hashed; of a longer one the length is told."""

type View = tuple[Fields, bytes | None, bytes | None, bytes | None, int | None]
"""Fields, content, path, method and status of a message, as they were."""


def fingerprint(value: bytes) -> str:
    """`#` and eight hex digits: the same for the same value, within this process."""
    return "#" + blake2b(value, digest_size=4, key=_KEY).hexdigest()


def view(message: Any) -> View:
    """What of a message a hook may change. Its parts can't change: nothing is copied."""
    data = message.data
    if isinstance(data, http.RequestData):
        return data.headers.fields, data.content, data.path, data.method, None
    return data.headers.fields, data.content, None, None, data.status_code


def untouched(message: Any, copy: Any) -> bool:
    """Whether each part of a copy is still the very object that it was made with. Quick."""
    old, new = message.data, copy.data
    if old.headers.fields is not new.headers.fields or old.content is not new.content:
        return False
    if isinstance(old, http.RequestData):
        return old.path is new.path and old.method is new.method
    return bool(old.status_code == new.status_code)


def changes(before: View, after: View) -> list[str]:
    """What differs, such as `+x-team #1a2b3c4d`; [] where nothing does."""
    if before == after:  # what was not touched is the same object: this is quick
        return []
    out = []
    fields, content, path, method, status = before
    if after[0] != fields:
        out += _fields(fields, after[0])
    if after[1] != content:
        out.append(f"body {_sized(content)}→{_sized(after[1])}")
    if after[2] != path:
        out.append(f"path {fingerprint(path or b'')}→{fingerprint(after[2] or b'')}")
    if after[3] != method:
        out.append("method")
    if after[4] != status:
        out.append(f"status {status}→{after[4]}")
    return out


def _fields(before: Fields, after: Fields) -> list[str]:
    """Field lines that came, went or got another value."""
    size = len(before)
    if after[:size] == before:  # the usual change is one more line
        return [f"+{_name(name)} {fingerprint(value)}" for name, value in after[size:]]
    gone = {field[0].lower(): field[1] for field in before if field not in after}
    come = {field[0].lower(): field[1] for field in after if field not in before}
    out = [f"-{_name(name)} {fingerprint(gone[name])}" for name in gone if name not in come]
    for name, value in come.items():
        if name in gone:
            out.append(f"{_name(name)} {fingerprint(gone[name])}→{fingerprint(value)}")
        else:
            out.append(f"+{_name(name)} {fingerprint(value)}")
    return out or ["order of fields"]


def _name(name: bytes) -> str:
    return name.decode("latin-1").lower()


def _sized(content: bytes | None) -> str:
    if content is None:
        return "streamed"
    told = f"{len(content)} B"
    return f"{told} {fingerprint(content)}" if len(content) <= HASHED else told
