"""What a worker serves from, and how a new configuration takes its place.

A `Generation` is one loaded configuration: addons, and the compiled pipelines by scope. A reload
prepares the next one beside it and swaps one reference; an exchange keeps the pipeline, and so the
generation, that it started with. An addon whose configuration did not change keeps its instance; an
instance is shut down when the last generation that holds it has no exchange left.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from random import getrandbits
from types import CodeType
from typing import Any, Final

from tidegate.api.exchange import Exchange
from tidegate.api.plugin import AddonContext, Counters, Plugin

from .addon import Addon, Mode
from .blame import told
from .entry import AddonEntry
from .logqueue import LogQueue
from .messages import copy_request
from .pipeline import Pipeline
from .problems import ConfigError, Problem
from .registry import Hooks, decode_config, digest, load_class
from .scope import ScopeTable
from .settings import Settings
from .tally import ShadowTally
from .trace import Traces
from .tracing import Tracer

log = logging.getLogger("tidegate.lifecycle")

LAST_CALL: Final = 0.5
"""Seconds for which a carrier that drains still hears a connection that is idle.

What comes is answered with `Connection: close`. A client that sends its next request at the very
moment of the close must send it again (RFC 9112 §9.3.1).
"""
STARTUP: Final = 30.0
"""Seconds that one addon's `startup` may take."""


