"""The addon in real gateways, on both carriers: validation, staleness, collapsing, purges."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from contextlib import asynccontextmanager

import httpx
import pytest

from tidegate.testing import Gateway
from tidegate.testing.script import body, chunked, close, cut_body, early_hints, head, sleep, sse

CONFIG = """
[gateway]
workers = {workers}
anonymous = true

[[addon]]
use = "auth-key"
keys = [{{ name = "ops", key = "ops-key-0123456789abcdef" }}]
form = "any"

[[addon]]
use = "cache-http"
size = "8MiB"
memory = "2MiB"
purge = ["ops"]
{options}

[[addon]]
use = "route-static"
routes = [{{ path = "/", upstream = "{upstream}", timeout = "20s" }}]
"""


@pytest.fixture(params=["lane", "engine"])
def carrier(request):
    return request.param


@asynccontextmanager
async def running(tmp_path, upstream, carrier, options="", workers=1):
    config = CONFIG.format(upstream=upstream.url, options=options, workers=workers)
    async with (
        Gateway(tmp_path, config, carrier=carrier) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=30) as client,
    ):
        yield gateway, client


def told(response) -> str:
    return response.headers.get("cache-status", "")


async def test_a_hit_is_told_with_its_age_and_a_miss_with_its_reason(tmp_path, upstream, carrier):
    upstream.answer(*body(b"hello", headers={"Cache-Control": "max-age=60", "Cache-Status": "o"}))
    async with running(tmp_path, upstream, carrier) as (gateway, client):
        miss = await client.get("/x")
        assert told(miss) == "o, tidegate; fwd=uri-miss; fwd-status=200; stored; ttl=60"
        await asyncio.sleep(1.1)
        hit = await client.get("/x")
        assert told(hit).startswith("o, tidegate; hit; ttl=5")
        assert (hit.text, hit.status_code) == ("hello", 200)
        assert hit.headers.get_list("age") == ["1"]
        assert hit.headers["date"] == miss.headers["date"]
        assert hit.headers["x-request-id"] != miss.headers["x-request-id"]
        gone = await client.head("/x")
        assert (gone.content, gone.headers["content-length"]) == (b"", "5")
        assert len(upstream.requests) == 1
        assert (await gateway.counters("cache-http"))["hits_total"] == 2


async def test_a_validation_serves_and_renews_what_is_stored(tmp_path, upstream, carrier):
    def origin(request):
        if request.values("if-none-match") == ['"v1"']:
            return [head(304, {"Etag": '"v1"', "Cache-Control": "max-age=60", "A": "2"})]
        return body(b"hello", headers={"Etag": '"v1"', "Cache-Control": "max-age=0", "A": "1"})

    upstream.handle(origin)
    async with running(tmp_path, upstream, carrier) as (_, client):
        await client.get("/x")
        second = await client.get("/x", headers={"if-none-match": '"other"', "b": "1"})
        assert (second.status_code, second.text, second.headers["a"]) == (200, "hello", "2")
        assert "fwd=stale; fwd-status=304; stored" in told(second)
        assert upstream.requests[1].values("b") == ["1"]
        third = await client.get("/x", headers={"if-none-match": 'W/"v1"'})
        assert (third.status_code, third.content) == (304, b"")
        assert third.headers["etag"] == '"v1"'
        assert "hit" in told(third)
        assert len(upstream.requests) == 2


@pytest.mark.parametrize(
    ("directives", "failure", "status"),
    [
        ("max-age=0, stale-if-error=60", [close()], 200),
        ("max-age=0, stale-if-error=60", body(b"sorry", 503), 200),
        ("max-age=0", [close()], 200),
        ("max-age=0", body(b"sorry", 503), 503),
        ("max-age=0, must-revalidate", [close()], 502),
        ("s-maxage=0", [close()], 502),
        ("no-cache", [close()], 502),
        ("max-age=0, stale-if-error=60, must-revalidate", body(b"sorry", 503), 503),
    ],
)
async def test_when_the_origin_fails(tmp_path, upstream, carrier, directives, failure, status):
    good = body(b"stored", headers={"Cache-Control": directives, "Etag": '"a"'})
    upstream.answers(good, failure)
    async with running(tmp_path, upstream, carrier) as (_, client):
        assert (await client.get("/x")).text == "stored"
        answer = await client.get("/x")
        assert answer.status_code == status
        assert (answer.text == "stored") is (status == 200)
        if status == 200:
            assert "fwd=stale" in told(answer)


async def test_stale_while_revalidate_answers_and_renews_once(tmp_path, upstream, carrier):
    swr = {"Cache-Control": "max-age=1, stale-while-revalidate=60"}
    upstream.answers(
        body(b"old", headers=swr),
        [sleep(2), *body(b"new", headers={"Cache-Control": "max-age=600"})],
    )
    async with running(tmp_path, upstream, carrier) as (_, client):
        await client.get("/x")
        await asyncio.sleep(1.2)
        answers = await asyncio.gather(*(client.get("/x") for _ in range(5)))
        assert {a.text for a in answers} == {"old"}
        assert all("hit; ttl=-" in told(a) or "hit; ttl=0" in told(a) for a in answers)
        await upstream.until(lambda: len(upstream.requests) == 2)
        for _ in range(50):
            last = await client.get("/x")
            if last.text == "new":
                break
            await asyncio.sleep(0.1)
        assert last.text == "new"
        assert len(upstream.requests) == 2


async def test_one_fetch_for_all_who_ask_at_once(tmp_path, upstream, carrier):
    upstream.answer(sleep(0.5), *body(b"one", headers={"Cache-Control": "max-age=60"}))
    async with running(tmp_path, upstream, carrier) as (_, client):
        answers = await asyncio.gather(*(client.get("/x") for _ in range(20)))
        assert {a.text for a in answers} == {"one"}
        assert len(upstream.requests) == 1
        assert sum("collapsed" in told(a) for a in answers) == 19


async def test_followers_of_an_answer_that_is_not_theirs_go_on_at_once(tmp_path, upstream, carrier):
    private = {"Cache-Control": "private"}
    upstream.handle(lambda _: [sleep(0.4), *body(b"own", headers=private)])
    async with running(tmp_path, upstream, carrier) as (_, client):
        answers = await asyncio.gather(*(client.get("/x") for _ in range(10)))
        assert {a.text for a in answers} == {"own"}
        assert len(upstream.requests) == 10
        await asyncio.gather(*(client.get("/x") for _ in range(5)))
        assert len(upstream.requests) == 15


async def test_when_the_leader_leaves_another_leads(tmp_path, upstream, carrier):
    upstream.answer(sleep(1), *body(b"one", headers={"Cache-Control": "max-age=60"}))
    async with running(tmp_path, upstream, carrier) as (gateway, client):
        async with httpx.AsyncClient(base_url=gateway.url) as leader:
            first = asyncio.create_task(leader.get("/x"))
            await upstream.until(lambda: len(upstream.requests) == 1)
            others = [asyncio.create_task(client.get("/x")) for _ in range(5)]
            await asyncio.sleep(0.2)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
        answers = await asyncio.gather(*others)
        assert {a.text for a in answers} == {"one"}
        assert len(upstream.requests) <= 3


async def test_an_unsafe_request_drops_what_is_stored_even_in_flight(tmp_path, upstream, carrier):
    fresh = {"Cache-Control": "max-age=60"}

    def origin(request):
        if request.method == "POST":
            return body(b"done")
        if request.target == "/slow":
            return [sleep(1), *body(b"old", headers=fresh)]
        return body(b"%d" % len(upstream.requests), headers=fresh)

    upstream.handle(origin)
    async with running(tmp_path, upstream, carrier) as (_, client):
        first = (await client.get("/x")).text
        assert (await client.get("/x")).text == first
        await client.post("/x", content=b"y")
        assert (await client.get("/x")).text != first
        slow = asyncio.create_task(client.get("/slow"))
        await upstream.until(lambda: upstream.requests[-1].target == "/slow")
        await client.post("/slow")
        assert (await slow).text == "old"
        count = len(upstream.requests)
        again = asyncio.create_task(client.get("/slow"))
        await upstream.until(lambda: len(upstream.requests) == count + 1)
        await again


async def test_a_cut_answer_is_not_stored(tmp_path, upstream, carrier):
    upstream.answers(
        [head(200, {"Cache-Control": "max-age=60", "Content-Length": "20"}), *cut_body(b"x")[1:],
         close()],
        body(b"whole", headers={"Cache-Control": "max-age=60"}),
    )  # fmt: skip
    async with running(tmp_path, upstream, carrier) as (_, client):
        with pytest.raises(httpx.HTTPError):
            (await client.get("/x")).raise_for_status()
        assert (await client.get("/x")).text == "whole"


async def test_ranges_come_from_a_whole_and_from_parts(tmp_path, upstream, carrier):
    text = b"abcdefghij"
    tag = {"Cache-Control": "max-age=60", "Etag": '"a"'}

    def origin(request):
        spans = request.values("range")
        if request.target == "/whole" or not spans:
            return body(text, headers=tag)
        first, last = (int(n) for n in spans[0].removeprefix("bytes=").split("-"))
        span = {"Content-Range": f"bytes {first}-{last}/10"}
        return body(text[first : last + 1], 206, tag | span)

    upstream.handle(origin)
    async with running(tmp_path, upstream, carrier) as (_, client):

        async def ask(path, span):
            answer = await client.get(path, headers={"range": span})
            return answer.status_code, answer.text, answer.headers.get("content-range")

        await client.get("/whole")
        assert await ask("/whole", "bytes=2-4") == (206, "cde", "bytes 2-4/10")
        assert await ask("/whole", "bytes=10-") == (416, "", "bytes */10")
        count = len(upstream.requests)
        assert count == 1
        await ask("/part", "bytes=0-4")
        assert await ask("/part", "bytes=1-3") == (206, "bcd", "bytes 1-3/10")
        assert len(upstream.requests) == count + 1
        await ask("/part", "bytes=5-9")
        whole = await client.get("/part")
        assert (whole.status_code, whole.text) == (200, "abcdefghij")
        assert len(upstream.requests) == count + 2


async def test_interim_answers_and_trailers_pass_and_events_are_replayed(
    tmp_path, upstream, carrier
):
    fresh = {"Cache-Control": "max-age=60"}

    def origin(request):
        if request.target == "/events":
            return sse("one", "two")
        return [early_hints(), *chunked(b"a", b"b", headers=fresh, trailers={"X-Sum": "1"})]

    upstream.handle(origin)
    rules = '[[addon.rules]]\npaths = ["/events"]\nmode = "override"\nttl = "60s"'
    async with running(tmp_path, upstream, carrier, rules) as (_, client):
        first = await client.get("/x")
        second = await client.get("/x")
        assert (first.text, second.text) == ("ab", "ab")
        assert "x-sum" not in second.headers
        live = await client.get("/events")
        again = await client.get("/events")
        assert again.text == live.text
        assert "data: two" in again.text
        assert again.headers["content-type"].startswith("text/event-stream")
        assert len(upstream.requests) == 2


async def test_a_purge_reaches_every_worker(tmp_path, upstream, carrier):
    upstream.handle(
        lambda _: body(
            b"%d" % len(upstream.requests),
            headers={"Cache-Control": "max-age=60", "Cache-Tag": "all"},
        )
    )
    async with running(tmp_path, upstream, carrier, workers=2) as (gateway, _):

        async def each() -> set[str]:
            """What new connections get, which the kernel spreads over the workers."""
            found = set()
            for _ in range(12):
                async with httpx.AsyncClient(base_url=gateway.url) as one:
                    found.add((await one.get("/x")).text)
            return found

        await each()
        assert len(before := await each()) == 1
        async with httpx.AsyncClient(base_url=gateway.url) as ops:
            denied = await ops.request("PURGE", "/x")
            assert denied.status_code == 403
            key = {"authorization": "Bearer ops-key-0123456789abcdef"}
            done = await ops.request("PURGE", "/x", headers=key)
            assert done.json() == {"purged": 1, "scope": "url", "soft": False}
        after = await each()
        assert not after & before
        out = tidegate(gateway, "cache", "purge", "--tag", "all")
        assert out == "1 dropped"
        assert not (await each()) & after


def tidegate(gateway, *arguments: str) -> str:
    where = {
        "TIDEGATE_CONFIG": str(gateway.file),
        "TIDEGATE_STATE": str(gateway.folder / "state"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tidegate.cli.main", *arguments],
        capture_output=True, text=True, timeout=60, check=False, env=os.environ | where,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


async def test_the_command_line_tells_and_warms(tmp_path, upstream):
    upstream.answer(*body(b"hello", headers={"Cache-Control": "max-age=60", "Vary": "foo"}))
    async with running(tmp_path, upstream, "lane") as (gateway, _):
        url = f"{gateway.url}/x"
        out = await asyncio.to_thread(tidegate, gateway, "cache", "warm", gateway.url, url)
        assert out.startswith("200 ")
        assert "stored" in out
        await asyncio.sleep(0.5)
        story = await asyncio.to_thread(tidegate, gateway, "cache", "explain", url)
        assert "would be answered from the cache: stored and fresh" in story
        assert "200, 5 bytes" in story
        story = await asyncio.to_thread(tidegate, gateway, "cache", "explain", url, "-H", "foo: 1")
        assert "negotiated for other request fields" in story
        told = await asyncio.to_thread(tidegate, gateway, "cache", "explain", url, "--json")
        (stored,) = json.loads(told)["stored"]
        assert (stored["status"], stored["bytes"], stored["vary"]) == (200, 5, {"foo": ""})
        stats = await asyncio.to_thread(tidegate, gateway, "cache", "stats")
        assert stats.split()[:2] == ["responses", "1"]
        stats = await asyncio.to_thread(tidegate, gateway, "cache", "stats", "--json")
        assert json.loads(stats)["entries"] == 1
        purged = await asyncio.to_thread(tidegate, gateway, "cache", "purge", "--all", "--json")
        assert json.loads(purged) == {"purged": 1, "scope": "all", "soft": False}


async def test_a_reload_keeps_what_is_stored(tmp_path, upstream):
    upstream.answer(*body(b"hello", headers={"Cache-Control": "max-age=60"}))
    async with running(tmp_path, upstream, "lane") as (gateway, client):
        await client.get("/x")
        config = CONFIG.format(upstream=upstream.url, options="stale_if_error = 5", workers=1)
        await gateway.reload(config.replace("[gateway]", '[gateway]\ncarrier = "lane"', 1))
        assert "hit" in told(await client.get("/x"))
        assert len(upstream.requests) == 1
