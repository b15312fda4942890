"""What a team has: members, services, applications, providers and their keys, policies."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from tidegate.api.console import RANK, Caller, ConsoleError
from tidegate.api.store import Role
from tidegate_store_sql import specs
from tidegate_store_sql.change import Row
from tidegate_store_sql.kinds import (
    APPLICATION,
    MEMBER,
    POLICY,
    PROVIDER,
    PROVIDER_KEY,
    SERVICE,
)
from tidegate_store_sql.platform import Platform

from . import models
from .resources import Resource, add_resource, given

TEAM = "/teams/{team_id}"


def judge_member(caller: Caller, team: str, row: Row | None, spec: specs.Spec | None) -> None:
    """Nobody gives a role, or takes one, that is higher than his own."""
    roles: list[Role] = [] if row is None else [row["role"]]
    if isinstance(spec, specs.MemberSpec):
        roles.append(spec.role)
    own = caller.role(team)
    if own is None or any(RANK[role] > RANK[own] for role in roles):
        raise ConsoleError(403, "scope_exceeds_creator", "The role is higher than your own.")


def member_filters(role: Annotated[Role | None, Query()] = None) -> dict[str, str]:
    """By role."""
    return given(role=role)


def service_filters(
    kind: Annotated[Literal["rest", "ai"] | None, Query()] = None,
    visibility: Annotated[Literal["private", "internal", "public"] | None, Query()] = None,
) -> dict[str, str]:
    """By kind and by visibility."""
    return given(kind=kind, visibility=visibility)


RESOURCES = (
    Resource(
        f"{TEAM}/members", MEMBER, specs.MemberSpec, models.Member, models.Member, "admin",
        judge=judge_member, filters=member_filters,
    ),
    Resource(
        f"{TEAM}/services", SERVICE, specs.ServiceSpec, models.Service, models.ListedService,
        "admin", filters=service_filters,
    ),
    Resource(
        f"{TEAM}/applications", APPLICATION, specs.ApplicationSpec, models.Application,
        models.Application, "developer",
    ),
    Resource(
        f"{TEAM}/providers", PROVIDER, specs.ProviderSpec, models.Provider, models.Provider,
        "admin",
    ),
    Resource(
        f"{TEAM}/providers/{{provider_id}}/keys", PROVIDER_KEY, specs.ProviderKeySpec,
        models.ProviderKey, models.ProviderKey, "admin", above=PROVIDER,
    ),
    Resource(
        f"{TEAM}/policies", POLICY, specs.PolicySpec, models.Policy, models.Policy, "admin",
    ),
)  # fmt: skip


def add_teams_own(router: APIRouter, platform: Platform) -> None:
    """Add the routes of what a team has."""
    for resource in RESOURCES:
        add_resource(router, platform, resource)
