"""Lists, and making, reading, changing and removing of one kind of things: written once."""

# Annotations are evaluated here, not kept as texts: FastAPI reads those of functions within
# functions, and can't look their names up. So: no `from __future__ import annotations`.

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response

from tidegate.api.console import (
    Caller,
    Id,
    IfMatch,
    Listing,
    PageDep,
    etag,
    problems,
    require,
)
from tidegate.api.store import Actor, Role
from tidegate_store_sql.change import Row
from tidegate_store_sql.errors import StoreError
from tidegate_store_sql.kinds import PLATFORM, Kind, Scope
from tidegate_store_sql.platform import Platform
from tidegate_store_sql.specs import Spec
from tidegate_store_sql.store import Store

from .models import Stored, told

type Judge = Callable[[Caller, str, Row | None, Spec | None], None]
"""Refuses a change in a team (an id) that its caller may not make: of what a row was, to what a
spec says; None: there is none."""


def anything(caller: Caller, team: str, row: Row | None, spec: Spec | None) -> None:
    """All that the role may."""


def no_filters() -> dict[str, str]:
    """Nothing but the name is searched by."""
    return {}


@dataclass(frozen=True)
class Resource:
    """One kind of things of a team's, and who may do what with them.

    Attributes:
        path: of the list.
        kind: of the store.
        spec: what a caller says of one; None: this resource is made by routes of its own.
        model: what is told of one.
        listed: what a list tells of one.
        writes: the role that changes them. All members read.
        above: what they are part of; None: the team itself.
        judge: what a role alone does not decide.
        filters: a dependency that gives column values.
    """

    path: str
    kind: Kind
    spec: type[Spec] | None
    model: type[Stored]
    listed: type[Stored]
    writes: Role
    above: Kind | None = None
    judge: Judge = anything
    filters: Callable[..., dict[str, str]] = no_filters

    def parent(self, platform: Platform) -> Any:
        """A dependency: the id of what they are part of. 404 where that is another team's."""
        above = self.above
        if above is None:
            return Depends(_team)

        def found(
            team_id: Id,
            id: Annotated[str, Path(alias=f"{above.name}_id", pattern=r"^[A-Za-z0-9_-]{1,64}$")],
        ) -> str:
            return str(platform.store.get(Scope.of(team_id), above, id)["id"])

        return Depends(found)


def _team(team_id: Id) -> str:
    return team_id


def add_resource(router: APIRouter, platform: Platform, resource: Resource) -> None:
    """Add its routes."""
    _add_reading(router, platform, resource)
    if resource.spec is not None:
        _add_making(router, platform, resource, resource.spec)
        _add_changing(router, platform, resource, resource.spec)
    _add_removing(router, platform, resource)


def _add_reading(router: APIRouter, platform: Platform, resource: Resource) -> None:
    kind, model, listed = resource.kind, resource.model, resource.listed
    reader, parent = require("viewer"), resource.parent(platform)

    @router.get(resource.path, name=f"list_{kind.name}")
    def listing(
        team_id: Id,
        caller: Annotated[Caller, reader],
        above: Annotated[str, parent],
        page: PageDep,
        equal: Annotated[Mapping[str, str], Depends(resource.filters)],
    ) -> Listing[listed]:  # type: ignore[valid-type]
        found = platform.store.page(
            Scope.of(team_id),
            kind,
            after=page.cursor,
            limit=page.limit,
            search=page.search,
            **{kind.parent: above, **equal},
        )
        return page.listing([told(listed, row) for row in found.items], found.next)

    @router.get(f"{resource.path}/{{id}}", name=f"get_{kind.name}")
    def one(
        team_id: Id,
        id: Id,
        caller: Annotated[Caller, reader],
        above: Annotated[str, parent],
        response: Response,
    ) -> model:  # type: ignore[valid-type]
        return answered(response, model, row_of(platform.store, kind, team_id, above, id))


def _add_making(
    router: APIRouter, platform: Platform, resource: Resource, spec: type[Spec]
) -> None:
    kind, model, parent = resource.kind, resource.model, resource.parent(platform)

    @router.post(
        resource.path,
        name=f"create_{kind.name}",
        status_code=201,
        responses=problems(404, 409),
    )
    def make(
        team_id: Id,
        caller: Annotated[Caller, require(resource.writes)],
        above: Annotated[str, parent],
        body: spec,  # type: ignore[valid-type]
        request: Request,
        response: Response,
    ) -> model:  # type: ignore[valid-type]
        resource.judge(caller, team_id, None, body)
        row = platform.store.create(actor(caller), scope(caller, team_id), body, above)
        return made(request.url.path, response, model, row)


def _add_changing(
    router: APIRouter, platform: Platform, resource: Resource, spec: type[Spec]
) -> None:
    kind, model, parent = resource.kind, resource.model, resource.parent(platform)

    @router.put(f"{resource.path}/{{id}}", name=f"replace_{kind.name}", responses=problems(409))
    def change(
        team_id: Id,
        id: Id,
        caller: Annotated[Caller, require(resource.writes)],
        above: Annotated[str, parent],
        seen: IfMatch,
        body: spec,  # type: ignore[valid-type]
        response: Response,
    ) -> model:  # type: ignore[valid-type]
        row = row_of(platform.store, kind, team_id, above, id)
        resource.judge(caller, team_id, row, body)
        revision = row["revision"] if seen is None else seen  # what was judged is what is changed
        by, whose = actor(caller), scope(caller, team_id)
        return answered(
            response, model, platform.store.update(by, whose, id, body, revision=revision)
        )


def _add_removing(router: APIRouter, platform: Platform, resource: Resource) -> None:
    kind, parent = resource.kind, resource.parent(platform)

    @router.delete(f"{resource.path}/{{id}}", name=f"delete_{kind.name}", status_code=204)
    def remove(
        team_id: Id,
        id: Id,
        caller: Annotated[Caller, require(resource.writes)],
        above: Annotated[str, parent],
        seen: IfMatch,
    ) -> None:
        row = row_of(platform.store, kind, team_id, above, id)
        resource.judge(caller, team_id, row, None)
        revision = row["revision"] if seen is None else seen
        platform.store.delete(actor(caller), scope(caller, team_id), kind, id, revision=revision)


def row_of(store: Store, kind: Kind, team: str, above: str, id: str) -> Row:
    """A row of a team's that is part of `above`. Raises `not_found`."""
    row = store.get(Scope.of(team), kind, id)
    if row[kind.parent] != above:
        raise StoreError("not_found", f"there is no such {kind.name}")
    return row


def actor(caller: Caller) -> Actor:
    """The caller as the audit names him."""
    return Actor(caller.user, caller.source, caller.request_id)


def scope(caller: Caller, team: str) -> Scope:
    """Whose things a caller changes who was found to have a role in the team."""
    return PLATFORM if caller.admin else Scope.of(team)


def answered[M: Stored](response: Response, model: type[M], row: Row) -> M:
    """A row as the body of an answer; its revision as the `ETag`."""
    response.headers["etag"] = etag(row["revision"])
    return told(model, row)


def made[M: Stored](path: str, response: Response, model: type[M], row: Row) -> M:
    """A row that was made now; `Location` says where it is: in the list at `path`."""
    response.headers["location"] = f"{path}/{row['id']}"
    return answered(response, model, row)


def given(**values: str | None) -> dict[str, str]:
    """The values that are given."""
    return {name: value for name, value in values.items() if value is not None}
