"""The addon: it keeps the snapshot of its worker fresh and puts it on each exchange."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from pydantic import Field
from sqlalchemy import Connection

from tidegate.api import AddonConfig, AddonContext, Duration, Exchange, Node, Plugin, Secret, hook
from tidegate.api.platform import SERVICE, SNAPSHOT

from . import schema
from .backup import backup_before
from .compiling import compile_snapshot
from .database import Database
from .errors import StoreError
from .platform import Platform
from .queries import read_revision
from .schema import OWN, Schema
from .snapshot import EMPTY, Compiled
from .store import Store
from .vault import Vault

USED_EVERY: Final = 30.0
"""Seconds between two times at which the last use of keys is written down."""
SLOW: Final = 10.0
"""Seconds after which a store that does not answer is told of; it is waited for all the same."""
ANCHOR_EVERY: Final = 60.0
"""Seconds between two looks at whether the audit still holds what the anchor names."""


class StoreSqlConfig(AddonConfig):
    """The options.

    `url` is a database URL of SQLAlchemy's: `sqlite:///relative.db`, `sqlite:////absolute.db` or
    `postgresql+psycopg://user:password@host/name`; by default a SQLite file in the state folder.
    `master_key` (base64 of 32 bytes) seals secrets; by default one is made in the state folder.
    """

    url: Secret | None = None
    master_key: Secret | None = None
    poll: Duration = Field(default=0.25, ge=0.05, le=60.0)


class StoreSql(Plugin[StoreSqlConfig]):
    """The platform's memory: teams, services, keys, subscriptions and their audit, in SQL."""

    Config = StoreSqlConfig

    def __init__(self, config: StoreSqlConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        self.snapshot: Compiled = EMPTY
        self._store: Store | None = None
        self._following: asyncio.Task[None] | None = None
        self._lost = False

    @property
    def store(self) -> Store:
        """The store, not yet opened."""
        if self._store is None:
            given, state = self.config.url, self.context.state.absolute()
            url = f"sqlite:///{state / 'store.db'}" if given is None else given.get_secret_value()
            if url.startswith("sqlite:///") and not url.startswith("sqlite:////"):
                base = self.context.base.absolute()
                url = f"sqlite:///{base / url.removeprefix('sqlite:///')}"
            key = self.config.master_key
            vault = Vault(key.get_secret_value() if key is not None else None, state / "master.key")
            self._store = Store(Database(url), vault, state / "audit.anchor")
        return self._store

    @property
    def backups(self) -> Path:
        """Where backups that are made by themselves go."""
        return self.context.state / "backups"

    @property
    def schemas(self) -> tuple[Schema, ...]:
        """The store's own schema, and those of the plugins that are on and have tables in it."""
        found = (addon.migrations for addon in self.context.addons().values())
        others = {each.prefix: each for each in found if each is not None}
        return (OWN, *map(Schema, others.values()))

    def prepare(self) -> Store:
        """The store, with every schema up to date and its secrets open. Raises StoreError."""
        return self.open(self.schemas)

    def open(self, schemas: Sequence[Schema] = (OWN,)) -> Store:
        """The store, with these schemas up to date and its secrets open. Raises StoreError."""
        store = self.store
        store.database.make_private()
        with store.database.read() as connection:
            known = all(one.current(connection) == one.head for one in schemas)
            if known and store.vault.unlock(connection):
                return store
        with store.database.write() as connection:
            schema.upgrade(connection, schemas, backup=self._back_up)
            store.vault.make(connection)
        return store

    def platform_store(self) -> Platform:
        """See `tidegate.api.store`."""
        return Platform(self.prepare)

    def _back_up(self, connection: Connection) -> None:
        path = backup_before(connection, self.backups)
        self.context.log.warning("the schema is migrated; what was before is in %s", path)

    @hook
    def cli_commands(self, app: Any) -> None:
        """`tidegate db | apply | export | audit | secrets`."""
        from .commands import add_commands

        add_commands(app, self)

    @hook
    def console_routes(self, router: Any) -> None:
        """All that is in the store."""
        from .console import add_routes

        add_routes(router, self.platform_store())

    # -- exchanges ----------------------------------------------------------------------------

    @hook
    def authenticate(self, exchange: Exchange) -> None:
        """Put the snapshot, and the service that the request is for, on the exchange."""
        stash = exchange.stash
        snapshot = stash[SNAPSHOT] = self.snapshot
        method = exchange.request.data.method.decode("latin-1")
        service = snapshot.service(exchange.host, exchange.path, method)
        if service is not None:
            stash[SERVICE] = service
            exchange.anonymous = service.anonymous

    def explain(self, hook: str, exchange: Exchange) -> str:
        """Which service it found."""
        service = exchange.stash.get(SERVICE)
        return f"service {service.ref}" if service else "no service is at this host and path"

    # -- life ---------------------------------------------------------------------------------

    @hook
    async def startup(self, previous: Plugin[Any] | None) -> None:
        """Compile a snapshot. Without the store a reload keeps the one of before; a start fails."""
        try:
            await asyncio.to_thread(self.open)
            self.snapshot = await asyncio.to_thread(self._compile)
        except StoreError as error:
            same = isinstance(previous, StoreSql) and previous.config == self.config
            if error.code != "storage_unavailable" or not same:
                raise
            assert isinstance(previous, StoreSql)
            self.snapshot = previous.snapshot
            self._tell(error)
        self._following = asyncio.create_task(self._follow())

    @hook
    async def shutdown(self) -> None:
        """Stop following, and close the store."""
        if self._following is not None:
            self._following.cancel()
            with suppress(asyncio.CancelledError):
                await self._following
        await asyncio.to_thread(self.store.database.close)

    @hook
    def bootstrap(self, node: Node) -> None:
        """Make the store, or migrate it, once for all workers."""
        store = self.prepare()
        store.move_anchor()
        store.database.close()

    def _compile(self) -> Compiled:
        store = self.store
        with store.database.read() as connection:
            OWN.require(connection)
            store.vault.unlock(connection)  # a backup that was restored has a pepper of its own
            return compile_snapshot(connection, store.vault, self.snapshot)

    async def _follow(self) -> None:
        """Look for a new revision every `poll` seconds; keep the last snapshot where none can be
        had. Never ends by itself."""
        used = anchored = time.monotonic()
        while True:
            await asyncio.sleep(self.config.poll)
            await self._try(self._look)
            now = time.monotonic()
            if now - used >= USED_EVERY:
                used = now
                await self._try(self._write_used)
            if now - anchored >= ANCHOR_EVERY:
                anchored = now
                await self._try(self._anchor)

    async def _try(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do it; what goes wrong is counted, and told once until the store is back."""
        slow = asyncio.get_running_loop().call_later(SLOW, self._tell, TimeoutError("it is slow"))
        try:
            await work()
        except Exception as error:
            self._tell(error)
        else:
            if self._lost:
                self.context.log.warning("the store is back")
            self._lost = False
        finally:
            slow.cancel()

    def _tell(self, error: Exception) -> None:
        self.context.counters.add("store_errors_total")
        if not self._lost:
            self._lost = True
            self.context.log.error(
                "the store can't be read, revision %d keeps being served: %s",
                self.snapshot.revision,
                error,
            )

    async def _look(self) -> None:
        fresh = await asyncio.to_thread(self._newer)
        if fresh is not None:
            fresh.used |= self.snapshot.used
            self.snapshot = fresh
            self.context.counters.add("snapshots_total")

    def _newer(self) -> Compiled | None:
        with self.store.database.read() as connection:
            revision = read_revision(connection)
        return self._compile() if revision != self.snapshot.revision else None

    async def _write_used(self) -> None:
        snapshot = self.snapshot
        keys, snapshot.used = snapshot.used, set()
        try:
            times = dict.fromkeys(keys, round(time.time(), 3))
            await asyncio.to_thread(self.store.used, times)
        except StoreError:
            snapshot.used |= keys
            raise

    async def _anchor(self) -> None:
        if not await asyncio.to_thread(self.store.move_anchor):
            self.context.counters.add("audit_anchor_mismatches_total")
            self.context.log.error("the audit was tampered with: tidegate audit verify")
