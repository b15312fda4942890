"""A console on a real store, called in this process; passwords hashed cheaply."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from sqlalchemy import text
from tidegate_console_api import ConsoleApi, passwords
from tidegate_console_api.app import make_door
from tidegate_console_api.config import ConsoleApiConfig
from tidegate_console_api.door import Door
from tidegate_console_api.users import Users
from tidegate_store_sql import StoreSql
from tidegate_store_sql.plugin import StoreSqlConfig

from tidegate.api import AddonContext, Plugin

PASSWORD = "correct horse battery"


@pytest.fixture(scope="session", autouse=True)
def cheap() -> Iterator[None]:
    hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_hasher", hasher)
        patch.setattr(passwords, "_nobody", hasher.hash("nobody"))
        yield


class Clock:
    """The time, as far as accounts are concerned."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Console:
    """A console, and the store under it."""

    def __init__(self, state: Path, *more: Plugin[Any], **options: Any) -> None:
        self.clock = Clock()
        self.store_addon = StoreSql(
            StoreSqlConfig(), AddonContext("store-sql", state / "store-sql")
        )
        addons: dict[str, Plugin[Any]] = {"store-sql": self.store_addon}
        addons |= {plugin.context.name: plugin for plugin in more}
        config = ConsoleApiConfig.model_validate(options)
        self.addon = ConsoleApi(
            config, AddonContext("console-api", state / "console-api", addons=lambda: addons)
        )
        addons["console-api"] = self.addon
        self.store_addon.context.addons = lambda: addons
        self.store = self.addon.context.platform_store()
        self.users = Users(self.store, self.clock)
        self.door: Door = make_door(config, self.store, addons, self.clock)
        self.clients: list[httpx.AsyncClient] = []

    def client(self, source: str = "192.0.2.1", **headers: str) -> httpx.AsyncClient:
        """Someone with a cookie jar of his own."""
        transport = httpx.ASGITransport(
            self.door, raise_app_exceptions=False, client=(source, 50000)
        )
        client = httpx.AsyncClient(
            transport=transport, base_url="http://localhost/api/v1", headers=headers
        )
        self.clients.append(client)
        return client

    async def logged_in(self, user: str = "root", source: str = "192.0.2.1") -> httpx.AsyncClient:
        client = self.client(source)
        answer = await client.post("/session", json={"user": user, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        return client

    def rows(self, table: str) -> list[dict[str, Any]]:
        with self.store.read() as connection:
            return [
                dict(row) for row in connection.execute(text(f"SELECT * FROM {table}")).mappings()
            ]

    def audited(self) -> list[dict[str, Any]]:
        return sorted(self.rows("store_sql_audit"), key=lambda row: row["seq"])


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, cheap: None) -> Path:
    """The state of a console in which `root` administers the platform."""
    state = tmp_path_factory.mktemp("template")
    console = Console(state)
    assert console.users.first("root", PASSWORD) == PASSWORD
    console.store_addon.store.database.close()
    return state


@pytest.fixture
def state(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "state")
    return tmp_path / "state"


@pytest.fixture
async def console(state: Path) -> AsyncIterator[Console]:
    console = Console(state)
    yield console
    for client in console.clients:
        await client.aclose()
    console.store_addon.store.database.close()
