"""What a script finds in `mitmproxy.ctx`: options, a log, and a master that has no proxy to run.

Each script gets a `ctx` of its own, put in place of mitmproxy's while the script is imported: two
scripts don't share options, and none of them reaches into the engine.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NoReturn

import mitmproxy
from mitmproxy import ctx as original
from mitmproxy import exceptions, http, options

from tidegate.api import PUSH, WsMessage

if not hasattr(original, "master"):  # what serves applications in the proxy asks for it
    original.master = None  # type: ignore[assignment]


def refuse(what: str, why: str) -> NoReturn:
    """Raise what a script gets for asking something of mitmproxy that is not here."""
    raise exceptions.ControlException(f"{what}: {why}")  # type: ignore[no-untyped-call]


class Commands:
    """`ctx.master.commands`. They need mitmproxy's console: there is none. One runs all the same,
    as scripts live on it: `inject.websocket`."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log

    def add(self, path: str, func: Callable[..., Any]) -> None:
        """Ignored, with a warning."""
        self._log.warning("the command %s is ignored: there is no mitmproxy console here", path)

    def call(self, command: str, *args: Any) -> None:
        """Run the one that there is; the others are refused."""
        if command == "inject.websocket":
            inject(*args)
            return
        refuse(command, "mitmproxy's commands (replay, view, inject…) don't exist in Tidegate")

    call_strings = execute = call


def inject(flow: http.HTTPFlow, to_client: bool, content: bytes, is_text: bool = True) -> None:
    """`inject.websocket`: send a message of the script's own, now."""
    push = flow.metadata.get(PUSH.name)
    if push is None:
        refuse("inject.websocket", "the flow is not a WebSocket that has begun")
    push(WsMessage(content, from_client=not to_client, text=is_text))


class Addons:
    """`ctx.master.addons`. mitmproxy's own addons don't run here."""

    def get(self, name: str) -> None:
        """None: nothing of that name is here."""

    def __contains__(self, name: object) -> bool:
        return False

    def add(self, *addons: Any) -> NoReturn:
        """Refused."""
        refuse("ctx.master.addons.add", "name every addon in the script's list `addons`")

    def remove(self, addon: Any) -> NoReturn:
        """Refused."""
        refuse("ctx.master.addons.remove", "addons are switched off in addons.toml")

    def trigger(self, event: Any) -> NoReturn:
        """Refused."""
        refuse("ctx.master.addons.trigger", "hooks are called by Tidegate alone")

    trigger_event = trigger


class Log:
    """`ctx.log`, which mitmproxy keeps for old scripts."""

    def __init__(self, log: logging.Logger) -> None:
        self.debug = log.debug
        self.info = self.alert = log.info
        self.warn = self.warning = log.warning
        self.error = log.error

    def __call__(self, text: str, level: str = "info") -> None:
        """Log at a level by its name."""
        getattr(self, level)(text)


def logging_by(log: logging.Logger) -> ModuleType:
    """The module `logging`, whose functions write to `log`: they would go to the root logger,
    which tells nothing below a warning."""
    made = ModuleType(logging.__name__)
    vars(made).update(vars(logging))
    for name in ("debug", "info", "warning", "error", "exception", "critical", "log"):
        setattr(made, name, getattr(log, name))
    return made


class Master:
    """`ctx.master`, as far as a script has business with it."""

    def __init__(self, log: logging.Logger) -> None:
        self.options = options.Options()
        self.commands = Commands(log)
        self.addons = Addons()
        self.log = Log(log)

    @property
    def event_loop(self) -> asyncio.AbstractEventLoop:
        """The worker's loop."""
        return asyncio.get_running_loop()

    def shutdown(self) -> NoReturn:
        """Refused."""
        refuse("ctx.master.shutdown", "a policy can't end the gateway")


def make_ctx(master: Master) -> ModuleType:
    """A module that looks like `mitmproxy.ctx`."""
    made: Any = ModuleType(original.__name__, original.__doc__)
    made.master, made.options, made.log = master, master.options, master.log
    return made  # type: ignore[no-any-return]


@contextmanager
def in_place(ctx: ModuleType) -> Iterator[None]:
    """While a script is imported, `from mitmproxy import ctx` gives it `ctx`."""
    package: Any = mitmproxy
    package.ctx = sys.modules[original.__name__] = ctx
    try:
        yield
    finally:
        package.ctx = sys.modules[original.__name__] = original
