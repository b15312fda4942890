"""Subscriptions: for the team that asks, and for the team that decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from tidegate.api.console import Caller, Id, IfMatch, Listing, PageDep, problems, require
from tidegate_store_sql.change import Row
from tidegate_store_sql.kinds import APPLICATION, SERVICE, SUBSCRIPTION, Scope
from tidegate_store_sql.platform import Platform
from tidegate_store_sql.store import Store

from . import models
from .models import Identifier
from .resources import actor, answered, given, made
from .teams import TEAM

PATH = f"{TEAM}/subscriptions"
ENDS: dict[str, str] = {"approve": "approved", "reject": "rejected", "revoke": "revoked"}
"""The status after each decision."""
Status = Literal["requested", "approved", "rejected", "revoked"]
Viewer = Annotated[Caller, require("viewer")]
Developer = Annotated[Caller, require("developer")]
Decider = Annotated[Caller, require("admin")]


def named(store: Store, rows: Sequence[Row]) -> list[Row]:
    """Subscriptions with the names of their applications and services."""
    services = store.refs(SERVICE, {row["service_id"] for row in rows})
    applications = store.refs(APPLICATION, {row["application_id"] for row in rows})
    return [
        {
            **row,
            "service": services.get(row["service_id"], ""),
            "application": applications.get(row["application_id"], ""),
        }
        for row in rows
    ]


def add_subscriptions(router: APIRouter, platform: Platform) -> None:
    """Add their routes."""
    _add_reading(router, platform)
    _add_asking(router, platform)
    for verb in ENDS:
        _add_deciding(router, platform, verb)


def _add_reading(router: APIRouter, platform: Platform) -> None:
    @router.get(PATH, name="list_subscription")
    def listing(
        team_id: Id,
        caller: Viewer,
        page: PageDep,
        status: Annotated[Status | None, Query()] = None,
        application_id: Annotated[Identifier | None, Query()] = None,
        service_id: Annotated[Identifier | None, Query()] = None,
    ) -> Listing[models.Subscription]:
        """List the team's own, and those to its services."""
        equal = given(status=status, application_id=application_id, service_id=service_id)
        store, whose = platform.store, Scope.of(team_id)
        found = store.page(whose, SUBSCRIPTION, after=page.cursor, limit=page.limit, **equal)
        rows = named(store, found.items)
        return page.listing([models.told(models.Subscription, row) for row in rows], found.next)

    @router.get(f"{PATH}/{{id}}", name="get_subscription")
    def one(team_id: Id, id: Id, caller: Viewer, response: Response) -> models.Subscription:
        """One of the team's own, or one to a service of it."""
        row = platform.store.get(Scope.of(team_id), SUBSCRIPTION, id)
        return answered(response, models.Subscription, *named(platform.store, [row]))


def _add_asking(router: APIRouter, platform: Platform) -> None:
    @router.post(PATH, name="subscribe", status_code=201, responses=problems(409))
    def subscribe(
        team_id: Id,
        caller: Developer,
        body: models.SubscriptionRequest,
        request: Request,
        response: Response,
    ) -> models.Subscription:
        """Ask for a service; where its approval is "auto", the right to it is given at once."""
        store, whose = platform.store, Scope.of(team_id)
        row = store.subscribe(
            actor(caller), whose, body.application_id, body.service_id, body.reason
        )
        return made(request.url.path, response, models.Subscription, *named(store, [row]))

    @router.delete(f"{PATH}/{{id}}", name="delete_subscription", status_code=204)
    def remove(team_id: Id, id: Id, caller: Developer, seen: IfMatch) -> None:
        """Give up a right to a service, or a wish for it: for the application's team."""
        whose = Scope.of(team_id)
        platform.store.delete(actor(caller), whose, SUBSCRIPTION, id, revision=seen)


def _add_deciding(router: APIRouter, platform: Platform, verb: str) -> None:
    @router.post(f"{PATH}/{{id}}/{verb}", name=f"{verb}_subscription", responses=problems(409))
    def decide(
        team_id: Id, id: Id, caller: Decider, body: models.Decision, response: Response
    ) -> models.Subscription:
        """Decide: for the team whose service it is."""
        store, whose = platform.store, Scope.of(team_id)
        row = store.decide(actor(caller), whose, id, ENDS[verb], body.decision)
        return answered(response, models.Subscription, *named(store, [row]))
