"""Every recipe of the cookbook, with the options that the page shows."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tidegate.api import Client, Exchange, Plugin, Principal, WsMessage
from tidegate.api.errors import UPSTREAM_BODY_TOO_LARGE
from tidegate.runtime.lifecycle import Host, Runtime
from tidegate.runtime.problems import ConfigError
from tidegate.runtime.settings import parse
from tidegate.testing import Harness, ScriptedUpstream, Use, make_answer, make_exchange
from tidegate.testing.script import body

FOLDER = Path(__file__).parents[2] / "docs/cookbook"
TABLES = {t["use"]: t for t in tomllib.loads((FOLDER / "addons.toml").read_text())["addon"]}
RECIPES = sorted(FOLDER.glob("*.py"))
STREAM = {"content-type": "text/event-stream"}
CHAT = {"model": "gpt-5-mini", "usage": {"prompt_tokens": 1000, "completion_tokens": 500}}
MONDAY_NOON = 1_750_068_000.0  # 2025-06-16 10:00 UTC, 12:00 in Berlin
KEY = base64.b64encode(b"a key of thirty-two bytes or more").decode()


def plugin(name: str) -> type[Plugin[Any]]:
    """The class of a recipe."""
    spec = importlib.util.spec_from_file_location(f"cookbook_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (found,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Plugin) and value is not Plugin
    )
    return found


def recipe(name: str, **options: Any) -> Use:
    """A recipe as its page shows it, on everywhere, with other options where a test says so."""
    table = {k: v for k, v in TABLES[name.replace("_", "-")].items() if k not in ("use", "mode")}
    table.pop("scope", None)
    on_error = table.pop("on_error", "fail")
    table = {k: KEY if v == "${SIGNING_KEY}" else v for k, v in table.items()}
    return Use(plugin(name), {**table, **options}, name=name, on_error=on_error)


def from_team(team: str, **fields: Any) -> Exchange:
    return make_exchange(principal=Principal("ada", team), **fields)


def from_address(address: str) -> Exchange:
    return make_exchange(client=Client(address, 1, address))


def content_of(exchange: Exchange) -> bytes:
    assert exchange.response is not None
    return exchange.response.raw_content or b""


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_is_short(path):
    assert len([line for line in path.read_text().splitlines() if line]) <= 40


def test_there_are_twelve_and_each_has_its_options():
    assert len(RECIPES) == 12
    assert sorted(TABLES) == sorted(p.stem.replace("_", "-") for p in RECIPES)


async def test_all_of_them_work_together():
    uses = [recipe(p.stem) for p in RECIPES if p.stem != "maintenance"]
    answer = make_answer(200, {**CHAT, "email": "a@b.example"})
    async with Harness(*uses, answer=answer) as harness:
        exchange = make_exchange(now=MONDAY_NOON, headers={"from": "ada@example.com"})
        await harness.send(exchange)
        assert exchange.outcome == "answered", exchange.denial
        assert json.loads(content_of(exchange))["email"] == "***"
        assert exchange.response.headers["x-cost-usd"] == "0.001250"
        assert "from" not in harness.sent[0].headers
        assert "signature" in harness.sent[0].headers


# -- one by one, in the order of the page -----------------------------------------------------


@pytest.mark.parametrize(
    ("hours", "outcome"),
    [(0, "answered"), (-4.01, "denied"), (-4, "answered"), (6, "denied"), (5.99, "answered"),
     (-24, "denied"), (4 * 24, "answered"), (5 * 24, "denied")],
)  # fmt: skip
async def test_business_hours_are_those_of_the_zone(hours, outcome):
    async with Harness(recipe("business_hours")) as harness:
        exchange = await harness.send(make_exchange(now=MONDAY_NOON + hours * 3600))
        assert exchange.outcome == outcome
        if outcome == "denied":
            assert exchange.denial.code == "closed"
            assert "08:00 (Europe/Berlin)" in exchange.denial.message


async def test_business_hours_refuse_a_zone_that_is_not_one():
    with pytest.raises(ConfigError, match="zone"):
        async with Harness(recipe("business_hours", zone="Europe/Atlantis")):
            pass


async def test_a_team_gets_its_fields_and_never_those_of_another():
    async with Harness(recipe("team_header")) as harness:
        forged = {"x-account": "1001", "x-priority": "high"}
        for exchange in (from_team("ads"), from_team("search", headers=forged), make_exchange()):
            await harness.send(exchange)
        await harness.send(make_exchange(headers=forged))
        found = [(r.headers.get("x-account"), r.headers.get("x-priority")) for r in harness.sent]
        assert found == [("1002", "low"), ("1001", None), (None, None), (None, None)]


async def test_personal_data_is_scrubbed_from_fields_both_ways():
    headers = {
        "from": "ada@example.com",
        "x-note": "call +4915112345678 or ada.l@mail.example.org, quick",
        "cookie": "who=ada@example.com",
        "referer": "http://a.example/?u=ada@example.com&p=2",
    }
    answer = make_answer(200, "ok", {"x-owner": "bob@example.com", "x-count": "12345678"})
    async with Harness(recipe("scrub_headers"), answer=answer) as harness:
        exchange = await harness.send(make_exchange(headers=headers))
        sent = harness.sent[0].headers
        assert "from" not in sent
        assert sent["x-note"] == "call *** or ***, quick"
        assert sent["referer"] == "http://a.example/?u=***&p=2"
        assert sent["cookie"] == "who=ada@example.com"
        assert exchange.response.headers["x-owner"] == "***"
        assert exchange.response.headers["x-count"] == "12345678"


async def test_a_long_field_does_not_make_the_scrubbing_slow():
    async with Harness(recipe("scrub_headers")) as harness:
        for text in ("a" * 30_000, "a@" * 15_000, "a@" + "b-" * 15_000, "a@b" + ".b" * 15_000):
            exchange = await harness.send(make_exchange(headers={"x-long": text}))
            assert exchange.outcome == "answered"


@pytest.mark.parametrize(
    ("cookie", "upstream"),
    [("canary=yes", "canary"), ("a=1; canary=yes", "canary"), ("canary=no", "scripted"),
     ("canary=yes2", "scripted"), ("", "scripted")],
)  # fmt: skip
async def test_who_has_the_cookie_gets_the_canary(cookie, upstream):
    async with Harness(recipe("canary_cookie")) as harness:
        exchange = await harness.send(make_exchange(headers={"cookie": cookie}))
        assert exchange.attempts[0].upstream.name == upstream


@pytest.mark.parametrize(
    ("address", "outcome"),
    [("203.0.113.1", "denied"), ("203.0.113.7", "answered"), ("203.0.112.1", "answered"),
     ("::ffff:203.0.113.1", "denied"), ("2001:db8::1", "denied"), ("2001:db9::1", "answered")],
)  # fmt: skip
async def test_networks_are_denied_but_for_their_holes(address, outcome):
    async with Harness(recipe("deny_cidr")) as harness:
        exchange = await harness.send(from_address(address))
        assert exchange.outcome == outcome
        assert len(harness.sent) == (outcome == "answered")


async def test_an_address_that_is_none_is_not_let_in():
    async with Harness(recipe("deny_cidr")) as harness:
        exchange = await harness.send(from_address("unknown"))
        assert exchange.response.status_code == 503


CUSTOMER = {"email": "a@b.c", "name": "Ada", "accounts": [{"iban": "DE1", "open": True}]}
MASKED = {"email": "***", "name": "Ada", "accounts": [{"iban": "***", "open": True}]}


async def test_members_are_masked_at_any_depth_of_a_body():
    async with Harness(recipe("mask_json"), answer=make_answer(200, CUSTOMER)) as harness:
        exchange = await harness.send(make_exchange())
        assert json.loads(content_of(exchange)) == MASKED
        length = exchange.response.headers["content-length"]
        assert int(length) == len(content_of(exchange))


async def test_members_are_masked_in_an_event_stream():
    events = f"data: {json.dumps(CUSTOMER)}\n\nevent: x\ndata: [{json.dumps(CUSTOMER)}]\n\n"
    answer = make_answer(200, events + "data: [DONE]\n\n", STREAM)
    async with Harness(recipe("mask_json"), answer=answer) as harness:
        exchange = await harness.send(make_exchange())
        first, second, last, _ = content_of(exchange).decode().split("\n\n")
        assert json.loads(first.removeprefix("data: ")) == MASKED
        assert json.loads(second.removeprefix("event: x\ndata: ")) == [MASKED]
        assert last == "data: [DONE]"


async def test_members_are_masked_in_web_socket_messages_to_the_caller():
    text = json.dumps(CUSTOMER).encode()
    async with Harness(recipe("mask_json")) as harness:
        for from_client, expected in ((False, MASKED), (True, CUSTOMER)):
            message = WsMessage(text, from_client=from_client, text=True)
            harness.plugin().transform_event(make_exchange(), message)
            assert json.loads(message.content) == expected


@pytest.mark.parametrize("headers", [{"content-type": "application/json"}, STREAM])
async def test_what_can_not_be_parsed_is_not_let_by(headers):
    answer = make_answer(200, 'data: {"email": "a@b.c",}\n\n', headers)
    async with Harness(recipe("mask_json"), answer=answer) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.response.status_code == 502
        assert b"a@b.c" not in content_of(exchange)


async def test_the_cost_is_told_to_the_caller_and_to_the_log():
    async with Harness(recipe("cost_header"), answer=make_answer(200, CHAT)) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.response.headers["x-cost-usd"] == "0.001250"
        assert exchange.notes["cost_usd"] == 0.00125


async def test_the_cost_of_a_stream_is_told_to_the_log():
    chunks = [{"model": "gpt-5-mini", "usage": None}, CHAT]
    events = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
    answer = make_answer(200, events + "data: [DONE]\n\n", STREAM)
    async with Harness(recipe("cost_header"), answer=answer) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.notes["cost_usd"] == 0.00125
        assert content_of(exchange) == answer.content


@pytest.mark.parametrize("answer", [{**CHAT, "model": "other"}, {}, {"usage": 1}])
async def test_an_answer_without_a_known_cost_passes(answer):
    async with Harness(recipe("cost_header"), answer=make_answer(200, answer)) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.outcome == "answered"
        assert "x-cost-usd" not in exchange.response.headers


async def test_maintenance_shows_a_page_to_all_but_those_at_work():
    async with Harness(recipe("maintenance", text="<b>moving</b>")) as harness:
        exchange = await harness.send(from_team("search"))
        assert exchange.response.status_code == 503
        assert exchange.response.headers["retry-after"] == "900"
        assert b"&lt;b&gt;moving" in content_of(exchange)
        assert harness.sent == []
        at_work = await harness.send(from_team("platform"))
        assert at_work.response.status_code == 200


async def test_a_signature_is_that_of_the_standard():
    """RFC 9421, appendix B.2.5: the key, the request and the signature are its own."""
    key = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ=="
    options = {
        "key": key,
        "key_id": "test-shared-secret",
        "components": ["date", "@authority", "content-type"],
    }
    headers = {"date": "Tue, 20 Apr 2021 02:07:55 GMT", "content-type": "application/json"}
    url = "http://example.com/foo?param=Value&Pet=dog"
    exchange = make_exchange("POST", url, headers, b'{"hello": "world"}', now=1_618_884_473.0)
    async with Harness(recipe("sign_request", **options)) as harness:
        await harness.send(exchange)
        sent = harness.sent[0].headers
    assert sent["signature"] == "tidegate=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:"
    assert sent["signature-input"] == (
        'tidegate=("date" "@authority" "content-type")'
        ';created=1618884473;keyid="test-shared-secret"'
    )


async def test_a_signature_covers_method_path_query_and_body():
    signatures = set()
    async with Harness(recipe("sign_request")) as harness:
        for method, target, content in (
            ("POST", "/a?b=1", b"1"),
            ("PUT", "/a?b=1", b"1"),
            ("POST", "/b?b=1", b"1"),
            ("POST", "/a?b=2", b"1"),
            ("POST", "/a", b"1"),
            ("POST", "/a?b=1", b"2"),
        ):
            forged = {"signature": "tidegate=:AA==:", "content-digest": "sha-256=:AA==:"}
            await harness.send(make_exchange(method, f"http://api.test{target}", forged, content))
            digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
            assert harness.sent[-1].headers.get_all("content-digest") == [f"sha-256=:{digest}:"]
            signatures.update(harness.sent[-1].headers.get_all("signature"))
    assert len(signatures) == 6


async def test_a_key_that_is_not_base64_is_refused_at_the_start():
    with pytest.raises(ConfigError, match="startup_failed"):
        async with Harness(recipe("sign_request", key="not base64!")):
            pass


async def test_a_caller_stays_on_one_side_and_the_sides_have_their_share():
    async def sides(**options: Any) -> list[str]:
        async with Harness(recipe("ab_principal", **options)) as harness:
            callers = [Principal(f"caller-{n}") for n in range(400)]
            exchanges = [await harness.send(make_exchange(principal=c)) for c in callers]
        assert [e.notes[options.get("experiment", "ranking-2")] for e in exchanges] == [
            e.attempts[0].upstream.name for e in exchanges
        ]
        return [e.attempts[0].upstream.name for e in exchanges]

    first = await sides()
    assert first == await sides()
    assert 20 <= first.count("b") <= 60  # a share of 0.1 of 400
    other = await sides(experiment="other", share=0.5)
    assert 160 <= other.count("b") <= 240
    assert (await sides(share=0)).count("b") == 0
    assert (await sides(share=1)).count("a") == 0


async def test_a_body_over_the_cap_is_refused():
    async with Harness(recipe("cap_response", limit=10)) as harness:
        for size, status in ((10, 200), (11, 502)):
            harness.answer = make_answer(200, b"x" * size)
            exchange = await harness.send(make_exchange())
            assert exchange.response.status_code == status
        assert exchange.denial.code == UPSTREAM_BODY_TOO_LARGE.code


async def test_a_stream_over_the_cap_is_cut_where_it_passes_it():
    async with Harness(recipe("cap_response", limit=10)) as harness:
        harness.answer = make_answer(200, "data: 12345\n\n" * 2, STREAM)
        exchange = await harness.send(make_exchange())
        assert exchange.outcome == "answered"
        harness.answer = make_answer(200, "data: 12345\n\n" * 3, STREAM)
        exchange = await harness.send(make_exchange())
        assert exchange.outcome == "failed"
        assert exchange.failed_addon == "cap_response"


async def test_an_exchange_is_posted_to_the_web_hook(upstream: ScriptedUpstream):
    async with Harness(recipe("audit_webhook", url=f"{upstream.url}/events")) as harness:
        exchange = await harness.send(make_exchange(url="http://api.test/x?key=secret"))
        await upstream.until(lambda: len(upstream.requests) == 1)
    (post,) = upstream.requests
    assert (post.method, post.target) == ("POST", "/events")
    assert post.values("content-type") == ["application/json"]
    assert post.json() == {"id": exchange.id, "path": "/x", "outcome": "answered"}


async def test_what_waits_when_a_worker_ends_is_still_posted(upstream: ScriptedUpstream):
    async with Harness(recipe("audit_webhook", url=upstream.url)) as harness:
        for _ in range(5):
            await harness.send(make_exchange())
    assert len(upstream.requests) == 5


@pytest.mark.parametrize("down", [True, False])
async def test_with_the_web_hook_down_callers_are_answered_and_it_is_counted(upstream, down):
    upstream.answer(*body(b"no", status=500))
    url = "http://127.0.0.1:9/" if down else upstream.url
    async with Harness(recipe("audit_webhook", url=url)) as harness:
        for _ in range(3):
            exchange = await harness.send(make_exchange())
            assert exchange.outcome == "answered"
        counters = harness.counters()
    assert counters == {"posts_failed_total": 3}


async def test_posts_that_find_no_room_are_dropped_and_counted():
    async with Harness(recipe("audit_webhook", queue=2)) as harness:
        plugin = harness.plugin()
        for _ in range(5):  # without a pause: the sender has no chance to run
            plugin.log(make_exchange())
        assert harness.counters() == {"posts_dropped_total": 3}


@pytest.mark.parametrize("file", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_loads_as_a_policy_of_one_file(file: Path, tmp_path: Path) -> None:
    tables = (FOLDER / "addons.toml").read_text().split("[[addon]]\n")[1:]
    use = re.compile(rf'^use\s*= "{file.stem.replace("_", "-")}"$', re.M)
    (own,) = (text for text in tables if use.search(text))
    text = "[[addon]]\n" + use.sub(f"file = {json.dumps(str(file))}", own)
    settings = parse(text, env={"SIGNING_KEY": KEY})
    generation, _ = Runtime(Host(tmp_path)).load(settings)
    assert len(generation.addons) == 1
