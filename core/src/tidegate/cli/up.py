"""`tidegate up`: start a node, say where it is and how to call it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
from rich.console import Console
from rich.text import Text

from tidegate.runtime.entry import AddonEntry
from tidegate.runtime.problems import ConfigError
from tidegate.runtime.settings import Settings

from . import bootstrap, logs, supervisor
from .source import DEFAULT, STATE, Source, find
from .wire import Message, problems_to_wire

SERVICES: Final = "route-service"
ANSWER: Final = {
    "local-model": "a language model on this machine",
    "demo-upstream": "the demo model: no provider, no network",
    SERVICES: "the services of the platform",
}
"""Who answers where an addon routes, in words for the welcome."""


@dataclass(frozen=True, slots=True)
class Options:
    """The flags of `tidegate up`."""

    config: Path | None
    deployment: str
    state: Path | None
    listen: tuple[str, ...]
    workers: int | None
    local_model: bool
    json: bool
    log_level: str
    log_format: str
    policies: tuple[Path, ...] = ()


def up(options: Options, given: Source | None = None) -> None:
    """Run a node until it is told to stop. Raises ConfigError where it can't start.

    `given`: a configuration that another verb has put together.
    """
    logs.setup(options.log_level, options.log_format)
    tell = tell_json if options.json else tell_person
    try:
        source = given or find(
            options.config,
            deployment=options.deployment,
            listen=options.listen,
            workers=options.workers,
            local_model=options.local_model,
            policies=tuple(str(file.resolve()) for file in options.policies),
        )
        state = bootstrap.make_state(options.state or Path(source.base) / STATE)
        supervisor.run(
            source,
            state,
            tell,
            (lambda started: tell(started.event())) if options.json else welcomer(source),
            log_options={"level": options.log_level, "fmt": options.log_format},
            stdout=sys.stderr.fileno() if options.json else None,
        )
    except ConfigError as error:
        tell({"event": "error", "problems": problems_to_wire(error.problems)})
        raise


def tell_json(message: Message) -> None:
    """One event as one line on standard output."""
    sys.stdout.write(orjson.dumps(message, default=str).decode() + "\n")
    sys.stdout.flush()


def tell_person(message: Message) -> None:
    """People read the log; only what a start that failed leaves behind is for their eyes."""
    if message["event"] == "announced":
        for name, value in message.items():
            if name != "event":
                print(f"{name.replace('_', ' ')}: {value}", flush=True)


# -- the welcome ------------------------------------------------------------------------------


def welcomer(source: Source) -> Callable[[supervisor.Started], None]:
    """A function that greets a person when the node is ready."""

    def welcome(started: supervisor.Started) -> None:
        console = Console(highlight=False, soft_wrap=True)
        for line in welcome_lines(started, source):
            console.print(line)
        sys.stdout.flush()

    return welcome


ONCE: Final = "   shown this once: keep it"


def welcome_lines(started: supervisor.Started, source: Source) -> list[Text]:
    """What a newcomer needs to know, and no more."""
    told = dict(started.announcements)
    key = told.pop("api_key", None)
    configured = "the built-in configuration" if source.file == DEFAULT else source.file
    lines = [
        Text(),
        Text.assemble(("Tidegate is up.", "bold green"), f"  Configured by {configured}."),
        Text(),
    ]
    rows = [("gateway", "  ".join(started.gateway)), ("answers", answers(started.settings))]
    rows += [("intercept", f"{name}  {'  '.join(at)}") for name, at in started.intercept.items()]
    if key is not None:
        rows.append(("API key", key + ONCE))
    elif asks_for_key(started.settings):
        rows.append(("API key", "the one from before; `tidegate keys create NAME` makes another"))
    for name, value in told.items():
        rows.append((name.replace("_", " "), value + ONCE * name.endswith("password")))
    rows += [("status", f"{started.status}/-/status"), ("state", str(started.state))]
    width = max(len(name) for name, _ in rows) + 2
    lines += [Text.assemble((f"  {name:<{width}}", "dim"), value) for name, value in rows]
    if {entry.use for entry in routers(started.settings)} != {SERVICES}:
        lines += [Text(), Text("  Try it (an answer that streams):"), Text()]
        lines += [Text(f"    {line}", style="cyan") for line in curl(started, key)]
    edits = "" if source.watched is None else " Edits of the configuration take effect at once."
    lines += [Text(), Text(f"  Ctrl-C stops it.{edits}"), Text()]
    return lines


def routers(settings: Settings) -> list[AddonEntry]:
    """The addons that are known to route, in their order."""
    return [
        entry
        for entry in settings.addons
        if entry.mode != "off"
        and entry.active
        and (entry.use in ANSWER or entry.use.startswith("route-"))
    ]


def answers(settings: Settings) -> str:
    """Who answers a call, in words."""
    found = routers(settings)
    if not found:
        return "nothing yet: no addon routes anywhere"
    words = [ANSWER.get(e.use, f'what the addon "{e.name}" routes to') for e in found]
    first = words.pop(0)
    return f"{first}, else {words[0]}" if found[0].use == SERVICES and words else first


def curl(started: supervisor.Started, key: str | None) -> list[str]:
    """A call to copy and paste."""
    base = started.gateway[0].replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    lines = [f"curl -N {base}/v1/chat/completions \\"]
    if key is not None or asks_for_key(started.settings):
        lines.append(f'  -H "Authorization: Bearer {key or "$TIDEGATE_API_KEY"}" \\')
    model = started.announcements.get("model") or model_name(started.settings)
    lines.append('  -H "Content-Type: application/json" \\')
    lines.append(
        f'  -d \'{{"model": "{model}", "stream": true, '
        '"messages": [{"role": "user", "content": "Say hello."}]}\''
    )
    return lines


def asks_for_key(settings: Settings) -> bool:
    """Whether callers must show an API key."""
    enforced = any(e.use == "auth-key" and e.mode == "enforce" for e in settings.addons)
    return enforced and not settings.anonymous


def model_name(settings: Settings) -> str:
    """A model that providers know where a route comes first; the demo takes any name."""
    for entry in settings.addons:
        if entry.mode != "off" and entry.active and entry.use.startswith("route-"):
            return "gpt-4o-mini"
    return "demo"
