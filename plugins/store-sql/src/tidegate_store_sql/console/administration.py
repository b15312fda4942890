"""What is the platform's: teams, administrators, the audit, and the platform as a file."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse

from tidegate.api.console import (
    Administrator,
    Caller,
    CallerDep,
    ConsoleError,
    Id,
    IfMatch,
    Listing,
    Page,
    PageDep,
    Word,
    problems,
    require,
)
from tidegate_store_sql import specs
from tidegate_store_sql.applying import Options, apply, export
from tidegate_store_sql.document import parse, render
from tidegate_store_sql.kinds import ADMIN, PLATFORM, TEAM, Scope
from tidegate_store_sql.platform import Platform

from . import models
from .resources import actor, answered, given, made, scope


class TomlResponse(PlainTextResponse):
    """A text of TOML."""

    media_type = "application/toml"


def add_teams(router: APIRouter, platform: Platform) -> None:
    """Add the routes of teams themselves."""

    @router.get("/teams", name="list_team")
    def listing(caller: CallerDep, page: PageDep) -> Listing[models.Team]:
        """List the caller's teams; to a platform administrator, all."""
        ids = None if caller.admin else tuple(caller.roles)
        found = platform.store.teams(ids, after=page.cursor, limit=page.limit, search=page.search)
        return page.listing([models.told(models.Team, row) for row in found.items], found.next)

    @router.post("/teams", name="create_team", status_code=201, responses=problems(409))
    def make(
        caller: Administrator, body: specs.TeamSpec, request: Request, response: Response
    ) -> models.Team:
        """Make a team."""
        row = platform.store.create(actor(caller), PLATFORM, body)
        return made(request.url.path, response, models.Team, row)

    _add_one_team(router, platform)


def _add_one_team(router: APIRouter, platform: Platform) -> None:
    @router.get("/teams/{team_id}", name="get_team")
    def one(
        team_id: Id, caller: Annotated[Caller, require("viewer")], response: Response
    ) -> models.Team:
        """One team."""
        return answered(response, models.Team, platform.store.get(PLATFORM, TEAM, team_id))

    @router.put("/teams/{team_id}", name="replace_team", responses=problems(409))
    def change(
        team_id: Id,
        caller: Annotated[Caller, require("owner")],
        seen: IfMatch,
        body: specs.TeamSpec,
        response: Response,
    ) -> models.Team:
        """Change a team. Its name is for platform administrators: policies may go by it."""
        row = platform.store.get(PLATFORM, TEAM, team_id)
        if body.name != row["name"]:
            caller.must_administer()
        revision = row["revision"] if seen is None else seen
        by, whose = actor(caller), scope(caller, team_id)
        row = platform.store.update(by, whose, team_id, body, revision=revision)
        return answered(response, models.Team, row)

    @router.delete("/teams/{team_id}", name="delete_team", status_code=204)
    def remove(team_id: Id, caller: Administrator, seen: IfMatch) -> None:
        """Remove a team and all that is its own."""
        platform.store.delete(actor(caller), PLATFORM, TEAM, team_id, revision=seen)


def add_admins(router: APIRouter, platform: Platform) -> None:
    """Add the routes of platform administrators."""

    @router.get("/admins", name="list_admin")
    def listing(caller: Administrator, page: PageDep) -> Listing[models.Admin]:
        """List platform administrators."""
        found = platform.store.page(
            PLATFORM, ADMIN, after=page.cursor, limit=page.limit, search=page.search
        )
        return page.listing([models.told(models.Admin, row) for row in found.items], found.next)

    @router.post("/admins", name="create_admin", status_code=201, responses=problems(409))
    def make(
        caller: Administrator, body: specs.AdminSpec, request: Request, response: Response
    ) -> models.Admin:
        """Make a user a platform administrator."""
        row = platform.store.create(actor(caller), PLATFORM, body)
        return made(request.url.path, response, models.Admin, row)

    @router.get("/admins/{id}", name="get_admin")
    def one(id: Id, caller: Administrator, response: Response) -> models.Admin:
        """One platform administrator."""
        return answered(response, models.Admin, platform.store.get(PLATFORM, ADMIN, id))

    @router.delete("/admins/{id}", name="delete_admin", status_code=204, responses=problems(409))
    def remove(id: Id, caller: Administrator, seen: IfMatch) -> None:
        """Take the platform from an administrator; the last one stays."""
        platform.store.delete(actor(caller), PLATFORM, ADMIN, id, revision=seen)


def add_audit(router: APIRouter, platform: Platform) -> None:
    """Add the routes of the audit."""

    def entries(
        whose: Scope, page: Page, actor: str | None, action: str | None
    ) -> Listing[models.AuditEntry]:
        found = platform.store.audit(
            whose,
            after=page.cursor,
            limit=page.limit,
            search=page.search,
            **given(actor=actor, action=action),
        )
        return page.listing(
            [models.told(models.AuditEntry, row) for row in found.items], found.next
        )

    @router.get("/audit", name="list_audit")
    def all_of_it(
        caller: Administrator,
        page: PageDep,
        actor: Annotated[Word | None, Query()] = None,
        action: Annotated[Word | None, Query()] = None,
    ) -> Listing[models.AuditEntry]:
        """List changes, the newest first. `search` is a part of what was changed."""
        return entries(PLATFORM, page, actor, action)

    @router.get("/audit/verify", name="verify_audit")
    def verify(caller: Administrator) -> models.Verdict:
        """Check the chain from its first entry on."""
        return models.Verdict(**asdict(platform.store.verify()))

    @router.get("/teams/{team_id}/audit", name="list_audit_of_team")
    def of_team(
        team_id: Id,
        caller: Annotated[Caller, require("admin")],
        page: PageDep,
        actor: Annotated[Word | None, Query()] = None,
        action: Annotated[Word | None, Query()] = None,
    ) -> Listing[models.AuditEntry]:
        """List changes of a team, the newest first."""
        return entries(Scope.of(team_id), page, actor, action)


def add_file(router: APIRouter, platform: Platform) -> None:
    """Add the routes of the platform as a file."""

    @router.get(
        "/export",
        name="export_platform",
        response_class=TomlResponse,
        responses={200: {"content": {"application/toml": {"schema": {"type": "string"}}}}},
    )
    def exported(caller: Administrator) -> Response:
        """The platform as `tidegate apply` takes it. Secrets are left out."""
        return TomlResponse(render(export(platform.store)))

    @router.post("/apply", name="apply_platform", responses=problems(404, 409))
    def applied(caller: Administrator, body: models.ApplyRequest) -> models.Applied:
        """Make the platform as a document says: all of it, or nothing; what was changed."""
        options = Options(prune=body.prune, dry_run=body.dry_run)
        document = parse(body.document, variables={})
        admins = () if document.admins is None and body.prune else document.admins
        if admins is not None and caller.user not in admins:
            raise ConsoleError(
                409, "last_admin", "The document takes the platform from you: keep yourself in it."
            )
        entries = apply(platform.store, actor(caller), document, options)
        changes = [models.Change(**{k: getattr(entry, k) for k in models.Change.model_fields})
                   for entry in entries]  # fmt: skip
        return models.Applied(dry_run=body.dry_run, changes=changes)
