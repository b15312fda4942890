"""The verb `tidegate explain`. What it needs is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Request = Annotated[
    list[str] | None,
    typer.Argument(
        help="METHOD PATH, a URL, one quoted curl command, - to read that from standard "
        "input, or the id of a request that a running node traced. Without: the ids it has."
    ),
]
Header = Annotated[list[str] | None, typer.Option("-H", "--header", help="A field.")]
Data = Annotated[
    str | None, typer.Option("-d", "--data", help="The body, or @FILE: then the method is POST.")
]
Host = Annotated[str, typer.Option(help="The request's host.")]
Listener = Annotated[str, typer.Option(help="The listener that it comes in on.")]
Answer = Annotated[
    int, typer.Option(min=200, max=599, help="The status that the upstream would answer.")
]
AnswerBody = Annotated[str, typer.Option(help="The body that it would answer.")]
Status = Annotated[
    str, typer.Option(help="Where a running node serves its status. Default: by --state.")
]
Config = Annotated[
    Path | None,
    typer.Option(envvar="TIDEGATE_CONFIG", help="Default: ./addons.toml, else built in."),
]
Deployment = Annotated[str, typer.Option(envvar="TIDEGATE_DEPLOYMENT", help="The overlay to use.")]
State = Annotated[
    Path | None,
    typer.Option(
        envvar="TIDEGATE_STATE", help="The node's state folder; it is copied. Default: .tidegate."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def explain(
    request: Request = None,
    header: Header = None,
    data: Data = None,
    host: Host = "",
    listener: Listener = "",
    answer: Answer = 200,
    answer_body: AnswerBody = "",
    status: Status = "",
    config: Config = None,
    deployment: Deployment = "",
    state: State = None,
    json: Json = False,
) -> None:
    """Show what the pipeline does with a request: who decided, why, and how long it took.

    A request given here runs in this process, through the addons of the configuration: they are
    started, with a copy of the small files of the state folder, and shut down. Nothing is sent,
    logged or kept: the upstream's answer is a stand-in. Values are hashed.
    """
    from .explaining.run import Options, run

    run(
        Options(
            words=tuple(request or ()),
            headers=tuple(header or ()),
            data=data,
            host=host,
            listener=listener,
            config=config,
            deployment=deployment,
            state=state,
            status=status,
            answer=answer,
            answer_body=answer_body,
            json=json,
        )
    )


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        epilog="Examples: tidegate explain GET /v1/models -H 'authorization: Bearer tg_…' · "
        "tidegate explain 'curl http://127.0.0.1:8080/v1/models' · tidegate explain 66f0c2a1…"
    )(explain)
