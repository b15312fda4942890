"""Takes secrets out of a recording before it is written down. Values in, values out.

What goes: the values of fields and query parameters that hold credentials, the options' JSON
values, each of those secrets wherever else it occurs (an API that echoes a key), and what looks
like a well-known kind of API key. Scrubbing twice changes nothing, so that a scrubbed request
and a live one, scrubbed, can be compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import unquote_plus

from .cassette import json_style, to_json, write_json
from .recording import Answer, Chunk, Fields, Recording

__all__ = ["MASK", "Scrubber", "json_paths"]

MASK: Final = "***"

SECRET_NAME: Final = re.compile(
    r"^(?!(?:next|page|continuation|sync|sort|partition)[-_.])(?:.*(?:auth|cookie|credential|passw|"
    r"pwd|secret|session|signature|(?:api|access)[-_.]?(?:key|token))|(?:.*[-_.])?"
    r"(?:key|token|sig|code)$)",
    re.IGNORECASE,
)
"""Names of fields and query parameters whose values are taken for credentials.

A `page_token` is none: two pages must not look like one.
"""

_KEYS: Final = re.compile(
    rb"\b(?:tg|sk|pk|gsk|xai|ghp|gho|github_pat|glpat|xox[abp])[-_][A-Za-z0-9_-]{16,}"
    rb"|\bAKIA[0-9A-Z]{16}\b|\bAIza[0-9A-Za-z_-]{35}"
)
_SHORTEST: Final = 6
"""A shorter "secret" is not looked for in bodies: it would hit by chance."""

type Path = tuple[str, ...]


def json_paths(paths: Iterable[str]) -> tuple[Path, ...]:
    """`messages.*.name` as ("messages", "*", "name"). Raises ValueError."""
    out = []
    for path in paths:
        parts = tuple(path.removeprefix("$.").split("."))
        if not all(parts):
            raise ValueError(f'{path!r} is no JSON path: write "user" or "messages.*.name"')
        out.append(parts)
    return tuple(out)


class Scrubber:
    """What to take out. `fields` and `query`: further names. `paths`: JSON values in bodies."""

    def __init__(
        self, fields: Iterable[str] = (), query: Iterable[str] = (), paths: Sequence[Path] = ()
    ) -> None:
        self._fields = frozenset(name.lower() for name in fields)
        self._query = frozenset(query)
        self._paths = tuple(paths)

    def recording(self, recording: Recording, secrets: Iterable[str] = ()) -> Recording:
        """The recording without secrets; `secrets` are further ones to look for."""
        found = set(secrets)
        headers = self._scrub_fields(recording.headers, found)
        url = self._scrub_url(recording.url, found)
        answer = recording.answer
        answered = () if answer is None else self._scrub_fields(answer.headers, found)
        needles = sorted(
            {part.encode("utf-8", "surrogateescape") for s in found for part in _parts(s)},
            key=len,
            reverse=True,
        )
        if answer is not None:
            answer = self._scrub_answer(answer, _each(answered, needles), needles)
        return replace(
            recording,
            url=_text(url, needles),
            headers=_each(headers, needles),
            body=self._scrub_body(recording.body, needles),
            answer=answer,
        )

    def _scrub_fields(self, fields: Fields, found: set[str]) -> Fields:
        out = []
        for name, value in fields:
            lowered = name.lower()
            if lowered in self._fields or SECRET_NAME.search(lowered):
                if value and value != MASK:
                    found.add(value)
                value = MASK
            out.append((name, value))
        return tuple(out)

    def _scrub_url(self, url: str, found: set[str]) -> str:
        base, mark, query = url.partition("?")
        pairs = []
        for pair in query.split("&"):
            name, equals, value = pair.partition("=")
            plain = unquote_plus(name)
            if value and (plain in self._query or SECRET_NAME.search(plain)):
                if value != MASK:
                    found.update((value, unquote_plus(value)))
                pair = f"{name}{equals}{MASK}"
            pairs.append(pair)
        return base + mark + "&".join(pairs)

    def _scrub_answer(self, answer: Answer, headers: Fields, needles: list[bytes]) -> Answer:
        if answer.chunks is None:
            content = self._scrub_body(answer.content, needles)
            return replace(answer, headers=headers, content=content)
        chunks = [
            Chunk(chunk.delay, self._scrub_event(chunk.data, needles)) for chunk in answer.chunks
        ]
        return replace(answer, headers=headers, chunks=tuple(chunks))

    def _scrub_event(self, data: bytes, needles: list[bytes]) -> bytes:
        if self._paths and data.startswith(b"data: ") and data.count(b"\n") == 2:
            return b"data: " + self._scrub_body(data[6:-2], needles) + data[-2:]
        return _bytes(data, needles)

    def _scrub_body(self, content: bytes, needles: list[bytes]) -> bytes:
        content = _bytes(content, needles)
        if not self._paths or not content:
            return content
        try:
            value = to_json(content)
        except ValueError:
            return content
        style = json_style(content, value) or "compact"
        changed = False
        for path in self._paths:
            changed = _mask(value, path) or changed
        return write_json(value, style) if changed else content


def _parts(secret: str) -> list[str]:
    """A secret, and a credential without its scheme (`Bearer …`)."""
    return [p for p in {secret, secret.rpartition(" ")[2]} if len(p) >= _SHORTEST and p != MASK]


def _bytes(content: bytes, needles: list[bytes]) -> bytes:
    for needle in needles:
        content = content.replace(needle, MASK.encode())
    return _KEYS.sub(MASK.encode(), content)


def _text(text: str, needles: list[bytes]) -> str:
    return _bytes(text.encode("utf-8", "surrogateescape"), needles).decode(
        "utf-8", "surrogateescape"
    )


def _each(fields: Fields, needles: list[bytes]) -> Fields:
    return tuple((name, _text(value, needles)) for name, value in fields)


def _mask(value: Any, path: Path) -> bool:
    """Put the mask where `path` leads; whether it led anywhere."""
    name, rest = path[0], path[1:]
    keys: Iterable[Any]
    if isinstance(value, dict):
        keys = list(value) if name == "*" else [name] if name in value else []
    elif isinstance(value, list):
        keys = range(len(value)) if name == "*" else ()
    else:
        return False
    changed = False
    for key in keys:
        if rest:
            changed = _mask(value[key], rest) or changed
        elif value[key] != MASK:
            value[key] = MASK
            changed = True
    return changed
