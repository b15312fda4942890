"""The verbs that make, play and judge recordings: what they take. Each imports what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    help="Look at cassettes, bring them in and out: HAR and mitmproxy's flow files.",
    epilog="Examples: tidegate cassettes list cassettes · tidegate cassettes import chat.har "
    "--to cassettes · tidegate cassettes export cassettes --to chat.har",
)

Config = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", envvar="TIDEGATE_CONFIG", help="The gateway whose traffic it is."
    ),
]
Deployment = Annotated[
    str, typer.Option(envvar="TIDEGATE_DEPLOYMENT", help="The overlay to use, such as production.")
]
State = Annotated[
    Path | None, typer.Option(envvar="TIDEGATE_STATE", help="The folder for keys and logs.")
]
Listen = Annotated[
    list[str] | None,
    typer.Option(envvar="TIDEGATE_LISTEN", help="Address, such as 127.0.0.1:8080 (port 0: free)."),
]
Events = Annotated[
    bool, typer.Option("--json", envvar="TIDEGATE_JSON", help="Print events as JSON lines.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Files = Annotated[
    list[Path], typer.Argument(help="Cassettes, folders of them, HAR, flow files.", exists=True)
]
Scrub = Annotated[
    list[str] | None,
    typer.Option("--scrub", help='A JSON value to mask, such as "messages.*.name". Repeatable.'),
]


def register(main: typer.Typer) -> None:
    """Add the verbs to `tidegate`."""
    main.add_typer(app, name="cassettes")
    main.command(
        epilog="Examples: tidegate record --upstream https://api.openai.com --to cassettes · "
        "tidegate record -c addons.toml --to cassettes --missing"
    )(record)
    main.command(
        epilog="Examples: tidegate replay cassettes · tidegate replay cassettes --speed 1"
    )(replay)
    main.command(
        epilog="Examples: tidegate whatif --old main.toml --new addons.toml cassettes · "
        'tidegate whatif --old main.toml --new addons.toml day.har --fail-on "denied>0"'
    )(whatif)


def record(
    to: Annotated[Path, typer.Option(help="The folder for cassettes; made if it is not there.")],
    upstream: Annotated[
        str, typer.Option(help="Where all requests go. Without it, --config decides.")
    ] = "",
    config: Config = None,
    deployment: Deployment = "",
    state: State = None,
    listen: Listen = None,
    missing: Annotated[
        bool, typer.Option(help="Play what there is, record only the rest.")
    ] = False,
    json: Events = False,
) -> None:
    """Start a gateway that records what passes, without secrets."""
    from .cassettes import run

    options = {"action": "record-missing" if missing else "record", "dir": str(to.absolute())}
    run(options, config, deployment, state, listen, json=json, upstream=upstream)


def replay(
    folder: Annotated[Path, typer.Argument(help="The folder of cassettes.", exists=True)],
    config: Config = None,
    deployment: Deployment = "",
    state: State = None,
    listen: Listen = None,
    speed: Annotated[
        float, typer.Option(min=0.0, help="Of streams: 1 as they were recorded, 0 at once.")
    ] = 0.0,
    json: Events = False,
) -> None:
    """Start a gateway that answers from cassettes, and from nothing else."""
    from .cassettes import run

    options = {"action": "replay", "dir": str(folder.absolute()), "speed": speed}
    run(options, config, deployment, state, listen, json=json)


def whatif(
    recordings: Annotated[
        list[Path],
        typer.Argument(
            help="Cassettes, folders of them, HAR, flow files, access logs.", exists=True
        ),
    ],
    old: Annotated[Path, typer.Option(help="The configuration that is in force.", exists=True)],
    new: Annotated[Path, typer.Option(help="The one that is asked about.", exists=True)],
    deployment: Deployment = "",
    principal: Annotated[
        str, typer.Option(help="Who called, team/name, where a recording does not say it.")
    ] = "",
    fail_on: Annotated[
        list[str] | None,
        typer.Option(help='Exit 1 where it holds: "denied>0", "changed>1%". May be repeated.'),
    ] = None,
    examples: Annotated[int, typer.Option(min=0, help="Requests to show of each kind.")] = 3,
    json: AsJson = False,
) -> None:
    """Say what another configuration would have done to recorded traffic. Uses no network."""
    from .whatif import Options
    from .whatif import whatif as run

    options = Options(old, new, tuple(recordings), deployment, principal, examples)
    raise typer.Exit(run(options, tuple(fail_on or ()), as_json=json))


# -- tidegate cassettes -----------------------------------------------------------------------


@app.command("list")
def list_(recordings: Files, json: AsJson = False) -> None:
    """What is recorded: one line for each exchange."""
    from .cassettes import show_list

    show_list(recordings, as_json=json)


@app.command()
def show(recording: Annotated[Path, typer.Argument(exists=True)]) -> None:
    """Print recordings of any format as cassettes."""
    from .cassettes import show_text

    show_text(recording)


@app.command("import")
def import_(
    recordings: Files,
    to: Annotated[Path, typer.Option(help="The folder for the cassettes.")],
    scrub: Scrub = None,
    json: AsJson = False,
) -> None:
    """Make cassettes of HAR and flow files, without secrets."""
    from .cassettes import bring_in

    bring_in(recordings, to, tuple(scrub or ()), as_json=json)


@app.command()
def export(
    recordings: Files,
    to: Annotated[Path, typer.Option(help="The file: .har, or .flows for mitmproxy.")],
    format: Annotated[str, typer.Option(help="har or flows. Default: by the file's name.")] = "",
    json: AsJson = False,
) -> None:
    """Make one HAR or flow file of cassettes."""
    from .cassettes import bring_out

    bring_out(recordings, to, format, as_json=json)


@app.command()
def unused(
    folder: Annotated[Path, typer.Argument(help="The folder of cassettes.", exists=True)],
    used: Annotated[
        Path | None,
        typer.Option(
            help="What was played, as the last run wrote it. "
            "Default: .tidegate/addons/record-cassette/used.txt."
        ),
    ] = None,
    delete: Annotated[bool, typer.Option(help="Remove them.")] = False,
    json: AsJson = False,
) -> None:
    """Name the cassettes that the last run did not play; exit 1 where there are any."""
    from .cassettes import show_unused

    raise typer.Exit(show_unused(folder, used, delete=delete, as_json=json))
