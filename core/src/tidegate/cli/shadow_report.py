"""What `tidegate shadow report` prints: what enforcing would have changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from tidegate.runtime.problems import ConfigError, Problem
from tidegate.runtime.tally import ANONYMOUS, EXAMPLES

from .check import print_json
from .node import ask, status_url
from .source import find

WORDS: Final = {
    "deny": "denied", "change": "changed", "answer": "answered here", "route": "routed",
    "authenticate": "recognised the caller", "store": "kept in a cache", "fail": "failed",
}  # fmt: skip
"""What the exchanges would have been."""
_STYLES: Final = {"deny": "bold red", "fail": "bold red", "change": "yellow"}

type Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """Where the rows come from: an access log, else a running node."""

    log: Path | None = None
    status: str = ""
    state: Path | None = None
    config: Path | None = None
    deployment: str = ""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows are wanted; "" matches all, `*` any text."""

    addon: str = ""
    scope: str = ""
    principal: str = ""

    def takes(self, row: Row) -> bool:
        """Whether a row is wanted."""
        pairs = ((self.addon, "addon"), (self.scope, "scope"), (self.principal, "principal"))
        return all(not wanted or fnmatchcase(row[key], wanted) for wanted, key in pairs)


def report(wanted: Filter, source: Source, *, examples: int, json: bool) -> None:
    """Print the rows that are wanted."""
    if source.log is not None:
        rows = merged(from_log(source.log, scopes_of(source.config, source.deployment)))
        name = str(source.log)
    else:
        name = status_url(source.status, source.state)
        rows = merged((ask(name, "/-/shadows") or {"shadows": []})["shadows"])
    rows = [row for row in rows if wanted.takes(row)]
    if json:
        print_json({"source": name, "shadows": rows})
    else:
        show(rows, name, examples)


def merged(rows: Iterable[Row]) -> list[Row]:
    """One row of each kind: counts added up, the first examples kept; the largest first."""
    found: dict[tuple[str, ...], Row] = {}
    for row in rows:
        key = tuple(row[name] for name in ("addon", "scope", "principal", "phase", "decision"))
        known = found.get(key)
        if known is None:
            found[key] = {**row, "examples": list(row["examples"][:EXAMPLES])}
            continue
        known["count"] += row["count"]
        room = EXAMPLES - len(known["examples"])
        if room > 0:
            known["examples"] += row["examples"][:room]
    return sorted(found.values(), key=lambda row: (row["addon"], -row["count"]))


def from_log(file: Path, scopes: dict[str, str]) -> Iterator[Row]:
    """A row for each shadow decision in an access log; lines that are none are passed over."""
    try:
        with file.open("rb") as lines:
            for line in lines:
                try:
                    record = orjson.loads(line)
                except orjson.JSONDecodeError:
                    continue  # the last line of a running node may be half written
                if isinstance(record, dict):
                    yield from rows_of(record, scopes)
    except OSError as error:
        raise ConfigError(Problem("log_unreadable", str(error.strerror), str(file))) from None


def rows_of(record: dict[str, Any], scopes: dict[str, str]) -> Iterator[Row]:
    """The rows of one line."""
    example = {name: record.get(name) for name in ("request_id", "method", "path", "status")}
    for told in record.get("shadows") or ():
        yield {
            "addon": told["addon"],
            "scope": scopes.get(told["addon"], ""),
            "principal": record.get("principal") or ANONYMOUS,
            "phase": told["phase"],
            "decision": told["decision"],
            "count": 1,
            "examples": [{**example, "detail": told["detail"]}],
        }


def scopes_of(config: Path | None, deployment: str) -> dict[str, str]:
    """The scope of each addon; nothing where the configuration can't be read."""
    try:
        settings = find(config, deployment=deployment).settings()
    except ConfigError:
        if config is not None:
            raise
        return {}
    return {entry.name: str(entry.scope) for entry in settings.addons}


# -- output -----------------------------------------------------------------------------------


def show(rows: list[Row], source: str, examples: int) -> None:
    """The rows of each addon, each with its examples below it."""
    console = Console(highlight=False)
    if not rows:
        console.print(f"No shadow decisions in {source}: enforcing would have changed nothing.")
        return
    console.print(Text(f"\n  Had these addons enforced ({source}):", style="bold"))
    for name in dict.fromkeys(row["addon"] for row in rows):
        own = [row for row in rows if row["addon"] == name]
        scope = own[0]["scope"]
        console.print()
        title = Text.assemble(
            ("  " + name, "bold cyan"), (f"  scope: {scope}" if scope else "", "dim")
        )
        console.print(title)
        heads = [
            (str(row["count"]), WORDS.get(row["decision"], row["decision"]), row["phase"])
            for row in own
        ]
        widths = [max(map(len, column)) for column in zip(*heads, strict=True)]
        for row, (count, word, phase) in zip(own, heads, strict=True):
            console.print(
                Text.assemble(
                    f"  {count:>{max(widths[0], 5)}}  ",
                    (f"{word:{widths[1]}}  ", _STYLES.get(row["decision"], "")),
                    (f"{phase:{widths[2]}}  ", "dim"),
                    row["principal"],
                )
            )
            for example in row["examples"][:examples]:
                console.print(Padding(example_text(example), (0, 0, 0, 9)))
    console.print(Text("\n  Values are hashed. A request id leads to its line in the access log.\n",
                       style="dim"))  # fmt: skip


def example_text(example: dict[str, Any]) -> Text:
    """One example: what was asked, what would have become of it, the request's id."""
    return Text.assemble(
        f"{example['method']} {example['path']} {example['status']}",
        (f"  {example['detail']}" if example["detail"] else "", "yellow"),
        (f"  {example['request_id']}", "dim"),
    )
