"""The addon on exchanges: passwords, guesses, memory, the command."""

import asyncio
from base64 import b64encode

import pytest
import typer
from argon2 import PasswordHasher
from pydantic import ValidationError
from tidegate_auth_basic import AuthBasic, AuthBasicConfig
from tidegate_auth_basic.passwords import Throttle, decode, hash_password, matches
from typer.testing import CliRunner

from tidegate.api import AddonContext, Client, Principal
from tidegate.runtime.pipeline import strip_credentials
from tidegate.testing import make_exchange
from tidegate.testing.contracts import AuthContract, PluginContract

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD = "correct horse: battery staple"
USER = {"name": "ada", "team": "ml", "roles": ["dev"], "hash": CHEAP.hash(PASSWORD)}


def credential(name="ada", password=PASSWORD):
    return b64encode(f"{name}:{password}".encode()).decode()


def ask(token, scheme="Basic", started=1_000.0, address="192.0.2.1"):
    headers = {"authorization": f"{scheme} {token}"}
    client = Client(address, 1, address)
    return make_exchange(headers=headers, started=started, client=client)


@pytest.fixture
async def auth(tmp_path):
    config = AuthBasicConfig.model_validate({"users": [USER]})
    plugin = AuthBasic(config, AddonContext("auth-basic", tmp_path))
    await plugin.startup(None)
    yield plugin
    plugin.shutdown()


async def say(plugin, exchange):
    result = plugin.authenticate(exchange)
    return await result if asyncio.iscoroutine(result) else result


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
async def test_a_right_password_is_its_user_and_goes_no_further(auth, scheme):
    exchange = ask(credential(), scheme)
    who = await say(auth, exchange)
    assert who == Principal("ada", "ml")
    assert dict(who.attributes) == {"roles": ("dev",)}
    strip_credentials(exchange)
    assert exchange.header("authorization") is None


@pytest.mark.parametrize(
    "token",
    [
        credential("ada", "wrong"),
        credential("ada", PASSWORD + " "),
        credential("Ada"),
        credential("nobody"),
        credential("", ""),
        credential("ada", "a\nb"),
        b64encode(b"ada").decode(),
        b64encode(b"\xff:\xfe").decode(),
        "!!!",
        "",
        credential("ada", "x" * 2_000),
    ],
    ids=range(11),
)
async def test_every_wrong_credential_gets_the_same_answer(auth, token):
    denial = await say(auth, ask(token))
    assert denial == await say(auth, ask(credential("ada", "other"), address="192.0.2.9"))
    assert (denial.status, denial.code) == (401, "invalid_credentials")
    assert denial.headers == (("www-authenticate", 'Basic realm="tidegate", charset="UTF-8"'),)


@pytest.mark.parametrize("value", ["Bearer x", "Digest a=b", "Basicx eA=="])
async def test_another_scheme_is_left_to_others(auth, value):
    exchange = make_exchange(headers={"authorization": value})
    assert auth.authenticate(exchange) is None
    assert exchange.credentials == []


async def test_passwords_may_hold_colons_and_letters_of_any_script():
    assert decode(b64encode("ada:a:ü".encode()).decode()) == ("ada", "a:ü")


# -- memory -----------------------------------------------------------------------------------


async def test_a_right_password_is_checked_once_and_again_when_forgotten(auth, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "tidegate_auth_basic.plugin.matches", lambda *a: calls.append(a) or matches(*a)
    )
    assert (
        await asyncio.gather(*(say(auth, ask(credential())) for _ in range(10)))
        == [Principal("ada", "ml")] * 10
    )
    assert len(calls) == 1, "ten at once are one check"
    assert auth.authenticate(ask(credential())) == Principal("ada", "ml"), "it waits for nothing"
    await say(auth, ask(credential(), started=1_601.0))
    assert len(calls) == 2
    await say(auth, ask(credential("ada", "wrong")))
    await say(auth, ask(credential("ada", "wrong")))
    assert len(calls) == 4, "a wrong one is never remembered"
    assert not any(PASSWORD.encode() in mark for mark in auth._known)


# -- guesses ----------------------------------------------------------------------------------


