"""What routes of the console are written with: rights, pages, entity tags."""

from typing import Annotated

import pytest

fastapi = pytest.importorskip("fastapi", reason="comes with tidegate-console-api")

import httpx  # noqa: E402
from fastapi import FastAPI, Request, Response  # noqa: E402
from fastapi.responses import JSONResponse  # noqa: E402

from tidegate.api.console import (  # noqa: E402
    Administrator,
    Caller,
    ConsoleError,
    Id,
    IfMatch,
    Listing,
    PageDep,
    etag,
    problems,
    require,
)

ADA = Caller("ada", roles={"red": "developer", "blue": "viewer"})
ROOT = Caller("root", admin=True)

app = FastAPI()


@app.get("/teams/{team_id}/pets", responses=problems(409))
def pets(page: PageDep, caller: Annotated[Caller, require("developer")]) -> Listing[str]:
    return page.listing([caller.user, str(page.limit), page.search], "bmV4dA==")


@app.put("/pets/{id}")
def put(id: Id, seen: IfMatch, response: Response, caller: Administrator) -> int | None:
    response.headers["etag"] = etag((seen or 0) + 1)
    return seen


@app.exception_handler(ConsoleError)
def told(request: Request, error: ConsoleError) -> JSONResponse:
    return JSONResponse({"code": error.code}, error.status)


async def ask(
    caller: Caller | None, method: str, path: str, **headers: str
) -> tuple[int, httpx.Response]:
    async def called(scope, receive, send):
        scope["state"] = {"caller": caller} if caller else {}
        await app(scope, receive, send)

    transport = httpx.ASGITransport(called)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.request(method, path, headers=headers)
        return answer.status_code, answer


@pytest.mark.parametrize(
    ("caller", "team", "status"),
    [
        (None, "red", 401), (ADA, "red", 200), (ADA, "blue", 403), (ADA, "green", 404),
        (ROOT, "green", 200), (ADA, "no~id", 422),
    ],
)  # fmt: skip
async def test_a_team_is_for_its_members_by_their_role(caller, team, status):
    assert (await ask(caller, "GET", f"/teams/{team}/pets"))[0] == status


async def test_a_page_names_the_next_one():
    status, answer = await ask(ADA, "GET", "/teams/red/pets?limit=7&search=x%20y")
    assert status == 200
    assert answer.json() == {"items": ["ada", "7", "x y"], "next": "bmV4dA=="}
    assert answer.links["next"]["url"] == ("/teams/red/pets?limit=7&search=x+y&cursor=bmV4dA%3D%3D")
    for bad in ("limit=0", "limit=201", "cursor=%2F", "search=%00"):
        assert (await ask(ADA, "GET", f"/teams/red/pets?{bad}"))[0] == 422, bad


@pytest.mark.parametrize(
    ("tag", "status", "seen"),
    [
        ('"7"', 200, 7), ("*", 200, None), ('W/"7"', 200, -1), ('"x"', 200, -1),
        ('"99999999999999999999"', 200, -1), ("7", 422, None), ('"', 422, None), ("", 422, None),
        ('"1", "2"', 422, None),
    ],
)  # fmt: skip
async def test_a_change_says_what_it_is_based_on(tag, status, seen):
    found, answer = await ask(ROOT, "PUT", "/pets/1", **{"if-match": tag})
    assert found == status
    if status == 200:
        assert answer.json() == seen
        assert answer.headers["etag"] == etag((seen or 0) + 1)


async def test_a_change_that_says_nothing_is_refused():
    status, answer = await ask(ROOT, "PUT", "/pets/1")
    assert (status, answer.json()) == (428, {"code": "precondition_required"})
    assert (await ask(ADA, "PUT", "/pets/1", **{"if-match": "*"}))[0] == 403


def test_roles_include_those_below_them():
    roles = ("viewer", "developer", "admin", "owner")
    for own in roles:
        caller = Caller("ada", roles={"red": own})
        assert [caller.may(role, "red") for role in roles] == [
            roles.index(role) <= roles.index(own) for role in roles
        ]
        assert not caller.may("viewer", "blue")
