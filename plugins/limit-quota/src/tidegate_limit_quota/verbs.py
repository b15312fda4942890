"""`tidegate quota status|reset`: asks the broker, or the store that several nodes share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer
from rich.console import Console
from rich.table import Table

from tidegate.api.lending import LimitStore

from .protocol import SOCKET, call

_stores: Final[dict[str, LimitStore]] = {}
"""Of the addons whose limits are kept by no broker, by name."""
BAR: Final = 10
NANO: Final = 10**9


def register(app: Any, addon: str, state: Path, store: LimitStore | None = None) -> None:
    """Add the verbs to `tidegate`. Of several addons of this kind, `--addon` names one."""
    if store is not None:
        _stores[addon] = store
    quota = typer.Typer(help="What is used of quotas and budgets.", no_args_is_help=True)

    @quota.command()
    def status(
        limit: Annotated[str, typer.Argument(help="This limit only.")] = "",
        name: Annotated[str, typer.Option("--addon", help="The addon's name.")] = addon,
        folder: Annotated[Path | None, typer.Option("--state", help="The node's state.")] = None,
        as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    ) -> None:
        """Show what is used and what is lent of each limit."""
        found = _ask(_keeper(name, state, folder).status)
        found["accounts"] = [
            one for one in sorted(found["accounts"], key=lambda x: (x["limit"], x["key"]))
            if limit in ("", one["limit"])
        ]  # fmt: skip
        if as_json:
            sys.stdout.write(orjson.dumps(found).decode() + "\n")
        else:
            Console().print(table(found["accounts"]))

    @quota.command()
    def reset(
        limit: Annotated[str, typer.Argument(help="The limit's name.")],
        key: Annotated[str | None, typer.Argument(help="Whose; default: all.")] = None,
        name: Annotated[str, typer.Option("--addon", help="The addon's name.")] = addon,
        folder: Annotated[Path | None, typer.Option("--state", help="The node's state.")] = None,
        as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    ) -> None:
        """Begin anew: nothing is used, but for what workers hold."""
        done = _ask(lambda: _keeper(name, state, folder).reset(limit, key))
        if as_json:
            sys.stdout.write(orjson.dumps({"reset": done}).decode() + "\n")
        else:
            sys.stdout.write(f"{done} accounts begin anew\n")
        if not done:
            raise typer.Exit(1)

    if not any(group.name == "quota" for group in app.registered_groups):
        app.add_typer(quota, name="quota")


class Broker:
    """What people ask the broker of a node: the part of a `LimitStore` that they need."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / SOCKET

    def status(self) -> dict[str, Any]:
        """What is used. OSError, ValueError."""
        found: dict[str, Any] = call(self._socket, {"status": True})
        return found

    def reset(self, limit: str, key: str | None) -> int:
        """Begin anew. OSError, ValueError."""
        done = call(self._socket, {"reset": [limit, key]})
        if not done["written"]:
            raise OSError("the journal can't be written")
        count: int = done["reset"]
        return count


def _keeper(addon: str, own: Path, state: Path | None) -> LimitStore | Broker:
    """Who keeps the limits of an addon."""
    folder = state / "addons" / addon if state is not None else own.parent / addon
    return _stores.get(addon) or Broker(folder)


def _ask[T](question: Callable[[], T]) -> T:
    try:
        return question()
    except (OSError, ValueError) as error:
        sys.stderr.write(f"nobody answers: {error}\nis the node running?\n")
        raise typer.Exit(1) from None


def table(accounts: list[dict[str, Any]]) -> Table:
    """Accounts as a table, with a bar each."""
    made = Table("limit", "whose", "used", "lent", "of", "", "", "begins anew", box=None)
    for one in accounts:
        share = min(1.0, max(0.0, (one["used"] + one["lent"]) / one["amount"]))
        full = round(share * BAR)
        bar = f"[{'red' if share >= 1 else 'green'}]{'█' * full}[/]{'░' * (BAR - full)}"
        anew = (
            "" if one["resets"] is None else f"{datetime.fromtimestamp(one['resets'], UTC):%F %T}"
        )
        shown = [amount(one[part], one["unit"]) for part in ("used", "lent", "amount")]
        made.add_row(one["limit"], one["key"] or one["per"], *shown, bar, f"{share:.0%}", anew)
    return made


def amount(value: int, unit: str) -> str:
    """An amount as people read it."""
    return f"${value / NANO:,.4f}" if unit == "usd" else f"{value:,}"
