"""Runs the `bootstrap` hook of each addon: once per node, before its workers start."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidegate.api.plugin import Node
from tidegate.runtime.lifecycle import Host, make_plugin
from tidegate.runtime.problems import ConfigError, Problem
from tidegate.runtime.registry import digest
from tidegate.runtime.settings import Settings

log = logging.getLogger("tidegate.supervisor")


type Processes = dict[tuple[str, str, str], tuple[list[str], dict[str, str]]]


@dataclass(slots=True)
class Prepared:
    """What the hooks left: per addon its node, valid for the configuration it had."""

    nodes: dict[str, tuple[str, Node]] = field(default_factory=dict)

    @property
    def shared(self) -> dict[str, dict[str, Any]]:
        """Per addon name, the values for its instances in the workers."""
        return {name: node.shared for name, (_, node) in self.nodes.items() if node.shared}

    @property
    def announcements(self) -> dict[str, str]:
        """What the addons want told in the ready line."""
        return {k: v for _, node in self.nodes.values() for k, v in node.announcements.items()}

    @property
    def processes(self) -> Processes:
        """Wanted helper processes, by addon, configuration and name."""
        return {
            (addon, signature, name): (argv, env)
            for addon, (signature, node) in self.nodes.items()
            for name, argv, env in node.processes
        }


def run(settings: Settings, host: Host, before: Prepared | None = None) -> Prepared:
    """Run the hooks; an addon that has the configuration it had `before` keeps what it got.

    Raises ConfigError with the problems of every addon that can't be made or bootstrapped.
    """
    known = before.nodes if before is not None else {}
    prepared = Prepared()
    problems: list[Problem] = []
    for position, entry in enumerate(settings.addons):
        if entry.mode == "off" or not entry.active:
            continue
        signature = digest(entry)
        if entry.name in known and known[entry.name][0] == signature:
            prepared.nodes[entry.name] = known[entry.name]
            continue
        node = Node(host.state, settings.base, settings.gateway.environment)
        try:
            plugin = make_plugin(host, settings, position)
            hook: Callable[[Node], None] | None = getattr(plugin, "bootstrap", None)
            if hook is not None:
                hook(node)
        except ConfigError as error:
            problems.extend(error.problems)
            continue
        except Exception as error:
            text = f'addon "{entry.name}": {str(error) or type(error).__name__}'
            problems.append(
                settings.source.problem("bootstrap_failed", text, settings.paths[position])
            )
            continue
        prepared.nodes[entry.name] = (signature, node)
    if problems:
        raise ConfigError(problems)
    return prepared


def make_state(folder: Path) -> Path:
    """The state folder: made, 0700, writable. Raises ConfigError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        mark = folder / ".write-test"
        mark.touch()
        mark.unlink()
    except OSError as error:
        raise ConfigError(
            Problem(
                "state_not_writable",
                f"the state folder can't be used: {error.strerror}",
                str(folder),
                hint="choose another with --state",
            )
        ) from None
    return folder.resolve()
