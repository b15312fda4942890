"""The cassettes of a folder: read, matched, played in order, written."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from tidegate.api.cassette import CassetteError, dumps, loads
from tidegate.api.recording import Recording

from .matching import Matching, difference, key_of, loose, nearest

SUFFIX = ".cassette"

type Repeat = Literal["last", "cycle", "miss"]


class Cassette:
    """One recording and the canonical form of its request. `name`: its file within the folder."""

    __slots__ = ("form", "key", "name", "recording")

    def __init__(self, name: str, recording: Recording, form: dict[str, Any], key: bytes) -> None:
        self.name = name
        self.recording = recording
        self.form = form
        self.key = key


class Library:
    """Cassettes by what they answer. Several for one request are played in order of their names.

    `scrubbed` makes a recording what would be written of it: files edited by hand may hold what
    recordings never do.
    """

    def __init__(
        self,
        folder: Path,
        matching: Matching,
        repeat: Repeat,
        scrubbed: Callable[[Recording], Recording],
    ) -> None:
        self.folder = folder
        self._matching = matching
        self._repeat = repeat
        self._scrubbed = scrubbed
        self._by_key: dict[bytes, list[Cassette]] = {}
        self._by_loose: dict[bytes, list[Cassette]] = {}
        self._turns: dict[bytes, int] = {}
        self.cassettes: dict[str, Cassette] = {}

    def load(self) -> None:
        """Read the folder. Raises CassetteError that names the file and the line."""
        for path in sorted(self.folder.rglob(f"*{SUFFIX}")):
            name = path.relative_to(self.folder).as_posix()
            try:
                recording = loads(path.read_text(encoding="utf-8"), name)
            except (CassetteError, UnicodeDecodeError) as error:
                raise CassetteError(f"{path}: {error}") from None
            self._add(name, self._scrubbed(recording))

    def _add(self, name: str, recording: Recording) -> None:
        form = self._matching.canonical(recording)
        cassette = Cassette(name, recording, form, key_of(form))
        self.cassettes[name] = cassette
        self._by_key.setdefault(cassette.key, []).append(cassette)
        if self._matching.ignore_text and "call" in form:
            self._by_loose.setdefault(loose(cassette.key), []).append(cassette)

    def take(self, request: Recording) -> Cassette | None:
        """The next cassette for a scrubbed request, or None."""
        form = self._matching.canonical(request)
        key = key_of(form)
        found = self._by_key.get(key)
        if found is None and self._by_loose and "call" in form:
            key = loose(key)
            found = self._by_loose.get(key)
        if not found:
            return None
        turn = self._turns.get(key, 0)
        self._turns[key] = turn + 1
        if turn < len(found):
            return found[turn]
        if self._repeat == "miss":
            return None
        return found[turn % len(found)] if self._repeat == "cycle" else found[-1]

    def explain(self, request: Recording) -> str:
        """Why there is no cassette for a scrubbed request: the nearest one, and what differs."""
        form = self._matching.canonical(request)
        what = f"No cassette in {self.folder.name}/ for {request.method} {request.path}"
        if key_of(form) in self._by_key:
            return f"{what}: all that were recorded for it have been played."
        near = nearest(form, ((c.name, c.form) for c in self.cassettes.values()))
        if near is None:
            return f"{what}: the folder holds none."
        return f"{what}. The nearest is {near[0]}:\n{difference(near[0], near[1], form)}"

    # -- writing ------------------------------------------------------------------------------

    def add(self, recording: Recording) -> Cassette:
        """Take in a scrubbed recording under a new name. The file is written by `write`."""
        stem = self.stem(recording)
        number = 1
        while f"{stem}.{number}{SUFFIX}" in self.cassettes:
            number += 1
        name = f"{stem}.{number}{SUFFIX}"
        self._add(name, recording)
        return self.cassettes[name]

    def stem(self, recording: Recording) -> str:
        """A name that a request has each time it is recorded: what it asks, and a digest."""
        words = re.sub(r"[^a-z0-9]+", "-", f"{recording.method} {recording.path}".lower())
        key = key_of(self._matching.canonical(recording))
        return f"{words.strip('-')[:60]}-{hashlib.sha256(key).hexdigest()[:8]}"

    def write(self, cassette: Cassette) -> None:
        """Write a cassette's file, whole or not at all. Raises OSError."""
        path = self.folder / cassette.name
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        draft.write_text(dumps(cassette.recording), encoding="utf-8")
        draft.replace(path)
