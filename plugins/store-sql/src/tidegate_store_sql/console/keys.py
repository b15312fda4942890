"""Keys of applications."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response

from tidegate.api.console import Caller, Id, IfMatch, problems, require
from tidegate_store_sql import specs
from tidegate_store_sql.kinds import APPLICATION, KEY, Scope
from tidegate_store_sql.platform import Platform

from . import models
from .resources import Resource, actor, add_resource, answered, made, row_of
from .teams import TEAM

APPLICATIONS = f"{TEAM}/applications/{{application_id}}"
KEYS = Resource(
    f"{APPLICATIONS}/keys", KEY, None, models.Key, models.Key, "developer", above=APPLICATION
)
Developer = Annotated[Caller, require("developer")]


def add_keys(router: APIRouter, platform: Platform) -> None:
    """Add the routes of keys."""
    add_resource(router, platform, KEYS)

    @router.post(KEYS.path, name="issue_key", status_code=201, responses=problems(409))
    def issue(
        team_id: Id,
        application_id: Id,
        caller: Developer,
        body: specs.KeyRequest,
        request: Request,
        response: Response,
    ) -> models.IssuedKey:
        """Make a key. It is told this once."""
        whose = Scope.of(team_id)
        row, key = platform.store.issue_key(actor(caller), whose, application_id, body)
        return made(request.url.path, response, models.IssuedKey, {**row, "key": key})

    @router.put(f"{KEYS.path}/{{id}}", name="replace_key", responses=problems(409))
    def change(
        team_id: Id,
        application_id: Id,
        id: Id,
        caller: Developer,
        seen: IfMatch,
        body: specs.KeyRequest,
        response: Response,
    ) -> models.Key:
        """Change what a key is called and limited to."""
        row_of(platform.store, KEY, team_id, application_id, id)
        by, whose = actor(caller), Scope.of(team_id)
        row = platform.store.update(by, whose, id, body, revision=seen)
        return answered(response, models.Key, row)

    _add_endings(router, platform)


def _add_endings(router: APIRouter, platform: Platform) -> None:
    @router.post(
        f"{KEYS.path}/{{id}}/rotate",
        name="rotate_key",
        status_code=201,
        responses=problems(409),
    )
    def rotate(
        team_id: Id,
        application_id: Id,
        id: Id,
        caller: Developer,
        body: models.KeyRotation,
        request: Request,
        response: Response,
    ) -> models.IssuedKey:
        """Make a key with the same limits; the old one ends after the overlap."""
        row_of(platform.store, KEY, team_id, application_id, id)
        row, key = platform.store.rotate_key(
            actor(caller), Scope.of(team_id), id, body.name, overlap=body.overlap
        )
        keys = request.url.path.removesuffix(f"/{id}/rotate")
        return made(keys, response, models.IssuedKey, {**row, "key": key})

    @router.post(f"{KEYS.path}/{{id}}/revoke", name="revoke_key")
    def revoke(
        team_id: Id, application_id: Id, id: Id, caller: Developer, response: Response
    ) -> models.Key:
        """End a key now, for good."""
        row_of(platform.store, KEY, team_id, application_id, id)
        row = platform.store.revoke_key(actor(caller), Scope.of(team_id), id)
        return answered(response, models.Key, row)
