"""Scopes of tokens: which of its owner's rights a token gives.

    platform            what a platform administrator may
    ROLE                at most this role, in each team in which the owner is a member
    ROLE:TEAM_ID        at most this role, in this team

A token never gives more than its owner has at the time: his roles are looked up at each request.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final

from pydantic import StringConstraints

from tidegate.api.console import RANK, Caller
from tidegate.api.store import Role, Roles

PLATFORM: Final = "platform"

Scope = Annotated[
    str,
    StringConstraints(
        pattern=r"^(platform|(viewer|developer|admin|owner)(:[A-Za-z0-9_-]{1,64})?)$"
    ),
]


def reduced(roles: Roles, scopes: Iterable[str]) -> Roles:
    """What is left of a user's roles under the scopes of a token."""
    admin, teams = False, dict[str, Role]()

    def give(team: str, own: Role, wanted: Role) -> None:
        role = min(own, wanted, key=RANK.__getitem__)
        if team not in teams or RANK[role] > RANK[teams[team]]:
            teams[team] = role

    for scope in scopes:
        if scope == PLATFORM:
            admin = admin or roles.admin
            continue
        role, _, team = scope.partition(":")
        for each, own in roles.teams.items():
            if team in ("", each):
                give(each, own, role)  # type: ignore[arg-type]
        if team and roles.admin:
            give(team, "owner", role)  # type: ignore[arg-type]
    return Roles(admin, teams)


def exceeding(scopes: Iterable[str], caller: Caller) -> str | None:
    """The first scope that gives more than `caller` has, if one does."""
    if caller.admin:
        return None
    for scope in scopes:
        role, _, team = scope.partition(":")
        own = [caller.roles[team]] if team in caller.roles else []
        if not team and scope != PLATFORM:
            own = list(caller.roles.values())
        if not own or max(RANK[each] for each in own) < RANK[role]:
            return scope
    return None
