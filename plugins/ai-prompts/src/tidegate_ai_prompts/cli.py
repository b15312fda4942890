"""`tidegate prompts list|show|render|test`."""

from __future__ import annotations

import json as jsonlib
import os
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from .book import describe
from .operation import InvalidVariables, Operation
from .options import Json
from .templates import RenderError
from .trial import Outcome, gateway_of, run

if TYPE_CHECKING:
    from .plugin import AiPrompts

Name = Annotated[str, typer.Argument(help="The prompt's name.")]
Number = Annotated[int | None, typer.Option("--version", help="Default: that of the short path.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def add_to(app: Any, plugin: AiPrompts) -> None:
    """Add the group: `prompts`, or the addon's name where it has one of its own."""
    own = plugin.context.name
    group = typer.Typer(
        name="prompts" if own == "ai-prompts" else own,
        help="Prompts that are served as APIs.",
        no_args_is_help=True,
    )
    verbs = Verbs(plugin)
    for name in ("list", "show", "render", "test"):
        group.command(name)(getattr(verbs, f"{name}_"))
    app.add_typer(group)


class Verbs:
    """The commands."""

    def __init__(self, plugin: AiPrompts) -> None:
        self._plugin = plugin

    def list_(self, json: AsJson = False) -> None:
        """List the prompts and their versions."""
        rows = [
            {
                "path": entry.path,
                "prompt": entry.operation.prompt.name,
                "version": entry.operation.version.version,
                "latest": entry.operation.version is entry.operation.prompt.current,
                "model": entry.operation.version.model,
                "variables": describe(entry.operation.version),
                "tests": len(entry.operation.version.tests),
            }
            for entry in self._plugin.book.entries.values()
            if not entry.latest
        ]
        if json:
            print(jsonlib.dumps(rows))
            return
        columns = ("path", "model", "variables", "tests", "latest")
        _table(columns, [[str(row[c]) for c in columns] for row in rows])

    def show_(self, name: Name, version: Number = None, json: AsJson = False) -> None:
        """Show a version of a prompt, as it is configured."""
        found = self._find(name, version)
        shown: Json = {"name": found.prompt.name, "description": found.prompt.description}
        shown |= found.version.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        shown["version"] = found.version.version
        if json:
            shown["input_schema"] = found.input_schema
            print(jsonlib.dumps(shown))
            return
        print(jsonlib.dumps(shown, indent=2, ensure_ascii=False))

    def render_(
        self,
        name: Name,
        var: Annotated[
            list[str] | None,
            typer.Option("--var", "-v", help="NAME=VALUE; JSON where the variable is no string."),
        ] = None,
        data: Annotated[str, typer.Option("--data", "-d", help="The variables as JSON.")] = "{}",
        version: Number = None,
        json: AsJson = False,
    ) -> None:
        """Print the chat call that the variables make. Nothing is sent."""
        found = self._find(name, version)
        try:
            given = {**_object(data), **dict(_pair(found, one) for one in var or ())}
            body = found.chat(found.variables(given), stream=False)
        except (InvalidVariables, RenderError) as error:
            _fail(str(error))
        if json:
            print(jsonlib.dumps(body))
            return
        for message in body["messages"]:
            print(f"--- {message['role']}\n{message['content']}")

    def test_(
        self,
        name: Annotated[str, typer.Argument(help="Only this prompt. Default: all.")] = "",
        version: Number = None,
        url: Annotated[
            str,
            typer.Option(envvar="TIDEGATE_URL", help="Default: the gateway that runs here."),
        ] = "",
        key: Annotated[
            str | None,
            typer.Option(envvar="TIDEGATE_API_KEY", help="A key of the gateway.", show_envvar=True),
        ] = None,
        timeout: Annotated[float, typer.Option(help="Seconds that one answer may take.")] = 120.0,
        json: AsJson = False,
    ) -> None:
        """Run the saved test cases against a running gateway. Exit status 1: one failed."""
        chosen = [
            (path, operation)
            for path, operation in self._plugin.book.operations()
            if (not name or operation.prompt.name == name)
            and (version is None or operation.version.version == version)
        ]
        if name and not chosen:
            self._find(name, version)
        url = url or gateway_of(self._plugin.context.state.parents[1])
        outcomes: list[Outcome] = []
        for path, operation in chosen:
            outcomes += run(url.rstrip("/") + path, key, operation, timeout)
        if json:
            print(jsonlib.dumps([outcome.row() for outcome in outcomes]))
        else:
            columns = ("prompt", "case", "result", "seconds", "why")
            _table(columns, [[str(o.row()[c]) for c in columns] for o in outcomes])
            if not outcomes:
                print("No prompt here has test cases.")
        if any(not outcome.passed for outcome in outcomes):
            raise typer.Exit(1)

    def _find(self, name: str, version: int | None) -> Operation:
        found = self._plugin.book.find(name, version)
        if found is None:
            names = ", ".join(sorted(p.name for p in self._plugin.book.prompts))
            _fail(f"there is no prompt {name!r} of that version; there are: {names}")
        return found


def _table(columns: tuple[str, ...], rows: list[list[str]]) -> None:
    width = None if os.isatty(1) else 200
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, markup=False, width=width).print(table)


def _object(text: str) -> Json:
    try:
        value = jsonlib.loads(text)
    except ValueError as error:
        _fail(f"--data is not JSON: {error}")
    if not isinstance(value, dict):
        _fail("--data is not a JSON object")
    return value


def _pair(operation: Operation, text: str) -> tuple[str, Any]:
    name, mark, value = text.partition("=")
    if not mark:
        _fail(f"--var {text!r}: write NAME=VALUE")
    variable = operation.version.variables.get(name)
    if variable is None or variable.type == "string":
        return name, value
    try:
        return name, jsonlib.loads(value)
    except ValueError:
        return name, value  # the variables are checked as a whole


def _fail(message: str) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(2)
