"""Runs whole exchanges through real addons and the real pipeline, without a socket."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mitmproxy import http

from tidegate.api import Exchange, Plugin, Upstream
from tidegate.runtime.lifecycle import Host, Runtime
from tidegate.runtime.offline import Cut, Offline, Script
from tidegate.runtime.problems import ConfigError, Problem, SourceMap
from tidegate.runtime.settings import Settings, build

from .exchanges import make_answer

__all__ = ["Cut", "Harness", "Use", "settings_of"]


@dataclass(frozen=True)
class Use:
    """One `[[addon]]` of a harness. `name` defaults to the class's name."""

    plugin: type[Plugin[Any]]
    options: Mapping[str, Any] = field(default_factory=dict)
    mode: str = "enforce"
    name: str = ""
    scope: Mapping[str, Sequence[str]] = field(default_factory=dict)
    on_error: str = "fail"

    @property
    def addon(self) -> str:
        """The addon's name."""
        return self.name or self.plugin.__name__


class Harness:
    """A worker without carriers: `async with Harness(Use(MyPlugin, {…})) as harness`.

    A bare plugin class stands for `Use(cls)`. `route` is the
    upstream of exchanges for which no addon names one (None: they are 404). `gateway` is the
    `[gateway]` table.
    """

    def __init__(
        self,
        *uses: Use | type[Plugin[Any]],
        answer: Script | None = None,
        route: Upstream | None = None,
        routed: bool = True,
        gateway: Mapping[str, Any] | None = None,
        workers: int = 1,
    ) -> None:
        self._answer: Script = make_answer() if answer is None else answer
        self._uses = [use if isinstance(use, Use) else Use(use) for use in uses]
        self._route = route or (
            Upstream("scripted", "http", "upstream.test", 80) if routed else None
        )
        self._gateway = dict(gateway or {})
        self._workers = workers
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.runtime: Runtime

    async def __aenter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="tidegate-")
        self.runtime = Runtime(Host(Path(self._folder.name), self._workers))
        self._offline = Offline(self.runtime, self._answer, self._route)
        try:
            await self._load(self._uses)
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._folder is not None
        await self.runtime.close()
        self._folder.cleanup()

    @property
    def sent(self) -> list[http.Request]:
        """The requests that went upstream, one per attempt."""
        return self._offline.sent

    @property
    def answer(self) -> Script:
        """The script of the upstream; set it at any time."""
        return self._offline.answer

    @answer.setter
    def answer(self, script: Script) -> None:
        self._offline.answer = script

    async def reload(self, *uses: Use | type[Plugin[Any]]) -> None:
        """Put other addons in force. Raises ConfigError; then the old ones stay."""
        await self._load([use if isinstance(use, Use) else Use(use) for use in uses])

    async def _load(self, uses: list[Use]) -> None:
        self.runtime.host.plugins = {use.addon: use.plugin for use in uses}
        settings = settings_of(uses, self._gateway)
        self.runtime.commit(await self.runtime.prepare(settings))

    def plugin(self, name: str = "") -> Any:
        """The running instance of an addon; without a name, of the first."""
        addons = self.runtime.current.addons
        return next(a.instance for a in addons if not name or a.name == name)

    def counters(self, name: str = "") -> dict[str, int]:
        """The counters of an addon; without a name, of the first."""
        values: dict[str, int] = self.plugin(name).context.counters.values
        return values

    async def send(self, exchange: Exchange) -> Exchange:
        """Run one exchange to its end, `log` hooks included.

        Afterwards `exchange.response` is what the caller got: the error envelope where the
        exchange was denied or failed.
        """
        await self.start(exchange)
        await self.runtime.flush()
        return exchange

    async def start(self, exchange: Exchange) -> Exchange:
        """The same without waiting for `log` hooks."""
        return await self._offline.run(exchange)


def settings_of(uses: Sequence[Use], gateway: Mapping[str, Any]) -> Settings:
    """The settings that an `addons.toml` with these addons would give. Raises ConfigError."""
    tables = [
        {
            **use.options,
            "use": use.addon,
            "mode": use.mode,
            "scope": dict(use.scope),
            "on_error": use.on_error,
        }
        for use in uses
    ]
    problems: list[Problem] = []
    source = SourceMap("")
    paths: list[tuple[str | int, ...]] = [("addon", i) for i in range(len(tables))]
    found = build({"gateway": dict(gateway), "addon": tables}, paths, source, problems)
    if problems:
        raise ConfigError(problems)
    core, intercepts, addons = found
    return Settings(core, addons, intercepts, source=source, paths=tuple(paths))
