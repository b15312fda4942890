"""The verb `tidegate chat`. What it needs is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Question = Annotated[
    list[str] | None,
    typer.Argument(help="Asked once. Without: a conversation. Standard input is put after it."),
]
Model = Annotated[
    str, typer.Option("--model", "-m", envvar="TIDEGATE_MODEL", help="Default: the first listed.")
]
System = Annotated[str, typer.Option("--system", "-s", help="Instructions for the model.")]
Url = Annotated[
    str, typer.Option(envvar="TIDEGATE_URL", help="The gateway. Default: the one that runs here.")
]
Key = Annotated[
    str, typer.Option(envvar="TIDEGATE_API_KEY", help="A key of the gateway: `tidegate keys`.")
]
State = Annotated[
    Path | None,
    typer.Option(envvar="TIDEGATE_STATE", help="The node's state folder. Default: .tidegate."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON; needs a question.")]


def chat(
    question: Question = None,
    model: Model = "",
    system: System = "",
    url: Url = "",
    key: Key = "",
    state: State = None,
    json: Json = False,
) -> None:
    """Talk to a model through a running gateway, as any application would.

    In a conversation: /model NAME, /models, /system TEXT, /clear, /help, /exit. Ctrl-C stops an
    answer, Ctrl-D ends.
    """
    from .chatting.run import Options, run

    asked = " ".join(question or ())
    run(Options(asked, model, system, url, key, state, json))


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        epilog='Examples: tidegate chat · tidegate chat "What is a proxy?" · '
        'git diff | tidegate chat "Write a commit message." --model openai/gpt-4o-mini'
    )(chat)
