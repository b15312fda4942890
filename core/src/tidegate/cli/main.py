"""The command `tidegate`. What a verb needs is imported when it runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from . import addons, ca, chat, explain, recorded, shadow
from .redirect import commands as redirect

app = typer.Typer(
    name="tidegate",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A programmable proxy: one gateway, made of plugins, configured by addons.toml.",
    epilog="The last verbs are those of the addons that are on: see `tidegate plugins`.",
)
Config = Annotated[
    Path | None,
    typer.Option(
        envvar="TIDEGATE_CONFIG",
        help="The configuration. Default: ./addons.toml, else a built-in one.",
    ),
]
Deployment = Annotated[
    str,
    typer.Option(envvar="TIDEGATE_DEPLOYMENT", help="The overlay to use, such as production."),
]
State = Annotated[
    Path | None,
    typer.Option(
        envvar="TIDEGATE_STATE",
        help="The folder for keys, logs and caches. Default: .tidegate beside the configuration.",
    ),
]
Listen = Annotated[
    list[str] | None,
    typer.Option(
        envvar="TIDEGATE_LISTEN",
        help="Address, such as 127.0.0.1:8080 (port 0: a free one). May be repeated.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        envvar="TIDEGATE_WORKERS", min=1, max=256, help="Processes. Default: one per core."
    ),
]
LocalModel = Annotated[
    bool,
    typer.Option(
        "--local-model",
        envvar="TIDEGATE_LOCAL_MODEL",
        help="Answer with a real language model on this machine, without network.",
    ),
]
Policies = Annotated[
    list[Path] | None,
    typer.Option(
        "--policy",
        help="A policy of one file, put before what routes. May be repeated.",
    ),
]
Events = Annotated[
    bool,
    typer.Option("--json", envvar="TIDEGATE_JSON", help="Print events as JSON lines."),
]
LogLevel = Annotated[
    str, typer.Option(envvar="TIDEGATE_LOG_LEVEL", help="debug, info, warning or error.")
]
LogFormat = Annotated[
    str, typer.Option(envvar="TIDEGATE_LOG_FORMAT", help="human or json; on standard error.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def _tell_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def before_any_verb(
    _: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_tell_version, help="As `version`."),
    ] = False,
) -> None:
    """What stands before a verb."""


@app.command(
    epilog="Examples: tidegate up · tidegate up --listen 127.0.0.1:0 --json · "
    "tidegate up --policy my_policy.py · tidegate up --deployment production --workers 4"
)
def up(
    config: Config = None,
    deployment: Deployment = "",
    state: State = None,
    listen: Listen = None,
    workers: Workers = None,
    local_model: LocalModel = False,
    policy: Policies = None,
    json: Events = False,
    log_level: LogLevel = "info",
    log_format: LogFormat = "human",
) -> None:
    """Start the gateway. Needs no configuration."""
    one_of("--log-level", log_level, ("debug", "info", "warning", "error"))
    one_of("--log-format", log_format, ("human", "json"))
    from .up import Options
    from .up import up as run

    run(
        Options(
            config=config,
            deployment=deployment,
            state=state,
            listen=tuple(listen or ()),
            workers=workers,
            local_model=local_model,
            policies=tuple(policy or ()),
            json=json,
            log_level=log_level,
            log_format=log_format,
        )
    )


@app.command(epilog="Examples: tidegate check · tidegate check addons.toml --deployment staging")
def check(
    file: Annotated[
        Path | None,
        typer.Argument(envvar="TIDEGATE_CONFIG", help="Default: ./addons.toml, else built in."),
    ] = None,
    deployment: Deployment = "",
    state: State = None,
    policy: Policies = None,
    json: AsJson = False,
) -> None:
    """Say what is wrong with a configuration, or show the pipeline of each scope."""
    from .check import check as run
    from .source import find

    policies = tuple(str(path.resolve()) for path in policy or ())
    run(find(file, deployment=deployment, policies=policies), state, as_json=json)


@app.command(epilog="Examples: tidegate plugins · tidegate plugins --filter auth --all")
def plugins(
    config: Config = None,
    deployment: Deployment = "",
    only: Annotated[
        str, typer.Option("--filter", help="Only those with this text in their name.")
    ] = "",
    import_all: Annotated[
        bool, typer.Option("--all", help="Import those that are not on as well: to see hooks.")
    ] = False,
    json: AsJson = False,
) -> None:
    """List the installed plugins, and which of them are on here."""
    from .plugins import list_plugins
    from .source import find

    list_plugins(
        find(config, deployment=deployment), as_json=json, only=only, import_all=import_all
    )


@app.command(
    epilog="Examples: tidegate new-plugin auth-corp · tidegate new-plugin opening-hours "
    "--kind authorize --dist acme-opening-hours"
)
def new_plugin(
    name: Annotated[
        str, typer.Argument(help="<kind>-<what>, such as auth-corp, or any name with --kind.")
    ],
    kind: Annotated[
        str,
        typer.Option(help="auth, authorize, cache, transform, event, log or route."),
    ] = "",
    dir: Annotated[
        Path | None, typer.Option(help="Where to make its folder. Default: the current one.")
    ] = None,
    dist: Annotated[
        str, typer.Option(help="The distribution's name. Default: tidegate-NAME.")
    ] = "",
    json: AsJson = False,
) -> None:
    """Make a package for a plugin: code, tests, README, ready to be built."""
    from .new_plugin import new_plugin as run

    run(name, kind, dir, dist, as_json=json)


@app.command()
def version(
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    number = installed("tidegate-core")
    print(f'{{"version":"{number}"}}' if json else f"tidegate {number}")


# Verbs of their own files, listed in the help after those above.
app.add_typer(addons.app, name="addons")
app.add_typer(ca.app, name="ca")
app.add_typer(redirect.app, name="redirect")
app.add_typer(shadow.app, name="shadow")
chat.register(app)
explain.register(app)
recorded.register(app)


def one_of(flag: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a flag's value that is not one of these."""
    if value not in allowed:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(allowed)}", param_hint=flag)


