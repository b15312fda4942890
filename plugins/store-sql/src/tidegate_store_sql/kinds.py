"""The kinds of things in the store, and how they hang together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Column, ColumnElement, Table, or_, true

from . import specs, tables


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """One kind.

    Attributes:
        name: as in `platform.toml`, in audits and in addresses.
        table: where its rows are.
        spec: what people say of one.
        key: the column that tells one from its siblings.
        parent: the column that names what it is part of; "" at the top.
        hidden: columns whose values are never told.
    """

    name: str
    table: Table
    spec: type[specs.Spec]
    key: str = "name"
    parent: str = "team_id"
    hidden: frozenset[str] = frozenset()
    children: tuple[Kind, ...] = ()

    @property
    def team(self) -> Column[str]:
        """The column that says whose a row is."""
        column: Column[str] = self.table.c["id" if self.name == "team" else "team_id"]
        return column


MEMBER: Final = Kind("member", tables.member, specs.MemberSpec, key="user")
SERVICE: Final = Kind("service", tables.service, specs.ServiceSpec)
KEY: Final = Kind(
    "key", tables.credential, specs.KeySpec, parent="application_id", hidden=frozenset({"hash"})
)
SUBSCRIPTION: Final = Kind(
    "subscription",
    tables.subscription,
    specs.SubscriptionSpec,
    key="service_id",
    parent="application_id",
)
APPLICATION: Final = Kind(
    "application", tables.application, specs.ApplicationSpec, children=(KEY, SUBSCRIPTION)
)
PROVIDER_KEY: Final = Kind(
    "provider_key",
    tables.provider_key,
    specs.ProviderKeySpec,
    parent="provider_id",
    hidden=frozenset({"sealed"}),
)
PROVIDER: Final = Kind("provider", tables.provider, specs.ProviderSpec, children=(PROVIDER_KEY,))
POLICY: Final = Kind("policy", tables.policy, specs.PolicySpec)
TEAM: Final = Kind(
    "team",
    tables.team,
    specs.TeamSpec,
    parent="",
    children=(MEMBER, SERVICE, APPLICATION, PROVIDER, POLICY),
)
ADMIN: Final = Kind("admin", tables.admin, specs.AdminSpec, key="user", parent="")

KINDS: Final = {
    kind.name: kind
    for kind in (
        *(TEAM, MEMBER, SERVICE, APPLICATION, KEY, SUBSCRIPTION),
        *(PROVIDER, PROVIDER_KEY, POLICY, ADMIN),
    )
}


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose rows a query may see and change. There is no query without one.

    Made by `Scope.of(team)` or taken as `PLATFORM`; a team's sees what is the team's, and the
    subscriptions to its services.
    """

    team: str | None
    """Id of the team; None: every team's."""

    @classmethod
    def of(cls, team: str) -> Scope:
        """One team's, by its id."""
        if not team:
            raise ValueError("a scope needs a team")
        return cls(team)

    def owns(self, kind: Kind) -> ColumnElement[bool]:
        """The condition on rows that may be changed."""
        if self.team is None:
            return true()
        if kind is ADMIN:
            return ~true()
        return kind.team == self.team

    def sees(self, kind: Kind) -> ColumnElement[bool]:
        """The condition on rows that may be read."""
        if self.team is not None and kind is SUBSCRIPTION:
            return or_(self.owns(kind), tables.subscription.c.service_team_id == self.team)
        return self.owns(kind)


PLATFORM: Final = Scope(None)
"""Every team's: for platform administrators, and for the node itself."""
