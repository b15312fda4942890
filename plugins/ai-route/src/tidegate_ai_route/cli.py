"""`tidegate models`: the virtual models of a configuration."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from .options import AiRouteConfig, TargetOption, VirtualModel


def verb(config: AiRouteConfig) -> Callable[..., None]:
    """The command over a configuration."""

    def models(
        json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    ) -> None:
        """List the virtual models. `tidegate providers models` lists those behind them."""
        if json:
            shown = [model.model_dump(mode="json", exclude_none=True) for model in config.models]
            print(jsonlib.dumps(shown))
            return
        table = Table(box=None, pad_edge=False)
        for column in ("model", "strategy", "targets", "then", "canary", "mirror"):
            table.add_column(column, overflow="fold")
        for model in config.models:
            table.add_row(*row(model))
        Console(highlight=False, markup=False).print(table)

    return models


def row(model: VirtualModel) -> tuple[str, ...]:
    """A model in the table."""
    shares = [
        f"{share.percent:g}% {share.model}" if share is not None else "-"
        for share in (model.canary, model.mirror)
    ]
    targets, backups = _several(model.targets), _several(model.fallback.to)
    return model.name, model.strategy, targets, backups, shares[0], shares[1]


def _several(options: tuple[TargetOption, ...]) -> str:
    return (
        "\n".join(
            option.model if option.weight == 1 else f"{option.weight} x {option.model}"
            for option in options
        )
        or "-"
    )
