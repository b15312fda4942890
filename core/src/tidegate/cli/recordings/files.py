"""Which file holds what, and how it is read and written."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import orjson

from tidegate.api.cassette import dumps, loads
from tidegate.api.recording import Recording
from tidegate.runtime.problems import ConfigError, Problem

SUFFIX: Final = ".cassette"
FORMATS: Final = ("har", "flows")
BOM: Final = b"\xef\xbb\xbf"


class Unreadable(ConfigError):
    """A file that holds no recording, and why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(Problem("recording_unreadable", reason, str(path)))


def read_all(paths: Iterable[Path]) -> list[Recording]:
    """The recordings of several files and folders, as they come. Raises Unreadable."""
    return [recording for path in paths for recording in read(path)]


def read(path: Path) -> list[Recording]:
    """The recordings of a file, or of the cassettes below a folder. Raises Unreadable."""
    if path.is_dir():
        found = sorted(path.rglob(f"*{SUFFIX}"))
        return [_cassette(file, file.relative_to(path).as_posix()) for file in found]
    try:
        if path.suffix == SUFFIX:
            return [_cassette(path, path.name)]
        with path.open("rb") as file:
            start = file.read(4).removeprefix(BOM)
            file.seek(0)
            if not start.startswith(b"{") and path.suffix != ".har":
                from .flows import from_flows

                return list(from_flows(file, path.name))
            if path.suffix in (".jsonl", ".ndjson", ".log"):
                from .lines import from_lines

                return list(from_lines(file, path.name))
            from .har import from_har

            return from_har(orjson.loads(file.read().removeprefix(BOM)), path.name)
    except OSError as error:
        raise Unreadable(path, error.strerror or str(error)) from None
    except ValueError as error:
        text = f"not JSON: {error}" if isinstance(error, orjson.JSONDecodeError) else str(error)
        raise Unreadable(path, text) from None


def _cassette(path: Path, name: str) -> Recording:
    try:
        return loads(path.read_text(encoding="utf-8"), name)
    except OSError as error:
        raise Unreadable(path, error.strerror or str(error)) from None
    except ValueError as error:
        text = f"not JSON: {error}" if isinstance(error, orjson.JSONDecodeError) else str(error)
        raise Unreadable(path, text) from None


def write(recordings: Sequence[Recording], to: Path, kind: str) -> None:
    """Write recordings as one HAR or flow file."""
    if kind == "har":
        from importlib.metadata import version

        from .har import to_har

        document = to_har(recordings, version("tidegate-core"))
        to.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
        return
    from .flows import to_flows

    with to.open("wb") as file:
        to_flows(recordings, file)


def folder_of(recordings: Iterable[Recording], folder: Path) -> list[Path]:
    """Write recordings as cassettes below `folder`; their files. What is there stays."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    last: dict[str, int] = {}  # so that many of the same request are not counted through each time
    for recording in recordings:
        stem = _stem(recording)
        number = last.get(stem, 0) + 1
        while (path := folder / f"{stem}.{number}{SUFFIX}").exists():
            number += 1
        last[stem] = number
        path.write_text(dumps(recording), encoding="utf-8")
        written.append(path)
    return written


def _stem(recording: Recording) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", f"{recording.method} {recording.path}".lower())
    told = f"{recording.method} {recording.url}\n".encode() + recording.body
    return f"{words.strip('-')[:60]}-{hashlib.sha256(told).hexdigest()[:8]}"
