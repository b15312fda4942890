"""`tidegate cache-ai stats|purge`: on the file that the workers share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import orjson
import typer

from tidegate.api import AddonContext, Counters
from tidegate.api.tiers import PurgeScope, Tier, open_tier

from .options import CacheAiConfig


def add_to(app: typer.Typer, context: AddonContext, config: CacheAiConfig) -> None:
    """Add the group: it has the addon's name."""
    group = typer.Typer(
        name=context.name, help="Answers of models that are kept.", no_args_is_help=True
    )
    app.add_typer(group)
    verbs = Verbs(context, config)
    group.command("stats")(verbs.stats)
    group.command("purge")(verbs.purge)


class Verbs:
    """The commands. Each opens the file for itself: it works beside a running gateway."""

    def __init__(self, context: AddonContext, config: CacheAiConfig) -> None:
        self._context = context
        self._config = config

    @contextmanager
    def _tier(self) -> Iterator[Tier]:
        tier = open_tier(
            "file", self._context.state, size=self._config.size, memory=0, counters=Counters()
        )
        try:
            yield tier
        finally:
            tier.close()

    def stats(
        self, as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False
    ) -> None:
        """Say what is kept, and how much room it takes."""
        with self._tier() as tier:
            found: dict[str, Any] = tier.figures()
        if as_json:
            print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
            return
        share = found["bytes"] / found["budget"] if found["budget"] else 0
        print(f"{found['entries']} answers, {found['bytes']:,} bytes, {share:.1%} of the budget")

    def purge(
        self,
        model: Annotated[str | None, typer.Option(help="Answers of this model.")] = None,
        principal: Annotated[str | None, typer.Option(help="Answers of team/name.")] = None,
        team: Annotated[str | None, typer.Option(help="Answers of a team's partition.")] = None,
        tag: Annotated[
            str | None, typer.Option(help="Answers that a plugin has tagged so.")
        ] = None,
        everything: Annotated[bool, typer.Option("--all", help="All answers.")] = False,
        as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> None:
        """Drop what is kept, on all workers at once."""
        named = {"model": model, "principal": principal, "team": team}
        chosen = [f"{kind}:{value}".encode() for kind, value in named.items() if value is not None]
        if tag is not None:
            chosen.append(tag.encode())
        if len(chosen) + everything != 1:
            raise typer.BadParameter("name one of --model, --principal, --team, --tag, --all")
        scope: PurgeScope = "all" if everything else "tag"
        with self._tier() as tier:
            count = tier.purge(scope, b"" if everything else chosen[0])
        if count is None:
            print("the cache could not be written")
            raise typer.Exit(1)
        print(orjson.dumps({"purged": count}).decode() if as_json else f"{count} dropped")