def add_verbs_of_addons(verb: str) -> None:
    """Where `verb` is not core's own, let the addons that are on add theirs; for the help as well.

    The configuration is the one that TIDEGATE_CONFIG, TIDEGATE_DEPLOYMENT and TIDEGATE_STATE name.
    """
    commands = [c.callback.__name__ for c in app.registered_commands if c.callback]
    groups = [group.name for group in app.registered_groups if group.name]
    core = [name.replace("_", "-") for name in (*commands, *groups)]
    helped = verb in {"", "-h", "--help"}
    if not helped and (verb.startswith("-") or verb in core):
        return
    from tidegate.runtime.problems import ConfigError, nearest

    from .plugins import add_verbs
    from .source import find

    env = os.environ.get
    file, state = env("TIDEGATE_CONFIG"), env("TIDEGATE_STATE")
    try:
        source = find(Path(file) if file else None, deployment=env("TIDEGATE_DEPLOYMENT", ""))
        add_verbs(app, source, Path(state) if state else None, verb)
    except ConfigError:
        if not helped and not nearest(verb, core):  # else the verb is what is wrong
            raise


def main() -> None:
    """Run the command line; errors are one line each, and exit status 2."""
    try:
        add_verbs_of_addons(sys.argv[1] if len(sys.argv) > 1 else "")
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `tidegate plugins | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if os.environ.get("TIDEGATE_TRACEBACK"):
            raise
        for line in describe(error):
            print(line, file=sys.stderr)
        sys.exit(2)


def describe(error: Exception) -> list[str]:
    """What went wrong, a line for each problem."""
    problems: tuple[Any, ...] | None = getattr(error, "problems", None)
    if problems is not None:
        return [f"error: {problem}" for problem in problems]
    hint = "TIDEGATE_TRACEBACK=1 shows where"
    return [f"error: {type(error).__name__}: {error} ({hint}) [internal_error]"]


if __name__ == "__main__":
    main()
