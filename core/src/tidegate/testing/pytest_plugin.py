"""Fixtures of the kit. Loaded by pytest in every project that has Tidegate installed: light."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_asyncio import fixture as async_fixture

    from tidegate.api import Exchange

    from .clock import Clock
    from .gateway import Gateway
    from .upstream import ScriptedUpstream
else:
    try:
        from pytest_asyncio import fixture as async_fixture
    except ImportError:  # a project without async tests has no use for the async fixtures
        async_fixture = pytest.fixture


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still until the test advances it."""
    from .clock import Clock

    return Clock()


@pytest.fixture
def exchange(clock: Clock) -> Exchange:
    """A plain `GET http://api.test/`; `make_exchange` makes others."""
    from .exchanges import make_exchange

    return make_exchange(clock=clock)


@async_fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    """A scripted upstream that answers `200 ok` until told otherwise."""
    from .upstream import ScriptedUpstream

    async with ScriptedUpstream() as server:
        yield server


@async_fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Gateway]]]:
    """Starts gateways: `running = await gateway(addons_toml, carrier="lane", env={…})`.

    All processes of each are gone when the test ends.
    """
    from .gateway import Gateway

    async with AsyncExitStack() as stack:
        started = 0

        async def start(config: str | None = None, **options: Any) -> Gateway:
            nonlocal started
            started += 1
            running = Gateway(tmp_path / f"gateway-{started}", config, **options)
            return await stack.enter_async_context(running)

        yield start
