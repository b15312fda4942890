"""Fixtures of the kit. Loaded by pytest in every project that has Tidegate installed: light."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tidegate.api import Exchange

    from .clock import Clock


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
