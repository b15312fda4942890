"""What `tidegate explain` does with its flags: run a request here, or ask a running node."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from tidegate.cli.check import print_json
from tidegate.cli.node import ask, status_url
from tidegate.cli.source import STATE, find

from . import command
from .offline import StandIn, explain
from .show import show

REQUEST_ID: Final = re.compile(r"[0-9a-f]{24}")
OFFLINE: Final = (
    "Values are hashed; times are those of a first call. Nothing was sent: the upstream's answer "
    "is a stand-in (--answer)."
)


@dataclass(frozen=True, slots=True)
class Options:
    """The flags of the verb."""

    words: tuple[str, ...]
    headers: tuple[str, ...] = ()
    data: str | None = None
    host: str = ""
    listener: str = ""
    config: Path | None = None
    deployment: str = ""
    state: Path | None = None
    status: str = ""
    answer: int = 200
    answer_body: str = ""
    json: bool = False


def run(options: Options) -> None:
    """Print the trace that is asked for. Raises ConfigError."""
    words = list(options.words)
    if not words:
        recent(options)
        return
    if len(words) == 1 and REQUEST_ID.fullmatch(words[0]):
        tell(recorded(options, words[0]), options, "Values are hashed.")
        return
    tell(offline(options, words), options, OFFLINE)


def tell(trace: dict[str, Any], options: Options, note: str) -> None:
    """Print a trace for a person or a program."""
    if options.json:
        print_json(trace)
    else:
        show(trace, note)


def offline(options: Options, words: list[str]) -> dict[str, Any]:
    """Run a request through the configured pipeline, here."""
    if words == ["-"]:
        wanted = command.curl(sys.stdin.read())
    elif words[0].lstrip().startswith("curl"):
        wanted = command.curl(words[0] if len(words) == 1 else " ".join(words))
    elif len(words) > 2:
        raise command.refused("write METHOD PATH, a URL, a request id or one quoted curl command")
    else:
        wanted = command.plain(words, list(options.headers), options.data, options.host)
    if options.host:
        wanted.host = options.host
    source = find(options.config, deployment=options.deployment)
    state = options.state or Path(source.base) / STATE
    answer = StandIn(options.answer, options.answer_body)
    return explain(source.settings(), wanted, state, options.listener, answer)


def recorded(options: Options, id: str) -> dict[str, Any]:
    """The trace of an exchange that a running node holds."""
    trace: dict[str, Any] | None = ask(
        status_url(options.status, options.state), f"/-/explain/{id}"
    )
    if trace is None:
        raise command.refused(
            f"the node holds no trace of {id}: exchanges are traced where `[gateway] explain` "
            "samples them, or where an allowed caller sends x-tidegate-explain: 1"
        )
    return trace


def recent(options: Options) -> None:
    """List the traces that a running node holds."""
    found = ask(status_url(options.status, options.state), "/-/explain")["traces"]
    if options.json:
        print_json(found)
        return
    console = Console(highlight=False)
    if not found:
        console.print("The node holds no traces: send x-tidegate-explain: 1 with a request.")
        return
    table = Table.grid(padding=(0, 2))
    for trace in found[:50]:
        request = f"{trace['method']} {trace['path']}"
        table.add_row(trace["id"], request, trace["decision"])
    console.print(table)