async def test_guesses_are_held_back_and_known_callers_are_not(auth):
    await say(auth, ask(credential()))
    answers = [await say(auth, ask(credential("ada", str(n)))) for n in range(7)]
    assert [a.code for a in answers] == ["invalid_credentials"] * 5 + ["too_many_attempts"] * 2
    assert answers[-1].retry_after == 1.0
    assert auth.authenticate(ask(credential())) == Principal("ada", "ml")
    other = await say(auth, ask(credential("ada", "x"), address="192.0.2.2"))
    assert other.code == "invalid_credentials"
    later = await say(auth, ask(credential("ada", "x"), started=1_001.0))
    assert later.code == "invalid_credentials"
    assert (await say(auth, ask(credential("ada", "y"), started=1_001.5))).retry_after == 1.5


async def test_guesses_at_once_are_held_back_as_well(auth):
    answers = await asyncio.gather(*(say(auth, ask(credential("ada", str(n)))) for n in range(30)))
    assert [a.code for a in answers].count("invalid_credentials") == 5


async def test_an_address_that_tries_many_names_is_held_back(auth):
    answers = [await say(auth, ask(credential(f"user{n}", "x"))) for n in range(21)]
    assert [a.code for a in answers[19:]] == ["invalid_credentials", "too_many_attempts"]


async def test_more_than_can_wait_are_told_so(auth, monkeypatch):
    monkeypatch.setattr("tidegate_auth_basic.plugin.QUEUE", 1)
    first, second = (
        say(auth, ask(credential("ada", n), address=f"192.0.2.{n}")) for n in ("1", "2")
    )
    answers = await asyncio.gather(first, second)
    assert [a.code for a in answers] == ["invalid_credentials", "authentication_busy"]


def test_waits_double_up_to_the_longest_and_are_forgotten():
    throttle = Throttle(2, 8.0)
    waits = []
    now = 0.0
    for _ in range(8):
        waits.append(throttle.wait("a", now))
        throttle.failed("a", now := now + waits[-1])
    assert waits == [0, 0, 1, 2, 4, 8, 8, 8]
    throttle.failed("a", now + 9)
    assert throttle.wait("a", now + 9) == 0


async def test_a_reload_keeps_the_counts(auth, tmp_path):
    for n in range(5):
        await say(auth, ask(credential("ada", str(n))))
    config = AuthBasicConfig.model_validate({"users": [USER], "realm": "other"})
    new = AuthBasic(config, AddonContext("auth-basic", tmp_path))
    await new.startup(auth)
    assert (await say(new, ask(credential("ada", "6")))).code == "too_many_attempts"
    new.shutdown()


# -- options and the command ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"users": []}, "at least 1"),
        ({"users": [USER, USER]}, "same name"),
        ({"users": [{"name": "a", "hash": "plain"}]}, "tidegate basic hash"),
        ({"users": [{"name": "a", "hash": "$2b$12$abcdefghijklmnopqrstuv"}]}, "Argon2id"),
        ({"users": [{**USER, "name": "a:b"}]}, "pattern"),
        ({"users": [USER], "realm": 'a"b'}, "pattern"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, reason):
    with pytest.raises(ValidationError, match=reason):
        AuthBasicConfig.model_validate(options)


def test_the_command_prints_a_hash_that_the_password_has(tmp_path):
    app = typer.Typer()
    config = AuthBasicConfig.model_validate({"users": [USER]})
    AuthBasic(config, AddonContext("auth-basic", tmp_path)).cli_commands(app)
    result = CliRunner().invoke(app, ["basic", "hash"], input="a pass\n")
    assert result.exit_code == 0, result.output
    hashed = result.stdout.strip()
    assert matches(hashed, "a pass")
    assert not matches(hashed, "another")
    assert hashed != hash_password("a pass"), "each has a salt of its own"
    assert CliRunner().invoke(app, ["basic", "hash"], input="\n").exit_code == 1


class TestPlugin(PluginContract):
    name = "auth-basic"

    def options(self):
        return {"users": [USER]}


class TestAuth(AuthContract):
    name = "auth-basic"

    def options(self):
        return {"users": [USER]}

    def good_exchange(self):
        return ask(credential())

    def bad_exchanges(self):
        return [ask(credential("ada", "canary-1")), ask(credential("bob", "canary-2")), ask("!")]

    def secrets(self):
        return [PASSWORD, credential(), credential("ada", "canary-1"), "canary-"]
