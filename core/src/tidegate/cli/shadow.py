"""The verb `tidegate shadow`. What it needs is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="What addons in shadow mode would have done.", no_args_is_help=True, add_completion=False
)


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
    examples: Annotated[int, typer.Option(min=0, help="Examples per row.")] = 2,
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
    from .shadow_report import Filter, Source
    from .shadow_report import report as run

    source = Source(log, status, state, config, deployment)
    run(Filter(addon, scope, principal), source, examples=examples, json=json)
