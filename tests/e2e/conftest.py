"""Every test here that takes `carrier` runs on both: an addon can't tell which one it is on."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["engine", "lane"])
def carrier(request: pytest.FixtureRequest) -> str:
    return str(request.param)
