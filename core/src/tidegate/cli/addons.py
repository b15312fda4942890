"""`tidegate addons`: what is on here and how, and changes of it that keep the file's comments."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from tidegate.runtime.entry import AddonEntry

app = typer.Typer(
    no_args_is_help=True, help="List the addons of the configuration, and change their modes."
)

Config = Annotated[
    Path | None,
    typer.Option(envvar="TIDEGATE_CONFIG", help="The configuration. Default: ./addons.toml."),
]
Deployment = Annotated[
    str, typer.Option(envvar="TIDEGATE_DEPLOYMENT", help="The overlay to read or to change.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
MODES: Final = ("off", "shadow", "enforce")


@app.command("list", epilog="Example: tidegate addons list --deployment staging")
def list_addons(config: Config = None, deployment: Deployment = "", json: AsJson = False) -> None:
    """List the addons in their order, with mode, rollout and scope."""
    from rich.console import Console
    from rich.table import Table

    from .check import print_json
    from .source import find

    rows = [row(entry) for entry in find(config, deployment=deployment).settings().addons]
    if json:
        print_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("addon", "plugin", "mode", "scope"):
        table.add_column(column, overflow="fold")
    for one in rows:
        percent = "" if one["percent"] is None else f" for {one['percent']:g} %, else {one['rest']}"
        table.add_row(one["name"], one["plugin"], one["mode"] + percent, one["scope"])
    Console(highlight=False, markup=False).print(table)


def row(entry: AddonEntry) -> dict[str, Any]:
    """An addon as a JSON object."""
    rollout = entry.percent if entry.active and entry.mode == "enforce" else None
    return {
        "name": entry.name,
        "plugin": entry.use if entry.file is None else entry.file,
        "mode": entry.mode if entry.active else "off",
        "percent": rollout,
        "rest": None if rollout is None else entry.rest,
        "scope": str(entry.scope),
    }


@app.command(
    "set",
    epilog="Examples: tidegate addons set limit-rate --mode enforce --percent 25 · "
    "tidegate addons set auth-key --mode shadow --deployment staging --dry-run",
)
def set_addon(
    name: Annotated[str, typer.Argument(help="The addon's name, as `tidegate addons list` shows.")],
    mode: Annotated[str | None, typer.Option(help="off, shadow or enforce.")] = None,
    percent: Annotated[
        float | None,
        typer.Option(min=0, max=100, help="Enforce for this share of the callers only."),
    ] = None,
    rest: Annotated[
        str | None, typer.Option(help="What holds for the other callers: shadow or off.")
    ] = None,
    config: Config = None,
    deployment: Deployment = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the change, and leave the file alone.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Change an addon's mode or rollout in the file. A running node takes it up by itself."""
    from tidegate.runtime.problems import ConfigError

    from .check import print_json
    from .edit import edited
    from .source import find
    from .wire import problems_to_wire

    change: dict[str, str | float | int] = {}
    if mode is not None:
        change["mode"] = one_of("--mode", mode, MODES)
    if percent is not None:
        change["percent"] = int(percent) if percent.is_integer() else percent
    if rest is not None:
        change["rest"] = one_of("--rest", rest, ("shadow", "off"))
    if not change:
        raise typer.BadParameter("say --mode, --percent or --rest")
    try:
        edit = edited(find(config, deployment=deployment), name, change)
    except ConfigError as error:
        if json:
            print_json({"ok": False, "problems": problems_to_wire(error.problems)})
        raise
    if not dry_run and edit.diff:
        edit.write()
    if json:
        body = {"ok": True, "problems": [], "file": str(edit.file), "diff": edit.diff}
        print_json({**body, "written": bool(edit.diff) and not dry_run})
    elif edit.diff:
        print(edit.diff, end="")
    else:
        print(f"{edit.file}: {name} is so already")


def one_of(flag: str, value: str, allowed: tuple[str, ...]) -> str:
    """`value`, where it is one of these."""
    if value not in allowed:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(allowed)}", param_hint=flag)
    return value
