"""Nobody reads another's answer, and nobody puts words into another's."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest
from tidegate_cache_http import CacheHttp

from tidegate.api import Client, Plugin, Principal, hook, upstream_from_url
from tidegate.api.caching import cache_hints
from tidegate.testing import Harness, Use, make_answer, make_exchange
from tidegate.testing.contracts import CacheContract, PluginContract

ADA, BOB = Principal("ada", "red"), Principal("bob", "red")
URL = "http://api.test/kept"


class TestContract(PluginContract, CacheContract):
    name = "cache-http"

    def options(self):
        return {"size": "4MiB", "memory": "1MiB"}


def use(**options) -> Use:
    return Use(CacheHttp, {"size": "4MiB", "memory": "1MiB", **options}, name="cache-http")


def reflecting(request):
    """An origin that marks its answers for all, and says who asked."""
    seen = [
        f"{name.decode()}={value.decode()}"
        for name, value in request.headers.fields
        if name.lower() not in (b"host", b"user-agent")
    ]
    text = f"{request.method} {request.path} {' '.join(sorted(seen))} {len(sent)}"
    sent.append(text)
    return make_answer(200, text, answer_fields)


sent: list[str] = []
answer_fields: dict[str, str] = {}


@pytest.fixture(autouse=True)
def _fresh():
    sent.clear()
    answer_fields.clear()
    answer_fields["cache-control"] = "max-age=600"


async def ask(harness, principal=None, *, url=URL, method="GET", client=None, **fields):
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    options = {} if client is None else {"client": client}
    exchange = make_exchange(method, url, headers, principal=principal, **options)
    exchange.request.data.authority = urlsplit(url).netloc.encode()  # as carriers set it
    await harness.send(exchange)
    return exchange


@pytest.mark.parametrize(
    ("partition", "cc", "shared"),
    [
        ("identity", "max-age=600", False),
        ("identity", "public, max-age=600", False),
        ("identity", "s-maxage=600", False),
        ("trust_origin", "max-age=600", False),
        ("trust_origin", "public, max-age=600", True),
        ("trust_origin", "s-maxage=600", True),
        ("trust_origin", "must-revalidate, max-age=600", True),
        ("trust_origin", "private, max-age=600", False),
        ("shared", "max-age=600", True),
        ("shared", "private, max-age=600", False),
    ],
)
@pytest.mark.parametrize("other", [BOB, None, Principal("ada", "blue"), Principal("ada")])
async def test_whose_answer_another_principal_gets(partition, cc, shared, other):
    answer_fields["cache-control"] = cc
    async with Harness(use(partition=partition), answer=reflecting) as harness:
        await ask(harness, ADA)
        again = await ask(harness, ADA)
        assert again.from_cache is ("private" not in cc)
        assert (await ask(harness, other)).from_cache is shared


@pytest.mark.parametrize(
    "trick",
    [
        {"authorization": "Bearer ada"},
        {"cookie": "session=ada"},
        {"x_principal": "red/ada"},
        {"range": "bytes=0-3"},
        {"if_none_match": "*"},
        {"cache_control": "only-if-cached"},
        {"cache_control": "max-stale"},
        {"method": "HEAD"},
        {"url": "http://api.test/%6bept"},
        {"url": "http://API.test/kept"},
        {"x_http_method_override": "GET"},
        {"x_forwarded_host": "api.test"},
    ],
)
async def test_no_trick_reads_what_is_stored_for_another(trick):
    async with Harness(use(), answer=reflecting) as harness:
        await ask(harness, ADA)
        assert (await ask(harness, ADA)).from_cache
        exchange = await ask(harness, BOB, **trick)
        body = exchange.response.raw_content if exchange.response else b""
        assert b" 0" not in (body or b"")[-2:]
        if exchange.from_cache:  # a local 504 for only-if-cached
            assert exchange.response.status_code == 504


async def test_an_answer_to_authorization_reaches_nobody_else():
    async with Harness(use(), answer=reflecting) as harness:
        await ask(harness, authorization="Bearer ada")
        assert not (await ask(harness, authorization="Bearer bob")).from_cache
        assert not (await ask(harness)).from_cache
        assert "Bearer" not in (await ask(harness)).response.text


async def test_vary_on_cookie_keeps_sessions_apart():
    answer_fields["vary"] = "cookie"
    async with Harness(use(), answer=reflecting) as harness:
        await ask(harness, cookie="s=1")
        assert not (await ask(harness, cookie="s=2")).from_cache
        assert not (await ask(harness)).from_cache
        assert (await ask(harness, cookie="s=1")).from_cache


@pytest.mark.parametrize(
    "poison",
    [
        {"x_http_method_override": "POST"},
        {"x_method_override": "POST"},
        {"x_original_url": "/evil"},
        {"x_rewrite_url": "/evil"},
        {"x_host": "evil.test"},
        {"x_forwarded_scheme": "nothttps"},
        {"x_original_host": "evil.test"},
        {"front_end_https": "on"},
        {"content_length": "9"},
        {"transfer_encoding": "chunked"},
        {"cache_control": "no-store"},
    ],
)
async def test_a_request_that_origins_take_as_another_stores_nothing(poison):
    async with Harness(use(), answer=reflecting) as harness:
        await ask(harness, **poison)
        victim = await ask(harness)
        assert not victim.from_cache
        assert (await ask(harness)).response.text == victim.response.text
        # and the attacker's next request does not push the stored one out
        await ask(harness, **poison)
        assert (await ask(harness)).from_cache


async def test_what_a_trusted_proxy_tells_is_in_the_key():
    behind = Client("192.0.2.7", 1, "10.0.0.1")
    async with Harness(use(), answer=reflecting) as harness:
        await ask(harness, client=behind, x_forwarded_host="evil.test")
        assert not (await ask(harness, client=behind, x_forwarded_host="a.test")).from_cache
        assert not (await ask(harness)).from_cache
        assert (await ask(harness, client=behind, x_forwarded_host="evil.test")).from_cache


async def test_urls_that_differ_are_different():
    async with Harness(use(), answer=reflecting) as harness:
        for path in ("/a", "/A", "/a?x=1", "/a?x=1&y=2", "/a?y=2&x=1", "/a/"):
            assert not (await ask(harness, url=f"http://api.test{path}")).from_cache
        assert not (await ask(harness, url="http://other.test/a")).from_cache
        assert not (await ask(harness, url="http://api.test:8080/a")).from_cache


async def test_a_recipe_leaves_query_parameters_out_and_takes_fields_in():
    recipe = {"ignore_query": ["utm_*", "fbclid"], "headers": ["X-Region"]}
    async with Harness(use(key=recipe), answer=reflecting) as harness:
        await ask(harness, url=f"{URL}?a=1&utm_source=x", x_region="eu")
        assert (await ask(harness, url=f"{URL}?a=1&fbclid=y", x_region="eu")).from_cache
        assert not (await ask(harness, url=f"{URL}?a=1", x_region="us")).from_cache
        assert not (await ask(harness, url=f"{URL}?a=2", x_region="eu")).from_cache
        assert not (await ask(harness, url=f"{URL}?a=1")).from_cache


async def test_rules_hold_for_their_paths():
    rules = [
        {"paths": ["/live/*"], "mode": "bypass"},
        {"paths": ["/static/*"], "mode": "override", "ttl": "1h", "partition": "shared"},
    ]
    answer_fields["cache-control"] = "no-store"
    async with Harness(use(rules=rules), answer=reflecting) as harness:
        for _ in range(2):
            live = await ask(harness, url="http://api.test/live/x")
            static = await ask(harness, ADA, url="http://api.test/static/x")
        assert not live.from_cache
        assert b"fwd=bypass" in dict(live.response.headers.fields)[b"cache-status"]
        assert static.from_cache
        assert (await ask(harness, BOB, url="http://api.test/static/x")).from_cache


@pytest.mark.parametrize(
    ("purge", "principal", "status"),
    [
        (["red/*"], ADA, 200),
        (["*"], ADA, 200),
        (["red/ad"], ADA, 403),
        (["blue/*"], ADA, 403),
        (["*"], None, 403),
    ],
)
async def test_who_may_purge(purge, principal, status):
    async with Harness(use(purge=purge), answer=reflecting) as harness:
        await ask(harness)
        purged = await ask(harness, principal, method="PURGE")
        assert purged.response.status_code == status
        assert (await ask(harness)).from_cache is (status != 200)


async def test_an_intercepted_host_name_is_not_believed():
    """Who answered is part of the key: a client may name any host towards any address."""
    async with Harness(use(), answer=reflecting) as harness:
        for expected in (False, True):
            for address in ("http://192.0.2.1", "http://192.0.2.66"):
                exchange = make_exchange("GET", URL)
                exchange.upstream = upstream_from_url(address)
                await harness.send(exchange)
                assert exchange.from_cache is expected
        assert not (await ask(harness)).from_cache


class Tenants(Plugin):
    """Tells requests apart by what it knows of them, and tags what is stored."""

    @hook
    def transform_request(self, exchange):
        hints = cache_hints(exchange)
        if tenant := exchange.header("x-tenant"):
            hints.key.append(tenant.encode())
        hints.tags.append(f"service:{exchange.path.strip('/')}")


async def test_what_other_plugins_know_is_in_the_key_and_in_the_tags():
    answer_fields.update({"cache-tag": "a, b", "etag": '"1"'})
    async with Harness(Tenants, use(), answer=reflecting) as harness:
        store = harness.plugin("cache-http").store
        for fields in ({"x_tenant": "one"}, {"x_tenant": "two"}, {}):
            assert not (await ask(harness, **fields)).from_cache
            assert (await ask(harness, **fields)).from_cache
        other = "http://api.test/other"
        await ask(harness, url=other)
        assert store.drain()
        # a validation leaves what others have tagged
        harness.answer = lambda _: make_answer(304, "", {"etag": '"1"', "cache-tag": "c"})
        assert (await ask(harness, url=other, cache_control="no-cache")).status == 200
        harness.answer = reflecting
        assert store.drain()
        assert await purge(store, "tag", b"a") == 3
        assert (await ask(harness, url=other)).from_cache
        assert await purge(store, "tag", b"service:other") == 1
        assert not (await ask(harness, url=other)).from_cache


async def purge(store, scope, value):
    loop = asyncio.get_running_loop()
    count = loop.create_future()
    done = lambda number: loop.call_soon_threadsafe(count.set_result, number)  # noqa: E731
    store.purge(scope, value, soft=False, done=done)
    return await count
