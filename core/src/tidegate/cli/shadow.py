"""`tidegate shadow report`: what enforcing would have changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tidegate.runtime.problems import ConfigError, Problem
from tidegate.runtime.tally import ANONYMOUS, EXAMPLES

from .check import print_json
from .node import ask, status_url
from .source import find

app = typer.Typer(
    help="What addons in shadow mode would have done.", no_args_is_help=True, add_completion=False
)

WORDS: Final = {
    "deny": "denied", "change": "changed", "answer": "answered here", "route": "routed",
    "authenticate": "recognised the caller", "store": "kept in a cache", "fail": "failed",
}  # fmt: skip
"""What the exchanges would have been."""
_STYLES: Final = {"deny": "bold red", "fail": "bold red", "change": "yellow"}

type Row = dict[str, Any]


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


@app.callback()
def shadow() -> None:
    """What addons in shadow mode would have done."""


@app.command(
    epilog="Examples: tidegate shadow report · tidegate shadow report --addon 'limit-*' "
    "--principal acme/* · tidegate shadow report --log access.jsonl --json"
)
def report(
    status: Annotated[
        str, typer.Option(help="Where a running node serves its status. Default: by --state.")
    ] = "",
    log: Annotated[
        Path | None, typer.Option(help="Read an access log (JSON lines) instead of a node.")
    ] = None,
    addon: Annotated[str, typer.Option(help="Only this addon; * matches any text.")] = "",
    scope: Annotated[str, typer.Option(help="Only addons of this scope, as it is shown.")] = "",
    principal: Annotated[str, typer.Option(help="Only exchanges of this principal.")] = "",
    examples: Annotated[int, typer.Option(min=0, max=EXAMPLES, help="Examples per row.")] = 2,
    config: Annotated[
        Path | None, typer.Option(envvar="TIDEGATE_CONFIG", help="Names the scopes of a log.")
    ] = None,
    deployment: Annotated[str, typer.Option(envvar="TIDEGATE_DEPLOYMENT")] = "",
    state: Annotated[
        Path | None, typer.Option(envvar="TIDEGATE_STATE", help="The state folder of the node.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Say what enforcing would have changed, by addon, scope, principal and decision."""
    if log is not None:
        rows = merged(from_log(log, scopes_of(config, deployment)))
        source = str(log)
    else:
        source = status_url(status, state)
        rows = merged((ask(source, "/-/shadows") or {"shadows": []})["shadows"])
    wanted = Filter(addon, scope, principal)
    rows = [row for row in rows if wanted.takes(row)]
    if json:
        print_json({"source": source, "shadows": rows})
    else:
        show(rows, source, examples)


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
    """The rows as a table for each addon."""
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
        table = Table(box=SIMPLE_HEAD, pad_edge=True, show_edge=False)
        table.add_column("times", justify="right", no_wrap=True)
        table.add_column("would have been", no_wrap=True)
        table.add_column("phase", style="dim", no_wrap=True)
        table.add_column("principal", no_wrap=True)
        table.add_column("for example", overflow="fold")
        for row in own:
            decision: str = row["decision"]
            table.add_row(
                str(row["count"]),
                Text(WORDS.get(decision, decision), style=_STYLES.get(decision, "")),
                row["phase"],
                Text(row["principal"]),
                example_lines(row["examples"][:examples]),
            )
        console.print(table)
    console.print(Text("\n  Values are hashed. A request id leads to its line in the access log.\n",
                       style="dim"))  # fmt: skip


def example_lines(examples: list[dict[str, Any]]) -> Text:
    """Examples, one a line."""
    text = Text()
    for index, one in enumerate(examples):
        text.append("\n" if index else "")
        text.append(f"{one['method']} {one['path']} {one['status']}", style="")
        text.append(f"  {one['detail']}" if one["detail"] else "", style="yellow")
        text.append(f"  {one['request_id']}", style="dim")
    return text
