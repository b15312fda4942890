"""Answers of models from the cache: what is the same call, what is kept, and for whom."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from tidegate_cache_ai import CacheAi
from tidegate_cache_ai.keys import call_name

from tidegate.api import Exchange, Plugin, Principal, hook
from tidegate.api.caching import cache_hints
from tidegate.api.formats import AI_CALL, AI_SPENT, AiSpent
from tidegate.testing import Cut, Harness, Use, make_answer, make_exchange
from tidegate.testing.contracts import CacheContract, PluginContract

ADA, BOB, EVE = Principal("ada", "red"), Principal("bob", "red"), Principal("eve", "blue")
URL = "http://api.test/v1/chat/completions"
CALL = {
    "model": "m-1",
    "temperature": 0,
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
}
WHOLE = {
    "id": "c-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m-1",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello, you."},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17},
}


def changed(value: dict[str, Any], **news: Any) -> dict[str, Any]:
    return {**json.loads(json.dumps(value)), **news}


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    head = {"id": "c-2", "object": "chat.completion.chunk", "created": 1, "model": "m-1"}
    return f"data: {json.dumps({**head, 'choices': [choice], **more})}\n\n"


STREAM = (
    chunk({"role": "assistant", "content": ""})
    + chunk({"content": "Hello, "})
    + chunk({"content": "you."})
    + chunk({}, "stop")
    + "data: [DONE]\n\n"
)


def whole(**news: Any) -> Any:
    return make_answer(200, changed(WHOLE, **news))


def streamed(text: str = STREAM) -> Any:
    return make_answer(200, text, {"content-type": "text/event-stream"})


def ended(reason: str, **message: Any) -> Any:
    message = {"role": "assistant", "content": "Hel", **message}
    return whole(choices=[{"index": 0, "message": message, "finish_reason": reason}])


class TestContract(PluginContract, CacheContract):
    name = "cache-ai"

    def options(self):
        return {"size": "4MiB", "memory": "1MiB"}

    def cacheable_exchange(self, principal=None):
        return make_exchange("POST", URL, body=CALL, principal=principal)

    def cacheable_answer(self):
        return whole()

    good_exchange = cacheable_exchange


def use(**options: Any) -> Use:
    return Use(CacheAi, {"size": "4MiB", "memory": "1MiB", **options}, name="cache-ai")


async def ask(
    harness: Harness,
    body: Any = CALL,
    principal: Principal | None = ADA,
    *,
    url: str = URL,
    **headers: str,
) -> Exchange:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return await harness.send(make_exchange("POST", url, fields, body, principal=principal))


def text_of(exchange: Exchange) -> str:
    """What the model said, whichever way it was sent."""
    assert exchange.response is not None
    body = exchange.response.content or b""
    if exchange.response.headers["content-type"] == "application/json":
        return json.loads(body)["choices"][0]["message"]["content"]
    events = [line[6:] for line in body.decode().splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    choices = [choice for event in events[:-1] for choice in json.loads(event)["choices"]]
    assert choices[-1]["finish_reason"] == "stop"
    return "".join(choice["delta"].get("content") or "" for choice in choices)


@pytest.mark.parametrize("then", [False, True])
@pytest.mark.parametrize("first", [False, True])
async def test_one_answer_serves_streams_and_whole_answers(first: bool, then: bool) -> None:
    async with Harness(use(), answer=streamed() if first else whole()) as harness:
        one = await ask(harness, changed(CALL, stream=first))
        two = await ask(harness, changed(CALL, stream=then))
        assert (one.from_cache, two.from_cache) == (False, True)
        assert text_of(one) == text_of(two) == "Hello, you."
        assert two.response is not None
        kind = "text/event-stream" if then else "application/json"
        assert two.response.headers["content-type"] == kind
        assert two.response.headers["cache-status"] == "tidegate-ai; hit; ttl=86400"
        assert len(harness.sent) == 1


async def test_a_hit_shows_usage_and_what_it_saves() -> None:
    class Priced(Plugin):
        """Stands where the accounts are kept."""

        @hook
        def transform_request(self, exchange: Exchange) -> None:
            exchange.at_end(self.settle)

        def settle(self, exchange: Exchange) -> None:
            call = exchange.stash.get(AI_CALL)
            if call is not None and call.usage is None and not exchange.from_cache:
                spent = AiSpent("openai", "m-1", "openai-chat", call.usage, Decimal("0.00123"))
                exchange.stash[AI_SPENT] = spent

    async with Harness(Priced, use(), answer=whole()) as harness:
        await ask(harness)
        for stream in (False, True):
            hit = await ask(harness, changed(CALL, stream=stream))
            assert hit.response is not None
            assert hit.response.headers["x-tidegate-tokens-saved"] == "input=12, output=5"
            assert hit.response.headers["x-tidegate-cost-saved"] == "0.00123"
            assert hit.notes["cache_ai"] == {
                "hit": True, "input": 12, "output": 5, "saved_usd": 0.00123
            }  # fmt: skip
            call = hit.stash[AI_CALL]
            assert call.usage is not None
            assert (call.usage.input, call.usage.output, call.finish) == (12, 5, "stop")
        counters = harness.counters("cache-ai")
        assert counters["hits_total"] == 2
        assert counters["cost_saved_microdollars_total"] == 2460
        assert counters["output_tokens_saved_total"] == 10


@pytest.mark.parametrize(
    "other",
    [
        {"messages": CALL["messages"][1:]},
        {"messages": [{"role": "user", "content": "Be brief."}, CALL["messages"][1]]},
        {"model": "m-2"},
        {"temperature": -0.1},
        {"top_p": 0.5},
        {"seed": 7},
        {"max_tokens": 9},
        {"n": 2},
        {"stop": ["x"]},
        {"response_format": {"type": "json_object"}},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
        {"something_new": 1},
    ],
)
async def test_another_call_is_not_answered_with_this_one(other: dict[str, Any]) -> None:
    async with Harness(use(), answer=whole()) as harness:
        await ask(harness)
        assert not (await ask(harness, changed(CALL, **other))).from_cache


@pytest.mark.parametrize(
    "fields",
    [
        {"openai_beta": "x"},
        {"anthropic_version": "2023-06-01"},
        {"x_goog_user_project": "p"},
        {"x_region": "eu"},
    ],
)
async def test_fields_that_have_a_part_in_the_answer_are_in_the_key(fields: Any) -> None:
    async with Harness(use(headers=["X-Region"]), answer=whole()) as harness:
        await ask(harness)
        assert not (await ask(harness, **fields)).from_cache
        assert (await ask(harness, **fields)).from_cache
        assert (await ask(harness, accept="*/*", x_stainless_os="Linux")).from_cache


async def test_host_path_and_query_are_in_the_key() -> None:
    async with Harness(use(), answer=whole()) as harness:
        await ask(harness)
        for url in (
            "http://other.test/v1/chat/completions",
            "http://api.test/openai/v1/chat/completions",
            URL + "?api-version=2",
        ):
            assert not (await ask(harness, url=url)).from_cache


def test_spelling_makes_no_other_call() -> None:
    def name(body: dict[str, Any], path: str = "/v1/x") -> bytes:
        return call_name("h", path, "", body, (), ())

    assert name({"a": 1, "b": {"c": 2, "d": 3}}) == name({"b": {"d": 3.0, "c": 2}, "a": 1.0})
    assert name({"a": 1, "stream": True}) == name({"a": 1, "stream_options": {}})
    assert name({}, "/m/x:streamGenerateContent") == name({}, "/m/x:generateContent")
    assert name({}, "/model/x/converse-stream") == name({}, "/model/x/converse")
    for one, other in (
        ({"a": True}, {"a": 1}),
        ({"a": "1"}, {"a": 1}),
        ({"a": None}, {}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": 0.1}, {"a": 0.2}),
        ({"properties": {"x": 1, "y": 2}}, {"properties": {"y": 2, "x": 1}}),
        ({"properties": {"x": 1}}, {"properties": [["x", 1]]}),
        ({"properties": {"x": 1}}, {"properties": {"": [["x", 1]]}}),
    ):
        assert name(one) != name(other)


# -- whose it is --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("partition", "shared_with"),
    [("principal", []), ("team", [BOB]), ("shared", [BOB, EVE])],
)
async def test_partitions(partition: str, shared_with: list[Principal]) -> None:
    async with Harness(use(partition=partition), answer=whole()) as harness:
        await ask(harness, principal=ADA)
        for other in (BOB, EVE, None):
            assert (await ask(harness, principal=other)).from_cache is (other in shared_with)


async def test_callers_without_a_principal_are_told_apart_by_what_they_send_on() -> None:
    async with Harness(use(partition="shared"), answer=whole()) as harness:
        for fields in (
            {},
            {"authorization": "Bearer a"},
            {"authorization": "Bearer b"},
            {"x_api_key": "a"},
            {"cookie": "a=b"},
        ):
            assert not (await ask(harness, principal=None, **fields)).from_cache
            assert (await ask(harness, principal=None, **fields)).from_cache


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(CALL)[:-1] + ', "model": "m-1"}',
        json.dumps(CALL).replace('"content": "Hi"', '"content": "evil", "content": "Hi"'),
    ],
)
async def test_a_body_that_can_be_read_in_two_ways_puts_no_answer_there(body: str) -> None:
    async with Harness(use(partition="shared"), answer=whole()) as harness:
        await ask(harness, body, principal=EVE)
        assert not (await ask(harness)).from_cache


# -- what is kept -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (ended("stop"), True),
        (ended("tool_calls", tool_calls=[{"id": "t", "type": "function", "function":
            {"name": "f", "arguments": "{}"}}]), True),
        (ended("length"), False),
        (ended("content_filter"), False),
        (ended("stop", content=None, refusal="I can not."), False),
        (whole(choices=[]), False),
        (make_answer(200, {"error": {"message": "no"}}), False),
        (make_answer(201, WHOLE), False),
        (make_answer(429, {"error": {"message": "later"}}), False),
        (make_answer(200, "Hello", {"content-type": "text/plain"}), False),
        (make_answer(200, WHOLE, {"cache-control": "no-store"}), False),
        (Cut(whole()), False),
    ],
)  # fmt: skip
async def test_only_what_ended_well_is_kept(answer: Any, kept: bool) -> None:
    async with Harness(use(), answer=answer) as harness:
        await ask(harness)
        harness.answer = whole()
        assert (await ask(harness)).from_cache is kept


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (STREAM, True),
        (STREAM.replace("data: [DONE]\n\n", ""), True),  # each candidate has ended
        (STREAM.replace('"stop"', '"length"'), False),
        (STREAM.replace('"stop"', '"content_filter"'), False),
        (STREAM.partition('"stop"')[0], False),
        (STREAM.partition("you.")[0] + '\n\ndata: {"error": {"message": "broke"}}\n\n', False),
    ],
)
async def test_of_streams_as_well(text: str, kept: bool) -> None:
    async with Harness(use(), answer=streamed(text)) as harness:
        await ask(harness, changed(CALL, stream=True))
        assert (await ask(harness, changed(CALL, stream=True))).from_cache is kept


async def test_how_an_answer_must_have_ended_is_an_option() -> None:
    async with Harness(use(finish=["length"]), answer=ended("length")) as harness:
        await ask(harness)
        assert (await ask(harness)).from_cache
        harness.answer = whole()
        await ask(harness, changed(CALL, seed=1))
        assert not (await ask(harness, changed(CALL, seed=1))).from_cache


@pytest.mark.parametrize(
    ("option", "temperature", "kept"),
    [(0, 0, True), (0, 0.1, False), (0, None, False), (1, None, True), (1, 0.7, True)],
)
async def test_sampled_answers_are_kept_where_that_is_wished(
    option: float, temperature: float | None, kept: bool
) -> None:
    body = changed(CALL, temperature=temperature)
    async with Harness(use(temperature=option), answer=whole()) as harness:
        first = await ask(harness, body)
        assert (await ask(harness, body)).from_cache is kept
        assert first.response is not None
        fwd = "fwd=uri-miss" if kept else 'fwd=bypass; detail="its temperature is'
        assert fwd in first.response.headers["cache-status"]


@pytest.mark.parametrize("extra", [{"previous_response_id": "r"}, {"background": True}])
async def test_calls_that_lean_on_others_are_not_kept(extra: dict[str, Any]) -> None:
    async with Harness(use(), answer=whole()) as harness:
        await ask(harness, changed(CALL, **extra))
        assert not (await ask(harness, changed(CALL, **extra))).from_cache


async def test_a_larger_answer_passes_and_is_not_kept() -> None:
    async with Harness(use(max_answer="100B"), answer=whole()) as harness:
        assert text_of(await ask(harness)) == "Hello, you."
        assert not (await ask(harness)).from_cache


async def test_a_call_of_many_megabytes_passes_by() -> None:
    body = changed(CALL, user="x" * (4 << 20))
    async with Harness(use(), answer=whole()) as harness:
        assert text_of(await ask(harness, body)) == "Hello, you."
        assert not (await ask(harness, body)).from_cache


async def test_embeddings_are_kept() -> None:
    url = "http://api.test/v1/embeddings"
    body = {"model": "e-1", "input": "Hi"}
    answer = {"data": [{"index": 0, "embedding": [0.5]}], "usage": {"prompt_tokens": 2}}
    async with Harness(use(), answer=make_answer(200, answer)) as harness:
        first = await ask(harness, body, url=url)
        again = await ask(harness, body, url=url)
        assert (first.from_cache, again.from_cache) == (False, True)
        assert again.response is not None
        assert json.loads(again.response.content or b"") == answer
        assert not (await ask(harness, changed(body, dimensions=3), url=url)).from_cache
        harness.answer = make_answer(200, {"data": []})
        await ask(harness, changed(body, input="Ho"), url=url)
        assert not (await ask(harness, changed(body, input="Ho"), url=url)).from_cache


async def test_what_is_no_call_passes_by() -> None:
    async with Harness(use(), answer=make_answer(200, "x")) as harness:
        for url in ("http://api.test/v1/models", "http://api.test/other"):
            passed = await ask(harness, url=url)
            assert passed.response is not None
            assert "cache-status" not in passed.response.headers
        await ask(harness, "no JSON")
        assert not (await ask(harness, "no JSON")).from_cache


# -- Cache-Control ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "served"),
    [("no-cache", False), ("no-store", False), ("max-age=0", False), ("max-age=59", False),
     ("max-age=60", True), ("max-age=x", False), ("only-if-cached", True), ("min-fresh=1", True)],
)  # fmt: skip
async def test_what_a_request_asks_of_the_cache(wish: str, served: bool) -> None:
    async with Harness(use(), answer=whole()) as harness:
        await ask(harness)
        later = make_exchange(
            "POST", URL, {"cache-control": wish}, CALL, principal=ADA, now=1_750_000_060.0
        )
        assert (await harness.send(later)).from_cache is served


async def test_no_store_keeps_nothing_and_no_cache_renews() -> None:
    async with Harness(use(), answer=whole()) as harness:
        await ask(harness, cache_control="no-store")
        assert not (await ask(harness)).from_cache
        harness.answer = ended("stop", content="News.")
        await ask(harness, cache_control="no-cache")
        assert text_of(await ask(harness)) == "News."


async def test_only_if_cached_is_a_504_in_the_callers_shape() -> None:
    async with Harness(use(), answer=whole()) as harness:
        refused = await ask(harness, cache_control="only-if-cached")
        assert refused.status == 504
        assert refused.response is not None
        error = json.loads(refused.response.content or b"")["error"]
        assert error["code"] == "answer_not_cached"
        assert harness.sent == []


async def test_an_answer_is_given_for_its_time() -> None:
    async with Harness(use(ttl="60s"), answer=whole()) as harness:
        await ask(harness)
        for after, served in ((59, True), (61, False)):
            later = make_exchange(
                "POST", URL, body=CALL, principal=ADA, now=1_750_000_000.0 + after
            )
            assert (await harness.send(later)).from_cache is served


async def test_what_was_purged_while_it_was_asked_stays_out() -> None:
    async with Harness(use(), answer=whole()) as harness:
        tier = harness.plugin("cache-ai").tier

        def answering(request: Any) -> Any:
            assert tier.purge("all") == 0
            return whole()

        harness.answer = answering
        await ask(harness)
        harness.answer = whole()
        assert not (await ask(harness)).from_cache
        assert (await ask(harness)).from_cache
        assert tier.purge("tag", b"model:m-1") == 1
        assert not (await ask(harness)).from_cache


async def test_what_other_plugins_know_is_in_the_key_and_in_the_tags() -> None:
    class Tenants(Plugin):
        @hook
        def transform_request(self, exchange: Exchange) -> None:
            hints = cache_hints(exchange)
            hints.key.append((exchange.header("x-tenant") or "none").encode())
            hints.tags.append("service:chat")

    async with Harness(Tenants, use(partition="shared"), answer=whole()) as harness:
        for tenant in ("one", "two"):
            assert not (await ask(harness, x_tenant=tenant)).from_cache
            assert (await ask(harness, x_tenant=tenant)).from_cache
        assert harness.plugin("cache-ai").tier.purge("tag", b"service:chat") == 2
        assert not (await ask(harness, x_tenant="one")).from_cache
