"""`tidegate record`, `replay` and `cassettes`: gateways that record or play, and their files."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tidegate.api.cassette import dumps
from tidegate.api.recording import Recording
from tidegate.api.scrub import Scrubber, json_paths
from tidegate.api.upstream import parse_url
from tidegate.runtime.problems import ConfigError, Problem

from .bootstrap import make_state
from .recordings import folder_of, read, read_all, write
from .recordings.files import FORMATS, SUFFIX
from .source import STATE, Source, find
from .up import Options, up

ADDON: Final = "record-cassette"
USED: Final = Path(STATE) / "addons" / ADDON / "used.txt"
_FIRST_ADDON: Final = re.compile(r"^\s*\[\[\s*addon\s*\]\]", re.MULTILINE)


def run(
    options: Mapping[str, Any],
    config: Path | None,
    deployment: str,
    state: Path | None,
    listen: Sequence[str] | None,
    *,
    json: bool,
    upstream: str = "",
) -> None:
    """Run a gateway with the addon of these options before all others. Raises ConfigError."""
    flags: dict[str, Any] = {
        "deployment": deployment, "listen": tuple(listen or ()), "workers": 1
    }  # fmt: skip
    alone = upstream or (options["action"] == "replay" and config is None)
    source = (
        Source(plain(upstream), "", str(Path.cwd()), **flags) if alone else find(config, **flags)
    )
    folder = make_state(state or Path(source.base) / STATE)
    file = folder / "cassettes.toml"
    text = with_addon(source.text, options)
    file.write_text(text, encoding="utf-8")
    up(
        Options(None, deployment, folder, (), 1, False, json, "info", "human"),
        Source(text, str(file), source.base, **flags),
    )


def plain(upstream: str) -> str:
    """A configuration that sends everything to one upstream, or nowhere. Raises ConfigError."""
    if not upstream:
        return ""
    try:
        parse_url(upstream)
    except ValueError as error:
        raise ConfigError(Problem("invalid_value", f"--upstream: {error}")) from None
    route = f'{{ path = "/", upstream = {json.dumps(upstream)} }}'
    return f'[[addon]]\nuse = "route-static"\nroutes = [{route}]\n'


def with_addon(text: str, options: Mapping[str, Any]) -> str:
    """The configuration with the addon before all that it lists.

    A text that is no TOML stays as it is, for its own error to be told.
    """
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return text
    lines = [f"{name} = {json.dumps(value)}" for name, value in options.items()]
    table = "\n".join(["[[addon]]", f'use = "{ADDON}"', *lines, "", ""])
    first = _FIRST_ADDON.search(text)
    at = len(text) if first is None else first.start()
    return f"{text[:at].rstrip()}\n\n{table}{text[at:].lstrip()}".lstrip()


# -- tidegate cassettes -----------------------------------------------------------------------


def show_list(paths: Iterable[Path], *, as_json: bool) -> None:
    """One line for each exchange."""
    recordings = read_all(paths)
    if as_json:
        print(orjson.dumps([summary(one) for one in recordings]).decode())
        return
    table = Table(box=SIMPLE_HEAD)
    for title in ("cassette", "request", "status", "body", "recorded"):
        table.add_column(title, overflow="fold")
    for one in recordings:
        told = summary(one)
        events = f"{told['events']} events, " if told["events"] is not None else ""
        table.add_row(
            told["name"], f"{one.method} {one.path}", str(told["status"] or "-"),
            f"{events}{told['bytes']} bytes", (told["recorded"] or "")[:16].replace("T", " "),
        )  # fmt: skip
    console = Console(highlight=False)
    console.print(table) if recordings else console.print("There is no recording here.")


def summary(recording: Recording) -> dict[str, Any]:
    """What a list tells of one exchange."""
    answer = recording.answer
    when = datetime.fromtimestamp(recording.now, UTC).isoformat() if recording.now else None
    return {
        "name": recording.name,
        "id": recording.id,
        "method": recording.method,
        "url": recording.url,
        "status": answer.status if answer else None,
        "events": len(answer.chunks) if answer and answer.chunks is not None else None,
        "bytes": len(answer.body) if answer else 0,
        "recorded": when,
    }


def show_text(path: Path) -> None:
    """Recordings of any format, as the text of cassettes."""
    print("\n".join(dumps(recording) for recording in read(path)), end="")


def bring_in(
    paths: Iterable[Path], to: Path, masked: tuple[str, ...], *, as_json: bool = False
) -> None:
    """Cassettes of recordings, without secrets. Raises ConfigError."""
    try:
        scrubber = Scrubber(paths=json_paths(masked))
    except ValueError as error:
        raise ConfigError(Problem("invalid_value", f"--scrub: {error}")) from None
    files = folder_of([scrubber.recording(one) for one in read_all(paths)], to)
    if as_json:
        print(orjson.dumps({"files": [str(file) for file in files]}).decode())
        return
    print(f"{len(files)} cassettes written to {to}")


def bring_out(paths: Iterable[Path], to: Path, kind: str, *, as_json: bool = False) -> None:
    """One file of recordings. Raises ConfigError."""
    kind = kind or ("har" if to.suffix == ".har" else "flows")
    if kind not in FORMATS:
        names = ", ".join(FORMATS)
        raise ConfigError(Problem("invalid_value", f"--format: {kind!r} is not one of {names}"))
    recordings = read_all(paths)
    write(recordings, to, kind)
    if as_json:
        told = {"file": str(to), "format": kind, "exchanges": len(recordings)}
        print(orjson.dumps(told).decode())
        return
    print(f"{len(recordings)} exchanges written to {to}")


def show_unused(folder: Path, used: Path | None, *, delete: bool, as_json: bool = False) -> int:
    """The cassettes that were not played; the exit status. Raises ConfigError."""
    file = used or USED
    try:
        played = set(file.read_text(encoding="utf-8").splitlines())
    except OSError as error:
        hint = "`tidegate replay` writes it into its state folder: name it with --used"
        reason = error.strerror or str(error)
        raise ConfigError(Problem("used_unreadable", reason, str(file), hint=hint)) from None
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob(f"*{SUFFIX}"))]
    left = [name for name in names if name not in played]
    for name in left if delete else ():
        (folder / name).unlink()
    if as_json:
        print(orjson.dumps({"unused": left, "deleted": delete}).decode())
    elif left:
        print("\n".join(left))
    return 1 if left and not delete else 0
