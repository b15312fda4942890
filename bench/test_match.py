"""Route lookup: flat from 1 to 10,000 routes.

uv run pytest bench/test_match.py --benchmark-columns=min,median,rounds
"""

from __future__ import annotations

import pytest

from tidegate.api import Match, RouteEntry, RouteTable


@pytest.mark.parametrize("routes", [1, 100, 10_000])
@pytest.mark.parametrize("kind", ["literal", "params", "hosts"])
def test_lookup(benchmark, kind, routes):
    last = routes - 1
    host, path = "api.example.com", f"/v1/service-{last}/items/7"
    if kind == "hosts":
        host = f"a.team-{last}.example.com"
        rows = [(f"*.team-{n}.example.com", "/v1") for n in range(routes)]
    else:
        end = "/items/{id}" if kind == "params" else ""
        rows = [("*", f"/v1/service-{n}{end}") for n in range(routes)]
    table = RouteTable([RouteEntry(n, *row) for n, row in enumerate(rows)])
    found = benchmark(table.match, host, path, "GET")
    assert isinstance(found, Match)
    assert found.value == last
