"""The world of these tests is made once, and each test has a copy."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from tidegate_console_api import passwords
from tidegate_console_api.door import Door
from tidegate_store_sql import StoreSql

from .world import World, build, opened


@pytest.fixture(scope="session", autouse=True)
def cheap() -> Iterator[None]:
    """Passwords hashed cheaply."""
    hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_hasher", hasher)
        patch.setattr(passwords, "_nobody", hasher.hash("nobody"))
        yield


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, cheap: None) -> Path:
    state = tmp_path_factory.mktemp("world")
    asyncio.run(build(state)).write(state)
    return state


@pytest.fixture
def state(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "state")
    return tmp_path / "state"


@pytest.fixture
def world(state: Path) -> World:
    return World.read(state)


@pytest.fixture
def console(state: Path) -> Iterator[tuple[Door, StoreSql]]:
    with opened(state) as found:
        yield found
