"""`tidegate usage`: what the access log says that calls to models have used."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer
from rich.console import Console
from rich.table import Table

_AGO: Final = re.compile(r"(\d+)\s*([smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(slots=True)
class Sum:
    """What some calls have used together."""

    name: str
    calls: int = 0
    input: int = 0
    cache_read: int = 0
    output: int = 0
    cost_usd: Decimal = Decimal(0)
    unpriced: int = 0
    estimated: int = 0
    failed: int = 0

    def add(self, said: dict[str, Any]) -> None:
        """Add a call's `notes.ai`."""
        if said.get("finish") == "error":
            self.failed += 1
            return
        self.calls += 1
        cost = said.get("cost_usd")
        if cost is None:
            self.unpriced += 1
        else:
            self.cost_usd += Decimal(str(cost))
        self.estimated += bool(said.get("estimated"))
        if not said.get("cached"):
            self.input += said.get("input") or 0
            self.cache_read += said.get("cache_read") or 0
            self.output += said.get("output") or 0


type Line = dict[str, Any]
GROUPS: Final[dict[str, Callable[[Line], str]]] = {
    "model": lambda line: f"{line['notes']['ai']['provider']}/{line['notes']['ai']['model']}",
    "provider": lambda line: line["notes"]["ai"]["provider"],
    "principal": lambda line: line.get("principal") or "",
    "team": lambda line: (line.get("principal") or "").rpartition("/")[0],
    "day": lambda line: str(line["time"])[:10],
}


def parse_since(text: str, now: datetime) -> datetime:
    """A time: `24h`, `7d` ago, a date, or a date and time (UTC). ValueError: it is none."""
    ago = _AGO.fullmatch(text.strip())
    if ago is not None:
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    found = datetime.fromisoformat(text)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def calls(lines: Iterable[bytes], since: datetime | None) -> Iterator[Line]:
    """The lines of an access log that tell of a call to a model, from a time on."""
    for line in lines:
        if b'"ai":' not in line:
            continue
        try:
            found = orjson.loads(line)
        except ValueError:
            continue  # a line that is being written
        said = (found.get("notes") or {}).get("ai")
        if not isinstance(said, dict) or not said.keys() >= {"provider", "model"}:
            continue
        if since is None or datetime.fromisoformat(found["time"]) >= since:
            yield found


def summed(lines: Iterable[Line], by: str) -> list[Sum]:
    """The sums by group, the dearest first."""
    group = GROUPS[by]
    sums: dict[str, Sum] = {}
    for line in lines:
        name = group(line) or "-"
        sums.setdefault(name, Sum(name)).add(line["notes"]["ai"])
    if by == "day":
        return sorted(sums.values(), key=lambda one: one.name)
    return sorted(sums.values(), key=lambda one: (-one.cost_usd, -one.calls, one.name))


def table(sums: list[Sum], by: str) -> Table:
    """The sums as a table for people, with a total."""
    total = Sum("total")
    shown = Table(box=None, pad_edge=False, show_footer=len(sums) > 1)
    for one in sums:
        for name in Sum.__slots__[1:]:
            setattr(total, name, getattr(total, name) + getattr(one, name))
    columns: tuple[tuple[str, Callable[[Sum], str]], ...] = (
        ("calls", lambda one: f"{one.calls:,}"),
        ("failed", lambda one: f"{one.failed:,}"),
        ("input", lambda one: f"{one.input:,}"),
        ("cached", lambda one: f"{one.cache_read:,}"),
        ("output", lambda one: f"{one.output:,}"),
        ("cost, US$", _cost),
    )
    shown.add_column(by, footer="total", overflow="fold")
    for title, text in columns:
        shown.add_column(title, justify="right", footer=text(total))
    for one in sums:
        shown.add_row(one.name, *(text(one) for _, text in columns))
    return shown


def _cost(one: Sum) -> str:
    if one.unpriced == one.calls:
        return "-" if one.calls else "0"
    return f"{one.cost_usd:,.6f}" + (" +?" if one.unpriced else "")


def register(app: typer.Typer, default: Path) -> None:
    """Add the verb; `default` is the access log that is read where none is named."""

    @app.command()
    def usage(
        files: Annotated[
            list[Path] | None, typer.Argument(help="Access logs; without, the node's own.")
        ] = None,
        since: Annotated[str, typer.Option(help="24h, 7d, 2026-11-24, or with a time.")] = "",
        by: Annotated[str, typer.Option(help=" | ".join(GROUPS))] = "model",
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    ) -> None:
        """What calls to models have used, and what they cost."""
        if by not in GROUPS:
            _fail(f"--by is one of {', '.join(GROUPS)}, not {by!r}")
        try:
            start = parse_since(since, datetime.now(UTC)) if since else None
        except ValueError:
            _fail(f"--since {since!r} is no time: write 24h, 7d, 2026-11-24")
        found: list[Line] = []
        for file in files or [default]:
            try:
                with file.open("rb") as lines:
                    found.extend(calls(lines, start))
            except OSError as error:
                _fail(f"{file}: {error.strerror}. Is the addon log-access on?")
        sums = summed(found, by)
        if as_json:
            rows = [{**asdict(one), "cost_usd": float(one.cost_usd)} for one in sums]
            typer.echo(orjson.dumps({"by": by, "usage": rows}).decode())
        elif sums:
            Console(width=None if sys.stdout.isatty() else 200).print(table(sums, by))
        else:
            typer.echo("No calls to models are logged for that time.", err=True)


def _fail(text: str) -> None:
    typer.echo(f"error: {text}", err=True)
    raise typer.Exit(1)
