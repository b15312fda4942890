"""Fixtures of the kit. Loaded by pytest in every project that has Tidegate installed: light."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_asyncio import fixture as async_fixture

    from tidegate.api import Exchange

    from .cassettes import Cassettes
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


UNUSED = pytest.StashKey[list[Path]]()
"""The cassettes that no test of this session has asked for."""

CASSETTES = pytest.StashKey["Cassettes"]()
"""What the fixture gave to a test."""


@pytest.fixture
def cassette(request: pytest.FixtureRequest) -> Iterator[Cassettes]:
    """Records a test's HTTP calls once, plays them ever after: see `tidegate.testing.cassettes`.

    `base_url = cassette("https://api.example.com")`.
    """
    from .cassettes import VARIABLE, action_of, opened

    try:
        action_of(os.environ.get(VARIABLE))
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    unused = request.config.stash.setdefault(UNUSED, [])
    for cassettes in opened(request.path, request.node.name, unused):
        request.node.stash[CASSETTES] = cassettes
        yield cassettes


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell a test that failed what it asked for in vain."""
    report = yield
    cassettes = item.stash.get(CASSETTES, None)
    failed = call.when == "call" and report.failed
    if failed and cassettes is not None and (misses := cassettes.misses()):
        report.sections.append(("requests without a cassette", misses))
    return report


@pytest.hookimpl
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand what a worker of pytest-xdist has noted to the process that reports."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["tidegate_unused"] = [str(p) for p in session.config.stash.get(UNUSED, [])]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take it from the worker."""
    told = getattr(node, "workeroutput", {}).get("tidegate_unused", [])
    node.config.stash.setdefault(UNUSED, []).extend(Path(p) for p in told)


@pytest.hookimpl
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Name the cassettes that were not used."""
    unused = config.stash.get(UNUSED, [])
    if unused:
        terminalreporter.section("unused cassettes")
        for path in sorted(unused):
            terminalreporter.line(os.path.relpath(path, config.rootpath))
