"""Providers of teams: whose keys a call is made with, and what one team can do to another."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from random import Random
from typing import Any

import httpx
import pytest

from tidegate.api import AddonConfig, Plugin, Principal, Secret, hook
from tidegate.api.formats import AiCall, find_format
from tidegate.api.platform import SNAPSHOT, StoredKey, StoredProvider
from tidegate.testing import Platform, ScriptedUpstream, Use, make_exchange
from tidegate.testing import script as scripts

from .test_lane import ANSWER, HELLO, SECRET

SLOW = {"error": {"message": "slow down"}}


class Gate(Plugin):
    """Takes callers at their word, and has a snapshot that tests change."""

    Config = AddonConfig
    snapshot = Platform()

    @hook
    def authenticate(self, exchange):
        exchange.stash[SNAPSHOT] = type(self).snapshot
        team = exchange.header("x-team")
        return Principal("dev", team) if team is not None else None


def stored(url: str, *keys: str, name: str = "work", **fields: Any) -> StoredProvider:
    """A provider with these keys; "" is one without a secret."""
    held = tuple(
        StoredKey(f"id-{number}", f"key {number}", Secret(key) if key else None)
        for number, key in enumerate(keys, 1)
    )
    return StoredProvider(f"id-{name}", name, fields.pop("kind", "openai-compatible"), url,
                          keys=held, **fields)  # fmt: skip


def now_holds(**teams: StoredProvider | tuple[StoredProvider, ...]) -> None:
    """The next snapshot. A team's tuple stays the same object where it is equal, as the store's."""
    old = Gate.snapshot.providers
    made = {team: its if isinstance(its, tuple) else (its,) for team, its in teams.items()}
    kept = {team: old[team] if old.get(team) == its else its for team, its in made.items()}
    Gate.snapshot = Platform(providers=kept)


@pytest.fixture(autouse=True)
def _empty_platform():
    Gate.snapshot = Platform()


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as server:
        server.handle(lambda received: scripts.json(ANSWER))
        yield server


@pytest.fixture
def start(lane):
    """A gateway with the platform, where loopback is a host that teams may use."""

    def started(*providers: Any, **options: Any):
        options = {"team_hosts": ["127.0.0.1"], **options}
        return lane(*providers, others=(Use(Gate),), **options)

    return started


async def ask(node: Any, team: str, model: str = "work/m", client: Any = None) -> httpx.Response:
    body = {"model": model, "messages": HELLO}
    async with nullcontext(client) if client else httpx.AsyncClient() as client:
        url = f"{node.url}/v1/chat/completions"
        return await client.post(url, json=body, headers={"x-team": team})


def used(upstream: ScriptedUpstream) -> list[str]:
    """The keys of the requests so far."""
    sent = [received.values("authorization") for received in upstream.requests]
    return [values[0].removeprefix("Bearer ") if values else "" for values in sent]


async def test_a_team_calls_with_its_own_key_and_others_with_the_configured_one(start, upstream):
    now_holds(red=stored(upstream.url, "sk-red"), blue=stored(upstream.url, "sk-blue"))
    mine = {"name": "work", "url": upstream.url, "keys": [SECRET]}
    async with start(mine) as node:
        for team in ("red", "blue", "green", "red"):
            assert (await ask(node, team)).status_code == 200
        assert used(upstream) == ["sk-red", "sk-blue", SECRET, "sk-red"]


async def test_whatever_changes_and_whoever_calls_no_team_gets_anothers_key(start, upstream):
    random = Random(7)
    allowed: dict[str, set[str]] = {}
    mine = {"name": "work", "url": upstream.url, "keys": [SECRET]}
    async with start(mine) as node, httpx.AsyncClient() as client:
        for turn in range(120):
            if turn % 4 == 0:
                teams = {}
                for team in ("red", "blue", "green"):
                    keys = [f"sk-{team}-{n}" for n in range(3) if random.random() < 0.5]
                    if keys:
                        teams[team] = stored(upstream.url, *keys)
                    allowed[team] = set(keys) or {SECRET}
                now_holds(**teams)
                failing = random.choice(list(allowed["red"] | allowed["blue"]))

            def serve(received, bad=failing):
                refused = bad in received.values("authorization")[0]
                return scripts.json(SLOW, 429) if refused else scripts.json(ANSWER)

            upstream.handle(serve)
            before = len(upstream.requests)
            team = random.choice(list(allowed))
            await ask(node, team, client=client)
            assert set(used(upstream)[before:]) <= allowed[team]
        assert len(set(used(upstream))) > 6


async def test_what_one_teams_key_met_is_not_anothers(start, upstream):
    now_holds(red=stored(upstream.url, "sk-red"), blue=stored(upstream.url, "sk-blue"))
    upstream.handle(
        lambda received: (
            scripts.json(SLOW, 429, {"retry-after": "40"})
            if "red" in received.values("authorization")[0]
            else scripts.json(ANSWER)
        )
    )
    async with start({"name": "work", "url": upstream.url, "keys": [SECRET]}) as node:
        assert [(await ask(node, "red")).status_code for _ in range(3)] == [429] * 3
        assert [(await ask(node, team)).status_code for team in ("blue", "green")] == [200, 200]
        assert used(upstream) == ["sk-red", "sk-blue", SECRET]


async def test_the_same_model_of_two_teams_is_two_upstreams(start, upstream):
    now_holds(red=stored(upstream.url, "sk-red"), blue=stored(upstream.url, "sk-blue"))
    asked = {"model": "work/m", "messages": [{"role": "user", "content": "Hello"}]}
    call = AiCall("openai-chat", find_format("openai-chat").parse_request(asked))
    async with start() as node:

        def pool_of(team: str):
            exchange = make_exchange("POST", principal=Principal("dev", team))
            exchange.stash[SNAPSHOT] = Gate.snapshot
            models = node.addon.teams.of(exchange)
            return models.upstream(models.find("work/m"), call)

        red, blue = pool_of("red"), pool_of("blue")
        assert red is not blue
        assert red.members[0].upstream is not blue.members[0].upstream
        assert not set(red._states.values()) & set(blue._states.values())
        assert red.members[0].upstream.headers == ((b"authorization", b"Bearer sk-red"),)
        assert pool_of("red") is red
        now_holds(red=stored(upstream.url, "sk-red"), blue=stored(upstream.url, "sk-new"))
        assert pool_of("red") is red
        assert pool_of("blue") is not blue


async def test_a_change_is_in_force_with_the_next_snapshot(start, upstream):
    async with start() as node:
        assert (await ask(node, "red")).status_code == 404
        now_holds(red=stored(upstream.url, "sk-1"))
        assert (await ask(node, "red")).status_code == 200
        now_holds(red=stored(upstream.url, "sk-2"))
        assert (await ask(node, "red")).status_code == 200
        now_holds()
        assert (await ask(node, "red")).status_code == 404
        assert used(upstream) == ["sk-1", "sk-2"]
        assert "sk-" not in repr(vars(node.addon.teams))


async def test_a_key_that_rests_goes_on_resting_while_another_is_replaced(start, upstream):
    now_holds(red=stored(upstream.url, "sk-full", "sk-old"))
    upstream.handle(
        lambda received: (
            scripts.json(SLOW, 429, {"retry-after": "400"})
            if "full" in received.values("authorization")[0]
            else scripts.json(ANSWER)
        )
    )
    async with start() as node:
        for _ in range(3):
            assert (await ask(node, "red")).status_code == 200
        now_holds(red=stored(upstream.url, "sk-full", "sk-new"))
        for _ in range(3):
            assert (await ask(node, "red")).status_code == 200
        mine = Use(type(node.addon), {"team_hosts": ["127.0.0.1"], "recover": 60},
                   name="ai-providers")  # fmt: skip
        await node.harness.reload(Use(Gate), mine)
        assert (await ask(node, "red")).status_code == 200
        assert used(upstream).count("sk-full") == 1
        assert used(upstream).count("sk-new") == 4


async def test_a_teams_provider_hides_the_configured_one_of_its_name(start, upstream):
    mine = {"name": "work", "url": upstream.url, "keys": [SECRET], "models": ["one", "two"]}
    other = {"name": "other", "url": upstream.url, "keys": [SECRET], "models": ["one", "more"]}
    now_holds(red=stored(upstream.url, "sk-red", models=("one",)))
    async with start(mine, other, aliases={"fast": "work/one"}) as node:
        for model in ("work/one", "one", "fast", "more"):
            assert (await ask(node, "red", model)).status_code == 200
        assert used(upstream) == ["sk-red", "sk-red", "sk-red", SECRET]
        assert (await ask(node, "red", "work/two")).status_code == 404
        async with httpx.AsyncClient(headers={"x-team": "red"}) as client:
            listed = (await client.get(f"{node.url}/v1/models")).json()["data"]
        assert [m["id"] for m in listed] == ["work/one", "other/one", "other/more", "fast"]


@pytest.mark.parametrize("unknown", ["refuse", "pass"])
async def test_a_provider_that_is_off_hides_it_as_well(start, upstream, unknown, caplog):
    """Else its team's calls would be billed to everyone's account, for a missing secret."""
    mine = {"name": "work", "url": upstream.url, "keys": [SECRET]}
    now_holds(red=stored(upstream.url, ""))
    async with start(mine, unknown=unknown) as node:
        refused = await ask(node, "red")
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
        assert "work of red is off: none of its keys has a secret that opens here" in caplog.text
        assert used(upstream) == []


async def test_only_teams_that_have_providers_are_read_where_none_is_configured(start, upstream):
    now_holds(red=stored(upstream.url, "sk-red"))
    async with start(unknown="pass") as node:
        assert (await ask(node, "red")).status_code == 200
        assert (await ask(node, "blue")).json()["error"]["code"] == "no_route"
        assert used(upstream) == ["sk-red"]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("bedrock", "the credentials of this machine are not a team's"),
        ("vertex", "the credentials of this machine are not a team's"),
        ("nonsense", "kind: "),
    ],
)
async def test_what_a_team_can_not_have_is_off(start, upstream, monkeypatch, tmp_path, kind, reason,
                                               caplog):  # fmt: skip
    (tmp_path / "adc.json").write_text("{}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "adc.json"))
    now_holds(red=stored(upstream.url, kind=kind))
    async with start() as node:
        assert (await ask(node, "red")).status_code == 404
        assert reason in caplog.text
        assert upstream.requests == []


async def test_variables_of_the_node_are_no_keys_of_a_team(start, upstream, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    now_holds(red=stored(upstream.url, name="openai", kind="openai"))
    async with start() as node:
        assert (await ask(node, "red", "openai/gpt-4o-mini")).status_code == 200
        assert used(upstream) == [""]


async def test_a_teams_provider_is_at_a_public_address_or_where_the_operator_says(start, upstream):
    now_holds(red=stored(upstream.url, "sk-red"))
    async with start(team_hosts=["*.models.test"]) as node:
        refused = await ask(node, "red")
        assert refused.json()["error"]["code"] == "upstream_address_forbidden"
        assert upstream.requests == []


async def test_a_teams_key_is_in_no_log_error_explanation_or_repr(start, upstream, caplog):
    caplog.set_level(logging.DEBUG)
    now_holds(red=stored(upstream.url, "sk-canary-1", "sk-canary\n2"))
    async with start({"name": "work", "url": upstream.url, "keys": [SECRET]}) as node:
        broken = await ask(node, "red")
        assert "work of red is off: keys.1.key: " in caplog.text
        now_holds(red=stored(upstream.url, "sk-canary-1", "sk-canary-3"))
        upstream.handle(lambda received: scripts.json({"error": {"message": "bad key"}}, 401))
        answered = await ask(node, "red")
        exchange = make_exchange("POST", principal=Principal("dev", "red"))
        exchange.stash[SNAPSHOT] = Gate.snapshot
        addon = node.addon
        held = addon.teams._held["red"]
        said = addon.explain("route", exchange)
        assert said == "providers: work of red (2 keys)"
        shown = [
            broken.text,
            answered.text,
            str(answered.headers),
            caplog.text,
            said,
            repr((Gate.snapshot, held, held.own.providers, held.own.states)),
            repr([member.upstream for member in next(iter(held.own._upstreams.values())).members]),
        ]
        assert not [text for text in shown if "canary" in text]
        assert "work of red: key 1 is refused by its provider (401)" in caplog.text
