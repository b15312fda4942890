"""Logging in, staying in, getting out."""

import httpx
from argon2 import PasswordHasher
from tidegate_console_api import passwords
from tidegate_console_api.throttle import FREE, LONGEST, Throttle

from .conftest import PASSWORD, Console


def told(answer: httpx.Response) -> tuple[int, dict[str, object]]:
    return answer.status_code, {k: v for k, v in answer.json().items() if k != "request_id"}


async def test_a_session_begins_with_the_password_and_ends_with_a_logout(console: Console):
    client = console.client()
    assert (await client.get("/session")).status_code == 401
    answer = await client.post("/session", json={"user": "root", "password": PASSWORD})
    assert answer.json() == {"user": "root", "admin": True, "roles": {}, "scopes": None}
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "secure" not in cookie
    assert (await client.get("/session")).json()["user"] == "root"
    secret = client.cookies["tidegate_session"]
    assert (await client.delete("/session")).status_code == 204
    assert "tidegate_session" not in client.cookies
    client.cookies.set("tidegate_session", secret)
    assert (await client.get("/session")).status_code == 401


async def test_a_wrong_password_an_unknown_and_a_disabled_user_get_the_same_answer(
    console: Console,
):
    root = await console.logged_in()
    await root.post("/users", json={"name": "ada", "password": PASSWORD})
    change = await root.put("/users/ada", json={"disabled": True}, headers={"if-match": "*"})
    assert change.status_code == 200
    client = console.client("192.0.2.9")
    answers = [
        told(await client.post("/session", json={"user": user, "password": password}))
        for user, password in (("root", "wrong"), ("nobody", "wrong"), ("ada", PASSWORD))
    ]
    assert answers[0][0] == 401
    assert answers[0][1]["code"] == "invalid_credentials"
    assert answers[0] == answers[1] == answers[2]


def test_an_unknown_user_costs_a_hash_of_the_same_kind(monkeypatch):
    hashers = []

    class Counting(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> bool:
            hashers.append(str(hash).split("$")[:4])
            return super().verify(hash, password)

    hasher = Counting(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr(passwords, "_hasher", hasher)
    kept = passwords.hash_password("right")
    assert passwords.verify(kept, "right")
    assert not passwords.verify(kept, "wrong")
    assert not passwords.verify(None, "nobody")
    assert hashers[0] == hashers[1] == hashers[2]


async def test_a_session_ends_when_it_is_idle_and_in_any_case_after_a_time(console: Console):
    client = await console.logged_in()
    for _ in range(13):
        console.clock.now += 3000
        assert (await client.get("/session")).status_code == 200
    console.clock.now += 3000
    assert (await client.get("/session")).status_code == 200
    console.clock.now += 3000  # 12 h have passed
    assert (await client.get("/session")).status_code == 401

    client = await console.logged_in()
    console.clock.now += 3601
    assert (await client.get("/session")).status_code == 401
    await console.logged_in()
    assert len(console.rows("console_api_session")) == 1  # those that have ended are gone


async def test_a_new_password_ends_the_other_sessions(console: Console):
    here, there = await console.logged_in(), await console.logged_in()
    new = "another fine password"
    wrong = await here.put("/session/password", json={"current": "wrong", "new": new})
    assert told(wrong)[1]["code"] == "invalid_credentials"
    short = await here.put("/session/password", json={"current": PASSWORD, "new": "short"})
    assert short.status_code == 422
    assert (await there.get("/session")).status_code == 200
    change = await here.put("/session/password", json={"current": PASSWORD, "new": new})
    assert change.status_code == 204
    assert (await here.get("/session")).status_code == 200
    assert (await there.get("/session")).status_code == 401
    client = console.client()
    assert (
        await client.post("/session", json={"user": "root", "password": PASSWORD})
    ).status_code == 401
    assert (
        await client.post("/session", json={"user": "root", "password": new})
    ).status_code == 200


async def test_guessing_is_slowed_down_for_the_account_and_for_the_address(console: Console):
    client = console.client("192.0.2.66")
    tries = [
        await client.post("/session", json={"user": "root", "password": f"guess {i}"})
        for i in range(FREE["account"] + 1)
    ]
    assert [answer.status_code for answer in tries] == [401] * FREE["account"] + [429]
    assert int(tries[-1].headers["retry-after"]) >= 1
    right = await client.post("/session", json={"user": "root", "password": PASSWORD})
    assert right.status_code == 429  # the answer tells nothing of the password
    other = await client.post("/session", json={"user": "ada", "password": "x"})
    assert other.status_code == 401


def test_the_wait_doubles_and_is_forgiven():
    now = 0.0
    throttle = Throttle(lambda: now)
    assert sum(throttle.begin("ada", "a") == 0 for _ in range(100)) == FREE["account"]
    waits = []
    for _ in range(12):
        waits.append(throttle.begin("ada", "b"))
        now += waits[-1]
        assert throttle.begin("ada", "b") == 0
    assert waits == [min(2.0**n, LONGEST) for n in range(12)]
    throttle.succeeded("ada", "b")
    assert throttle.begin("ada", "b") == 0
    now += LONGEST + 1
    assert sum(throttle.begin(f"user {i}", "c") == 0 for i in range(100)) == FREE["source"]
    now += LONGEST + 1
    assert throttle.begin("ada", "c") == 0


def test_one_who_logs_in_often_is_not_slowed_down():
    throttle = Throttle(lambda: 0.0)
    for _ in range(100):
        assert throttle.begin("ada", "a") == 0
        throttle.succeeded("ada", "a")