@dataclass(slots=True)
class Host:
    """What the node tells a worker's addons about where they run."""

    state: Path
    workers: int = 1
    shared: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Per addon name, what its `bootstrap` put there."""
    plugins: dict[str, type[Plugin[Any]]] = field(default_factory=dict)
    """Classes that are there besides the installed ones, by name: of an embedder, of a test."""


type Fresh = tuple[str, Plugin[Any], Plugin[Any] | None]
"""A new addon of a generation: its name, its instance, and the one that it replaces."""


class Instance:
    """A plugin instance and the number of generations that hold it."""

    __slots__ = ("holders", "plugin")

    def __init__(self, plugin: Plugin[Any]) -> None:
        self.plugin = plugin
        self.holders = 0


class Generation:
    """One loaded configuration, in force or ending."""

    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self.settings = settings
        self.runtime = runtime
        self.addons: list[Addon] = []
        self.instances: dict[str, Instance] = {}
        self.active = 0
        self.retired = False
        self.table: ScopeTable[Pipeline]
        self.tracer = Tracer(self, runtime.traces)

    def add(
        self, entry: AddonEntry, plugin: Plugin[Any] | None, mode: Mode, position: int, digest: str
    ) -> None:
        """Add an addon, with its instance where it is on."""
        self.addons.append(
            Addon(
                entry.name,
                entry.use,
                plugin,
                mode=mode,
                scope=entry.scope,
                on_error=entry.on_error,
                position=position,
                digest=digest,
                percent=entry.percent,
                rest=entry.rest,
                gather=self.settings.limits.gather,
                late=self.late,
            )
        )

    def compile(self) -> None:
        """Make the table of pipelines."""
        self.table = ScopeTable(
            [addon.scope for addon in self.addons],
            lambda matched: Pipeline(
                self, [a for a, on in zip(self.addons, matched, strict=True) if on]
            ),
        )

    def ended(self, pipeline: Pipeline, exchange: Exchange) -> None:
        """An exchange of this generation has ended: log it, then let go."""
        if exchange.shadows:
            self.runtime.shadows.add(exchange, self.settings.addons)
        if pipeline.logs:
            self.runtime.logs.put(pipeline, exchange)
        else:
            self.release()

    def late(self, exchange: Exchange, coro: Coroutine[Any, Any, None]) -> None:
        """Run what a shadow addon still has to say when its exchange may have ended."""
        told = len(exchange.shadows)

        async def run() -> None:
            try:
                await coro
                if exchange.outcome:
                    self.runtime.shadows.add(exchange, self.settings.addons, told)
            finally:
                self.release()

        self.active += 1
        self.runtime.background(run())

    def release(self) -> None:
        """One exchange fewer holds this generation."""
        self.active -= 1
        if self.retired and self.active == 0:
            self.runtime.background(self.close())

    async def close(self) -> None:
        """Shut down the instances that no other generation holds."""
        instances, self.instances = self.instances, {}
        for name, instance in instances.items():
            instance.holders -= 1
            if instance.holders == 0:
                await shut_down(name, instance.plugin)


class Runtime:
    """The current generation, and the log queue. One per worker."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.current: Generation
        self.counters = Counters()
        self.traces = Traces()
        self.shadows = ShadowTally()
        self.fetcher: Callable[[Exchange], None] | None = None
        """How the lane sends an exchange that no client waits for."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self.logs = LogQueue(self.background, self.counters)

    # -- exchanges ----------------------------------------------------------------------------

    def begin(self, listener: str, host: str, path: str, method: str) -> Pipeline:
        """The pipeline for a request head. `Pipeline.finish` must follow, exactly once."""
        generation = self.current
        pipeline = generation.table.match(listener, host, path, method)
        generation.active += 1
        return pipeline

    def fetch(self, exchange: Exchange) -> Exchange:
        """See `AddonContext.fetch`."""
        if self.fetcher is None:
            raise RuntimeError("no lane runs here")
        seed = getrandbits(96)
        behind = Exchange(
            f"{seed:024x}",
            copy_request(exchange.request),
            exchange.client,
            listener=exchange.listener,
            host=exchange.host,
            path=exchange.path,
            now=exchange.now,
            started=time.monotonic(),
            seed=seed,
        )
        behind.request.data.content = b""
        behind.principal = exchange.principal
        behind.background = True
        self.fetcher(behind)
        return behind

    def enter(self, exchange: Exchange) -> Pipeline:
        """The pipeline for an exchange: one that traces where that was asked for, or by sample."""
        request = exchange.request
        pipeline = self.begin(exchange.listener, exchange.host, exchange.path, request.method)
        tracer = pipeline.generation.tracer
        if exchange.trace is not None or exchange.seed < tracer.below:
            return tracer.take(pipeline, exchange)
        return pipeline

    @property
    def active(self) -> int:
        """Exchanges that the current generation has not finished."""
        return self.current.active

    # -- configurations -----------------------------------------------------------------------

    async def prepare(self, settings: Settings) -> Generation:
        """Load a configuration beside the current one and start what is new in it.

        Raises ConfigError; then nothing changed.
        """
        generation, fresh = self.load(settings)
        await self._start(settings, fresh)
        for instance in generation.instances.values():
            instance.holders += 1
        return generation

    def load(self, settings: Settings) -> tuple[Generation, list[Fresh]]:
        """Make and compile a generation; its new addons are not started. Raises ConfigError."""
        previous = getattr(self, "current", None)
        generation = Generation(settings, self)
        problems: list[Problem] = []
        fresh: list[Fresh] = []
        hooks = Hooks()
        for position, entry in enumerate(settings.addons):
            plugin: Plugin[Any] | None = None
            signature = digest(entry)
            mode = entry.mode if entry.active else "off"
            if mode != "off":
                old = _addon(previous, entry.name)
                if old is not None and old.digest == signature and old.instance is not None:
                    plugin = old.instance
                    assert previous is not None
                    generation.instances[entry.name] = previous.instances[entry.name]
                else:
                    try:
                        plugin = make_plugin(self.host, settings, position)
                    except ConfigError as error:
                        problems.extend(error.problems)
                        continue
                    plugin.context.fetch = self.fetch
                    replaces = old.instance if old is not None and old.use == entry.use else None
                    fresh.append((entry.name, plugin, replaces))
                    generation.instances[entry.name] = Instance(plugin)
                hooks.register(entry.name, plugin)
            try:
                generation.add(entry, plugin, mode, position, signature)
            except Exception as error:
                problems.append(_problem(settings, position, "plugin_invalid", error))
        if problems:
            raise ConfigError(problems)
        hooks.check()
        generation.compile()
        return generation, fresh

    async def _start(self, settings: Settings, fresh: list[Fresh]) -> None:
        started: list[tuple[str, Plugin[Any]]] = []
        for name, plugin, previous in fresh:
            started.append((name, plugin))
            startup = getattr(plugin, "startup", None)
            if startup is None:
                continue
            try:
                async with asyncio.timeout(STARTUP):
                    result = startup(previous)
                    if isinstance(result, Awaitable):
                        await result
            except BaseException as error:
                for other, instance in reversed(started):
                    await shut_down(other, instance)
                if isinstance(error, KeyboardInterrupt) or _cancelled():
                    raise
                position = next(i for i, e in enumerate(settings.addons) if e.name == name)
                code = getattr(startup, "__code__", None)
                problem = _problem(settings, position, "startup_failed", error, code)
                raise ConfigError(problem) from error

    def commit(self, generation: Generation) -> None:
        """Put a prepared generation in force; the old one ends with its last exchange."""
        previous = getattr(self, "current", None)
        self.current = generation
        if previous is not None:
            self.retire(previous)

    def retire(self, generation: Generation) -> None:
        """Let a generation end: one replaced, or one prepared that is not to be."""
        generation.retired = True
        if generation.active == 0:
            self.background(generation.close())

    async def close(self) -> None:
        """Write what is left to log, shut every addon down."""
        await self.flush()
        await self.current.close()
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def flush(self) -> None:
        """Wait until every queued exchange has met its `log` hooks."""
        while self.logs.busy:
            if self._tasks:
                await asyncio.wait(self._tasks)
            else:
                await asyncio.sleep(0)

    def background(self, coro: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine of core's beside the traffic."""
        task = asyncio.get_running_loop().create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def make_plugin(host: Host, settings: Settings, position: int) -> Plugin[Any]:
    """The instance of one addon of a configuration, not started. Raises ConfigError."""
    entry, path = settings.addons[position], settings.paths[position]
    cls = load_class(entry, settings, path, host.plugins)
    config = decode_config(cls, entry, settings, path)
    context = AddonContext(
        name=entry.name,
        state=host.state / "addons" / entry.name,
        environment=settings.gateway.environment,
        workers=host.workers,
        shared=host.shared.get(entry.name, {}),
        base=settings.base,
        carriers=settings.carriers,
        code=entry.code,
        addons=lambda: make_addons(host, settings),
    )
    try:
        return cls(config, context)
    except Exception as error:
        made = getattr(cls.__init__, "__code__", None)
        problem = _problem(settings, position, "plugin_invalid", error, made)
        raise ConfigError(problem) from error


def make_addons(host: Host, settings: Settings) -> dict[str, Plugin[Any]]:
    """The addons that are on, by name, not started. Raises ConfigError."""
    return {
        entry.name: make_plugin(host, settings, position)
        for position, entry in enumerate(settings.addons)
        if entry.mode != "off" and entry.active
    }


def _addon(generation: Generation | None, name: str) -> Addon | None:
    if generation is None:
        return None
    return next((a for a in generation.addons if a.name == name), None)


def _problem(
    settings: Settings,
    position: int,
    code: str,
    error: BaseException,
    function: CodeType | None = None,
) -> Problem:
    entry = settings.addons[position]
    text = f'addon "{entry.name}": {told(error, function)}'
    return settings.source.problem(code, text, settings.paths[position])


def _cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and bool(task.cancelling())


async def shut_down(name: str, plugin: Plugin[Any]) -> None:
    """Run a plugin's `shutdown`; what it raises is logged."""
    shutdown = getattr(plugin, "shutdown", None)
    if shutdown is None:
        return
    try:
        async with asyncio.timeout(STARTUP):
            result = shutdown()
            if isinstance(result, Awaitable):
                await result
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) or _cancelled():
            raise
        log.exception("addon %s failed in shutdown", name)
