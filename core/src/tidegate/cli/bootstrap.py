"""Runs the `bootstrap` hook of each addon: once per node, before its workers start."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidegate.api.plugin import Node
from tidegate.runtime.lifecycle import Host, make_plugin
from tidegate.runtime.problems import ConfigError, Problem
from tidegate.runtime.registry import digest
from tidegate.runtime.settings import Settings, split_address

from .companions import Key
from .sockets import bind, join

log = logging.getLogger("tidegate.supervisor")


type Processes = dict[tuple[str, str, str], tuple[list[str], dict[str, str]]]


@dataclass(slots=True)
class Prepared:
    """What the hooks left: per addon its node, valid for the configuration it had."""

    nodes: dict[str, tuple[str, Node]] = field(default_factory=dict)
    sockets: dict[Key, socket.socket] = field(default_factory=dict)
    """What addons serve on by themselves: by addon and address."""

    def listen(self, addon: str, address: str, before: Prepared) -> str:
        """A socket for an addon, the one from before where it is the same; where it listens.

        Raises ValueError.
        """
        sock = before.sockets.get((addon, address))
        try:
            sock = sock or bind(*split_address(address), shared=False)
        except ConfigError as error:  # it would tell of `--listen`
            raise ValueError(error.problems[0].message) from None
        self.sockets[addon, address] = sock
        return join(*sock.getsockname()[:2])

    def close(self, besides: Prepared | None = None) -> None:
        """Close the sockets, but for those that `besides` has."""
        for key, sock in self.sockets.items():
            if besides is None or key not in besides.sockets:
                sock.close()

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


def run(
    settings: Settings, host: Host, before: Prepared | None = None, *, listens: bool = True
) -> Prepared:
    """Run the hooks; an addon that has the configuration it had `before` keeps what it got.

    Raises ConfigError with the problems of every addon that can't be made or bootstrapped.
    `listens`: False where there is no node, and so none of them serves.
    """
    before = before or Prepared()
    prepared = Prepared()
    problems: list[Problem] = []
    for position, entry in enumerate(settings.addons):
        if entry.mode == "off" or not entry.active:
            continue
        signature = digest(entry)
        if before.nodes.get(entry.name, ("",))[0] == signature:
            prepared.nodes[entry.name] = before.nodes[entry.name]
            prepared.sockets |= {k: v for k, v in before.sockets.items() if k[0] == entry.name}
            continue

        def listen(address: str, addon: str = entry.name) -> str:
            return prepared.listen(addon, address, before) if listens else address

        node = Node(host.state, settings.base, settings.gateway.environment, listen)
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
        prepared.close(before)
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
