"""`Plugin` and `@hook`: what an author writes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    Generic,
    cast,
    get_args,
    get_origin,
    overload,
)

import pluggy
from typing_extensions import TypeVar

from .config import AddonConfig
from .errors import ErrorCode
from .store import Migrations, PlatformStore, StoreError
from .types import Body

if TYPE_CHECKING:
    from .exchange import Exchange

PROJECT: Final = "tidegate"
_mark = pluggy.HookimplMarker(PROJECT)

C = TypeVar("C", bound=AddonConfig, default=AddonConfig)

type Needs = Body | Callable[[Any], Body | None]


@dataclass(frozen=True, slots=True)
class HookOptions:
    """What `@hook(…)` said of a method."""

    needs: Needs | None = None
    cacheable: bool = False


@overload
def hook[F: Callable[..., Any]](fn: F, /) -> F: ...
@overload
def hook[F: Callable[..., Any]](
    *, needs: Needs | None = None, cacheable: bool = False
) -> Callable[[F], F]: ...
def hook(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    needs: Needs | None = None,
    cacheable: bool = False,
) -> Any:
    """Mark a method of a `Plugin` as the hook that it is named after.

    Args:
        needs: the bodies that this hook must see: a `Body`, or a function of the addon's
            config that gives one or None.
        cacheable: of a response or event transform: its result is the same for everyone, so
            a cache may store it.

    >>> class Hello(Plugin):
    ...     @hook
    ...     def transform_response(self, exchange):
    ...         exchange.response.headers["x-hello"] = "world"
    """

    def decorate(fn: Callable[..., Any]) -> Callable[..., Any]:
        cast(Any, fn).tidegate_hook = HookOptions(needs, cacheable)
        return _mark(fn)

    return decorate(fn) if fn is not None else decorate


class Counters:
    """Counts of one addon or of core, by name. Adding is one dictionary update."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: dict[str, int] = {}

    def add(self, name: str, n: int = 1) -> None:
        """Add `n` to the counter `name` (snake_case, a unit or `_total` at its end)."""
        self.values[name] = self.values.get(name, 0) + n


def _no_carrier(exchange: Exchange) -> Exchange:
    raise RuntimeError("there is no carrier here that could send a request")


def _no_listener(address: str) -> str:
    raise RuntimeError("there is no node here that could listen")


@dataclass(slots=True)
class AddonContext:
    """What core gives an addon about where it runs.

    Attributes:
        name: the addon's unique name in `addons.toml`.
        state: a folder of its own, 0700, that survives restarts; made on first use.
        environment: `[gateway] environment`, such as "development" or "production".
        workers: how many workers this node runs: hold 1/workers of a node's limit.
        shared: values that the addon's `bootstrap` put there once for the whole node.
        carriers: what carries exchanges on this node: "lane", "engine", "intercept".
        code: the text of the Python file that an option names, as it is to be run; a file that is
            edited makes a new instance.
        base: folder of the configuration file: relative paths in options start there.
        fetch: for a cache: send an exchange's GET upstream once more, beside it. It gives the
            new exchange (`background`), which starts on the loop's next turn: with a copy of
            the request, at `route`, up to `cache_store`. On the lane, whatever carries the
            first one.
        addons: the addons of the configuration that are on, by name, each made anew and not
            started. For what is no exchange's: verbs, `bootstrap` and `Plugin.serve`.
    """

    name: str
    state: Path
    environment: str = "development"
    workers: int = 1
    shared: Mapping[str, Any] = field(default_factory=dict)
    carriers: frozenset[str] = frozenset()
    code: str = ""
    base: Path = field(default_factory=Path)
    counters: Counters = field(default_factory=Counters)
    fetch: Callable[[Exchange], Exchange] = _no_carrier
    addons: Callable[[], Mapping[str, Plugin[Any]]] = dict

    @property
    def log(self) -> logging.Logger:
        """The addon's logger; what it says is redacted and names the addon."""
        return logging.getLogger(f"tidegate.addon.{self.name}")

    def platform_store(self) -> PlatformStore:
        """The platform's store (`tidegate.api.store`), to be kept. Raises StoreError: no addon
        that is on keeps one."""
        for addon in self.addons().values():
            store = addon.platform_store()
            if store is not None:
                return store
        raise StoreError("store_missing", "no addon keeps the platform: switch store-sql on", 503)


