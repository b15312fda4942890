"""The catalogue: the services that a caller finds, whosever they are."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from tidegate.api.console import Caller, CallerDep, Id, Listing, PageDep
from tidegate_store_sql.change import Row
from tidegate_store_sql.platform import Platform

from . import models


def seen_by(caller: Caller) -> dict[str, Any]:
    """What decides which services a caller finds."""
    return {"teams": None if caller.admin else tuple(caller.roles)}


def add_catalogue(router: APIRouter, platform: Platform) -> None:
    """Add its routes."""

    @router.get("/catalogue", name="list_catalogue")
    def listing(caller: CallerDep, page: PageDep) -> Listing[models.Offer]:
        """List public services; to members of a team, internal ones and the team's own too."""
        found = platform.store.catalogue(
            **seen_by(caller), after=page.cursor, limit=page.limit, search=page.search
        )
        return page.listing([offer(models.Offer, row) for row in found.items], found.next)

    @router.get("/catalogue/{id}", name="get_catalogue")
    def one(id: Id, caller: CallerDep) -> models.DocumentedOffer:
        """One service, with its documentation."""
        return offer(models.DocumentedOffer, platform.store.offer(id, **seen_by(caller)))


def offer[M: models.Offer](model: type[M], row: Row) -> M:
    """A row of the catalogue as callers see it."""
    return models.told(model, row, ref=f"{row['team']}/{row['name']}")
