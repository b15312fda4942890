"""Routes of the console: who calls, what he may do, and what answers look like.

For `console_routes(router)`. This module needs FastAPI, which the plugin that brings the console
depends on, and core does not. So does every module of routes: import yours in the hook, not at
the top of the plugin. Whoever calls was authenticated before; what he may do is for each route to
require. Routes in plain `def` run in a thread and may block.

>>> @router.patch("/teams/{team_id}/pets/{id}", responses=problems(409))
... def rename(
...     team_id: Id, id: Id, pet: PetSpec, seen: IfMatch, response: Response,
...     caller: Annotated[Caller, require("developer")],
... ) -> Pet:
...     row = pets.update(team_id, id, pet, seen)  # 412 "revision_conflict" where it has changed
...     response.headers["etag"] = etag(row.revision)
...     return row
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import Depends, Header, Path, Query, Request, Response
from pydantic import BaseModel, StringConstraints

from .store import Role

RANK: Final[Mapping[str, int]] = {"viewer": 1, "developer": 2, "admin": 3, "owner": 4}
"""The roles in their order; a higher number includes the lower."""

Id = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""A parameter of the path that is an id."""


# -- errors -------------------------------------------------------------------------------------


class Problem(BaseModel):
    """The body of every error: problem details (RFC 9457), as `application/problem+json`."""

    type: str = "about:blank"
    title: str
    """Of the status."""
    status: int
    detail: str
    """A sentence for people. May change."""
    code: str
    """Stable, snake_case."""
    request_id: str
    """As in the header `X-Request-Id`, and in the audit."""
    errors: list[dict[str, Any]] | None = None
    """Of code "invalid": what is wrong where (`loc`, `msg`, `type`)."""


class ConsoleError(Exception):
    """Ends a request with a `Problem`. Tell no secret in it.

    >>> raise ConsoleError(409, "already_exists", "There is a pet of this name.")
    """

    def __init__(
        self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route: the errors that are its own, for the OpenAPI.

    The console adds those that follow from a route's parameters: 401 and 403, 404 where the path
    has a parameter, 412 and 428 with `IfMatch`, 413 with a body, 422 with a body or a parameter,
    and 400 and 503 everywhere.
    """
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {"application/problem+json": {"schema": schema}},
        }
        for status in statuses
    }


# -- who calls ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and what he may do: by his own roles, or by fewer that a token gives him.

    Attributes:
        user: his name, as members and admins of the store have it.
        admin: whether he administers the platform; then he may do all in every team.
        roles: his role by team id.
        source: address that he calls from, for the audit.
        request_id: of this request, for the audit.
        scopes: of the token that he calls with; None: it is his session.
    """

    user: str
    admin: bool = False
    roles: Mapping[str, Role] = field(default_factory=dict)
    source: str = ""
    request_id: str = ""
    scopes: tuple[str, ...] | None = None

    def role(self, team: str) -> Role | None:
        """His role in a team (an id), "owner" for a platform administrator; None: no member."""
        return "owner" if self.admin else self.roles.get(team)

    def may(self, role: Role, team: str) -> bool:
        """Whether he has `role`, or a higher one, in a team."""
        own = self.role(team)
        return own is not None and RANK[own] >= RANK[role]

    def must(self, role: Role, team: str, *, what: str = "team") -> None:
        """Refuse him who may not: 404 where he is no member of the team, 403 where his role is
        too low. `what`: what he asked for, such as "service"."""
        if self.role(team) is None:
            raise ConsoleError(404, "not_found", f"There is no such {what}.")
        if not self.may(role, team):
            raise ConsoleError(403, "forbidden", f"This needs the role {role} in the team.")

    def must_administer(self) -> None:
        """Refuse him with 403 who does not administer the platform."""
        if not self.admin:
            raise ConsoleError(403, "forbidden", "This is for platform administrators.")


def get_caller(request: Request) -> Caller:
    """Who calls. For `CallerDep`; in tests, `app.dependency_overrides` may replace it."""
    caller: Caller | None = getattr(request.state, "caller", None)
    if caller is None:
        raise ConsoleError(401, "unauthenticated", "Log in, or send a token.")
    return caller


CallerDep = Annotated[Caller, Depends(get_caller)]
"""A parameter that is the caller, whatever he may do: the route judges by `caller.must(…)`."""


def require(role: Role) -> Any:
    """A dependency that is the caller, who has `role` in the team that the path's `team_id` names.

    >>> caller: Annotated[Caller, require("admin")]
    """

    def checked(team_id: Id, caller: CallerDep) -> Caller:
        caller.must(role, team_id)
        return caller

    return Depends(checked)


def _administrator(caller: CallerDep) -> Caller:
    caller.must_administer()
    return caller


Administrator = Annotated[Caller, Depends(_administrator)]
"""A parameter that is the caller, who administers the platform."""


# -- lists --------------------------------------------------------------------------------------


Word = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""A text in a query, without control characters."""


class Listing[T](BaseModel):
    """A page of a list."""

    items: list[T]
    next: str | None = None
    """The `cursor` of the next page; null: this is the last."""


class Page:
    """Which part of a list is asked for. A parameter of this type, as `PageDep`."""

    def __init__(
        self,
        request: Request,
        response: Response,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        cursor: Annotated[str, Query(description="The `next` of the page before."),
                          StringConstraints(max_length=1000, pattern="^[A-Za-z0-9_=-]*$")] = "",
        search: Annotated[Word, Query(description="A part of the name.")] = "",
    ) -> None:  # fmt: skip
        self.limit = limit
        self.cursor = cursor
        self.search = search
        self._url = request.url
        self._response = response

    def listing[T](self, items: list[T], next: str | None) -> Listing[T]:
        """The answer; its `Link` header names the next page too (RFC 8288)."""
        if next:
            url = self._url.include_query_params(cursor=next)
            self._response.headers["link"] = f'<{url.path}?{url.query}>; rel="next"'
        return Listing(items=items, next=next or None)


PageDep = Annotated[Page, Depends(Page)]


# -- optimistic concurrency ---------------------------------------------------------------------


def etag(revision: int) -> str:
    """The entity tag of a revision, for the header `ETag`."""
    return f'"{revision}"'


def _if_match(
    if_match: Annotated[
        str | None,
        Header(
            description="The `ETag` that the change is based on, or `*`.",
            pattern=r'^(\*|(W/)?"[!#-~]*")$',
        ),
    ] = None,
) -> int | None:
    if if_match is None:
        raise ConsoleError(428, "precondition_required", "Say in If-Match what you have seen.")
    if if_match == "*":
        return None
    number = if_match[1:-1]  # a weak one never matches (RFC 9110 §13.1.1)
    ours = if_match.startswith('"') and number.isdigit() and len(number) < 19
    return int(number) if ours else -1


IfMatch = Annotated[int | None, Depends(_if_match)]
"""The revision that a change or a removal is based on (`If-Match`, required: 428); None: any (`*`).

Answer 412 `revision_conflict` where it is another now. A tag that is none of ours is -1.
"""
