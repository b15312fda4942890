"""Whose a host and path is: a team's service can't take requests from another team's.

First come, first served: within a team's own scope, a service that is made or moved is refused
where a request could be for it and for a service of another team: at the same host, or one that a
wildcard of either takes in, and at the same path, above it or below it. Methods don't matter.
Platform administrators, and `tidegate apply`, may place services as they like.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, select

from .errors import StoreError
from .tables import service


def require_free(connection: Connection, row: Mapping[str, Any]) -> None:
    """Refuse the service `row`, of a team's, with `host_taken`."""
    c = service.c
    others = select(c.hosts, c.route).where(c.team_id != row["team_id"])
    for hosts, route in connection.execute(others):
        if paths_overlap(row["route"], route) and hosts_overlap(row["hosts"], hosts):
            raise StoreError(
                "host_taken",
                f"requests to {row['path']} on such a host may be another team's: a platform"
                " administrator can place the service there",
            )


def hosts_overlap(some: Iterable[str], others: Iterable[str]) -> bool:
    """Whether there is a host that both take; none named: all hosts."""
    theirs = [host.lower() for host in others] or ["*"]
    return any(_one(host.lower(), other) for host in list(some) or ["*"] for other in theirs)


def _one(host: str, other: str) -> bool:
    if host == other:
        return True
    # "*" and "*.example.com": what stands behind the asterisk ends all that they take
    return (host[0] == "*" and other.endswith(host[1:])) or (
        other[0] == "*" and host.endswith(other[1:])
    )


def paths_overlap(route: str, other: str) -> bool:
    """Whether one is the beginning of the other, as `ServiceSpec.route` writes paths."""
    pairs = zip(route.split("/")[1:], other.split("/")[1:], strict=False)
    return all(mine == theirs or "{}" in {mine, theirs} for mine, theirs in pairs)