class Node:
    """What `bootstrap` sees: the node before its workers start (see `hookspecs`)."""

    def __init__(
        self,
        state: Path,
        base: Path,
        environment: str,
        listen: Callable[[str], str] = _no_listener,
    ) -> None:
        self.state = state
        self.base = base
        self.environment = environment
        self.shared: dict[str, Any] = {}
        """JSON-able values for `AddonContext.shared` of this addon in every worker."""
        self.announcements: dict[str, str] = {}
        self.processes: list[tuple[str, list[str], dict[str, str]]] = []
        self._listen = listen

    def announce(self, name: str, value: str) -> None:
        """Put a value into the ready line and the welcome text, such as `api_key`."""
        self.announcements[name] = value

    def run(self, name: str, argv: list[str], env: dict[str, str] | None = None) -> None:
        """Run a helper process beside the workers: restarted if it dies, stopped with them."""
        self.processes.append((name, argv, env or {}))

    def serve(self, address: str) -> str:
        """Have the addon's `Plugin.serve` run in a process of its own beside the workers.

        `address`, such as "127.0.0.1:8090" (port 0: a free one), is listened on by the node as
        long as the addon asks for it: a new configuration gets a new process on the same socket.
        At most one for an addon. Returns where it listens, host and port.
        """
        return self._listen(address)


class Plugin(Generic[C]):
    """Base of a plugin. The entry point in `tidegate.plugins` names a subclass.

    Life: made with its decoded config, hook `startup(previous)` on each worker's loop, used
    by exchanges, hook `shutdown` when the last exchange that holds it has ended. On a reload
    an addon whose configuration did not change keeps its instance.

    Attributes:
        Config: the class of its options; what stands in `Plugin[…]`, if it is not set.
    """

    Config: ClassVar[type[AddonConfig]] = AddonConfig
    codes: ClassVar[tuple[ErrorCode, ...]] = ()
    """The error codes that its denials use; they appear in the documentation."""
    migrations: ClassVar[Migrations | None] = None
    """How its own tables in the platform's store are made: see `tidegate.api.store`."""

    config: C
    context: AddonContext

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        for base in vars(cls).get("__orig_bases__", ()):
            named = get_args(base) if get_origin(base) is Plugin else ()
            if named and isinstance(named[0], type) and "Config" not in vars(cls):
                cls.Config = named[0]

    def __init__(self, config: C, context: AddonContext) -> None:
        self.config = config
        self.context = context

    def connection_hooks(self) -> Mapping[str, Sequence[Callable[[Any], Any]]]:
        """mitmproxy's hooks about connections (`tls_clienthello`, `server_connect`, …), by name.

        The engine calls them with what mitmproxy gives them, where the addon enforces and its
        scope takes the listener in; the lane has none. One that raises closes the connection.
        """
        return {}

    def serve(self, listener: Any) -> AbstractAsyncContextManager[None]:
        """Serve on a listening `socket.socket`: what `node.serve(…)` in `bootstrap` asked for.

        On the loop of a process of its own, where the addons were made but none was started.
        Entered, it serves; left, it has finished what was in progress. An exception on the way in
        refuses the configuration.
        """
        raise NotImplementedError

    def platform_store(self) -> PlatformStore | None:
        """The platform's store, where this plugin keeps it (`tidegate.api.store`)."""
        return None

    def explain(self, hook: str, exchange: Exchange) -> str:
        """Why `hook` had nothing to say to `exchange`: half a sentence, such as "looked for …".

        Asked only while an exchange is traced. Tell no value of the request: traces are read
        by people who may not see it.
        """
        return ""
