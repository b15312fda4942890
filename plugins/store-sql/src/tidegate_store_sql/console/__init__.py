"""The store's routes of the console. Imported where there is one: only it brings FastAPI."""

from __future__ import annotations

from fastapi import APIRouter

from tidegate_store_sql.platform import Platform

from .administration import add_admins, add_audit, add_file, add_teams
from .catalogue import add_catalogue
from .keys import add_keys
from .subscriptions import add_subscriptions
from .teams import add_teams_own


def add_routes(router: APIRouter, platform: Platform) -> None:
    """Add them all."""
    for add in (
        *(add_teams, add_teams_own, add_keys, add_subscriptions),
        *(add_catalogue, add_admins, add_audit, add_file),
    ):
        add(router, platform)
