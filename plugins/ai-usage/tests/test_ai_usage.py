"""The addon on exchanges: what is noted, counted, told and settled."""

from __future__ import annotations

import gzip
import json
from typing import ClassVar

import pytest
from tidegate_ai_usage import AiUsage

from tidegate.api import Exchange, Plugin, Principal, Tls, Upstream, hook, upstream_from_url
from tidegate.api.errors import UPSTREAM_TIMEOUT, UPSTREAM_UNREACHABLE
from tidegate.api.formats import AI_CALL, AI_SPENT, AiCall
from tidegate.testing import Cut, Harness, Use, make_answer, make_exchange
from tidegate.testing.contracts import PluginContract, TransformContract

JSON = {"content-type": "application/json"}
SSE = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
OPENAI = upstream_from_url("https://api.openai.com")
CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-4o-2024-08-06",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello there."},
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "total_tokens": 1100,
        "prompt_tokens_details": {"cached_tokens": 400},
    },
}
ASKED = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Say hello."}]}


class TestContract(PluginContract, TransformContract):
    name = "ai-usage"

    def good_exchange(self):
        return make_exchange("POST", "http://api.test/v1/chat/completions", body=ASKED)

    def answer(self):
        return make_answer(200, json.dumps(CHAT), JSON)


class TestContractWithHeaders(TestContract):
    def options(self):
        return {"headers": True, "count_prompts": True}


def call(path: str = "/v1/chat/completions", body=ASKED, **options):
    return make_exchange("POST", f"http://api.test{path}", body=body, **options)


def harness(answer, upstream=OPENAI, **options):
    return Harness(Use(AiUsage, options), answer=answer, route=upstream)


async def note(answer, exchange=None, **options):
    async with harness(answer, **options) as running:
        done = await running.send(exchange or call())
        await running.runtime.flush()
        return done.notes.get("ai"), done, running.counters()


async def test_a_whole_answer_is_noted_priced_and_counted():
    said, done, counters = await note(make_answer(200, json.dumps(CHAT), JSON))
    assert said["provider"] == "openai"
    assert said["model"] == "gpt-4o-2024-08-06"
    assert (said["input"], said["output"], said["cache_read"]) == (1000, 100, 400)
    # 600 at 2.50, 400 at 1.25, 100 at 10.00 dollars per million
    assert said["cost_usd"] == pytest.approx(0.003)
    assert (said["finish"], said["estimated"], said["streamed"]) == ("stop", False, False)
    spent = done.stash[AI_SPENT]
    assert str(spent.cost.normalize()) == "0.003"
    assert spent.usage.input == 1000
    assert counters["calls_total"] == 1
    assert counters["input_tokens_total:openai/gpt-4o-2024-08-06"] == 1000
    assert counters["cost_microdollars_total"] == 3000


async def test_an_encoded_answer_is_read_as_well():
    body = gzip.compress(json.dumps(CHAT).encode())
    said, _, _ = await note(make_answer(200, body, {**JSON, "content-encoding": "gzip"}))
    assert (said["input"], said["output"]) == (1000, 100)


async def stream(*events, cut=False, **options):
    """The note of a stream of chat chunks."""
    text = "".join(f"data: {json.dumps(e)}\n\n" for e in events)
    answer = make_answer(200, text, SSE)
    return await note(Cut(answer) if cut else answer, **options)


def chunk(text, **more):
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None, **more}
    return {"model": "gpt-4o-2024-08-06", "choices": [choice]}


END = {"model": "gpt-4o-2024-08-06", "choices": [{"delta": {}, "finish_reason": "stop"}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 3}}


async def test_the_figures_of_a_stream_are_the_providers():
    said, _, _ = await stream(chunk("Hello"), chunk(" there."), END, USAGE)
    assert (said["input"], said["output"], said["estimated"]) == (11, 3, False)
    assert (said["streamed"], said["finish"]) == (True, "stop")


async def test_where_the_provider_says_nothing_words_are_counted():
    said, done, counters = await stream(chunk("Hello"), chunk(" there."), END, count_prompts=True)
    # "Say hello." is 3 tokens, framed by 6; "Hello there." is 3 and an end
    assert (said["input"], said["output"], said["estimated"]) == (9, 4, False)
    assert done.stash[AI_SPENT].usage.output == 4
    assert counters["output_tokens_total"] == 4
    assert counters["calls_total"] == 1


async def test_a_stream_that_is_cut_costs_what_crossed_the_wire():
    said, done, _ = await stream(chunk("Hello there."), cut=True, count_prompts=True)
    assert done.outcome != "answered" or said["finish"] is None
    assert (said["input"], said["output"]) == (9, 4)
    assert said["cost_usd"] == pytest.approx(9 * 2.5e-6 + 4 * 10e-6)


async def test_a_model_without_a_tokenizer_is_estimated():
    asked = call(body={**ASKED, "model": "strange-1"})
    answer = make_answer(200, 'data: {"choices":[{"delta":{"content":"Hi there"}}]}\n\n', SSE)
    said, _, _ = await note(answer, asked, count_prompts=True)
    assert (said["model"], said["estimated"], said["cost_usd"]) == ("strange-1", True, None)
    assert said["output"] >= 2


async def test_callers_are_told_on_whole_answers():
    _, done, _ = await note(make_answer(200, json.dumps(CHAT), JSON), headers=True)
    assert done.response.headers["x-tidegate-tokens"] == "input=1000, output=100, cached=400"
    assert done.response.headers["x-tidegate-cost"] == "0.003"


async def test_a_stream_passes_where_callers_are_told():
    said, done, _ = await stream(chunk("Hello"), END, USAGE, headers=True)
    assert "x-tidegate-cost" not in done.response.headers
    assert said["output"] == 3


@pytest.mark.parametrize(
    "body",
    [
        {"orders": []},
        {"usage": {"disk": 5}, "status": "completed"},
        {"type": "survey", "content": "Yes.", "text": "Very good."},
    ],
)
async def test_an_answer_that_is_none_of_a_model_is_left_alone(body):
    upstream = upstream_from_url("http://shop.internal")
    answer = make_answer(200, json.dumps(body), JSON)
    asked = call("/surveys/responses", {"order": 1})
    said, done, counters = await note(answer, asked, upstream=upstream, headers=True)
    assert said is None
    assert AI_SPENT not in done.stash
    assert counters == {}


async def test_an_unknown_host_is_recognised_by_what_it_answers():
    upstream = upstream_from_url("http://llm.internal", name="own")
    said, _, _ = await note(make_answer(200, json.dumps(CHAT), JSON), upstream=upstream)
    assert (said["provider"], said["input"]) == ("own", 1000)


async def test_a_host_may_be_said_to_be_a_providers():
    upstream = upstream_from_url("http://llm.internal")
    answer = make_answer(200, json.dumps(CHAT), JSON)
    said, _, _ = await note(answer, upstream=upstream, hosts={"llm.internal": "azure"})
    assert said["provider"] == "azure"


@pytest.mark.parametrize("answer", [UPSTREAM_TIMEOUT, UPSTREAM_UNREACHABLE, 429])
async def test_a_call_that_failed_cost_nothing(answer):
    if answer == 429:
        answer = make_answer(429, '{"error": {}}', JSON)
    said, _, counters = await note(answer)
    assert (said["finish"], said["cost_usd"], said["input"]) == ("error", 0.0, 0)
    assert counters["failed_calls_total"] == 1
    assert "calls_total" not in counters


async def test_bedrocks_invoke_model_says_it_in_the_head():
    names = ("x-amzn-bedrock-input-token-count", "x-amzn-bedrock-output-token-count")
    answer = make_answer(200, '{"embeddings": []}', {**JSON, names[0]: "12", names[1]: "3"})
    upstream = upstream_from_url("https://bedrock-runtime.us-east-1.amazonaws.com")
    asked = call("/model/us.cohere.embed-v4:0/invoke", {"texts": ["a"]})
    said, _, _ = await note(answer, asked, upstream=upstream)
    assert (said["provider"], said["model"]) == ("bedrock", "us.cohere.embed-v4:0")
    assert (said["input"], said["output"], said["estimated"]) == (12, 3, False)


async def test_what_waits_to_be_counted_is_bounded(monkeypatch):
    monkeypatch.setattr("tidegate_ai_usage.plugin.HELD", 10)
    monkeypatch.setattr("tidegate_ai_usage.plugin.quick", lambda size, model: False)
    said, _, counters = await stream(chunk("Hello there."), END, count_prompts=True)
    assert said["estimated"]
    assert counters["not_counted_total"] == 1
    assert counters["calls_total"] == 1


class Cache(Plugin):
    @hook
    def cache_lookup(self, exchange: Exchange):
        return make_answer(200, json.dumps(CHAT), JSON)


async def test_an_answer_from_a_cache_is_noted_and_costs_nothing():
    async with Harness(Use(AiUsage, {}, name="ai-usage"), Cache, route=OPENAI) as running:
        said = (await running.send(call())).notes["ai"]
        assert (said["cached"], said["input"], said["cost_usd"]) == (True, 1000, 0.0)
        assert running.counters("ai-usage") == {"cached_calls_total": 1}


class Settler(Plugin):
    """What a limit does: reserves in `authorize`, settles at the end."""

    settled: ClassVar[list[object]] = []

    @hook
    def authorize(self, exchange: Exchange):
        exchange.at_end(lambda x: self.settled.append(x.stash.get(AI_SPENT)))


async def test_limits_are_told_at_the_end():
    answer = make_answer(200, json.dumps(CHAT), JSON)
    Settler.settled.clear()
    async with Harness(Use(AiUsage, {}), Settler, answer=answer, route=OPENAI) as running:
        await running.send(call())
    assert [spent.usage.output for spent in Settler.settled] == [100]


async def test_what_a_translation_has_read_is_not_read_again():
    class Translated(Plugin):
        @hook
        def route(self, exchange: Exchange):
            found = exchange.stash[AI_CALL] = AiCall("openai-chat", None)
            found.request = type("Asked", (), {"model": "mine"})()
            found.provider, found.model, found.finish = (
                "anthropic",
                "claude-3-5-haiku-latest",
                "stop",
            )
            found.usage = type(spent)(1_000_000, 0)
            return OPENAI

    from tidegate_ai_usage.figures import Usage

    spent = Usage()
    answer = make_answer(200, json.dumps(CHAT), JSON)
    async with Harness(Use(AiUsage, {}), Translated, answer=answer) as running:
        said = (await running.send(call())).notes["ai"]
    assert (said["provider"], said["model"]) == ("anthropic", "claude-3-5-haiku-latest")
    assert (said["input"], said["cost_usd"]) == (1_000_000, 0.8)


async def test_a_teams_price_holds_for_that_team():
    prices = [{"team": "red", "model": "gpt-4o*", "input": 1, "output": 1}]
    answer = make_answer(200, json.dumps(CHAT), JSON)
    for team, wanted in (("red", 0.0011), ("blue", 0.003)):
        asked = call(principal=Principal("ada", team))
        said, _, _ = await note(answer, asked, prices=prices)
        assert said["cost_usd"] == pytest.approx(wanted)


async def test_counters_by_model_are_bounded():
    async with harness(make_answer(200, json.dumps(CHAT), JSON), models=3) as running:
        for number in range(10):
            body = json.dumps({**CHAT, "model": f"gpt-4o-{number}"})
            running.answer = make_answer(200, body, JSON)
            await running.send(call())
        names = [name for name in running.counters() if name.startswith("calls_total:")]
        assert len(names) == 4
        assert running.counters()["calls_total:other"] == 7


# -- keys ------------------------------------------------------------------------------------------


def bound(host: str, upstream: Upstream, path: str, **headers: str) -> Exchange:
    """An exchange of an intercepted program, which is bound for `upstream`."""
    exchange = make_exchange("POST", f"https://{host}{path}", headers, ASKED)
    exchange.upstream = upstream
    return exchange


async def swapped(exchange: Exchange, **keys: str) -> str:
    """What the request says after the addon: its path and its credentials."""
    options = {"keys": [{"provider": p, "key": k} for p, k in keys.items()]}
    async with harness(make_answer(200, json.dumps(CHAT), JSON), None, **options) as running:
        await running.send(exchange)
        sent = running.sent[0]
        fields = [f"{n}: {v}" for n, v in sent.headers.items() if "auth" in n or "key" in n]
        return " | ".join([sent.path, *fields])


CLAUDE = upstream_from_url("https://api.anthropic.com")
GOOGLE = upstream_from_url("https://generativelanguage.googleapis.com")
HIDDEN = upstream_from_url("https://192.0.2.7", tls=Tls(sni="api.openai.com"))
EVIL = upstream_from_url("https://192.0.2.7", tls=Tls(sni="evil.test"))
CLEAR = upstream_from_url("http://api.openai.com")
THEIRS = {"authorization": "Bearer theirs"}


async def test_the_key_of_a_program_is_swapped_for_ours():
    asked = bound("api.openai.com", HIDDEN, "/v1/chat/completions", **THEIRS)
    assert (
        await swapped(asked, openai="ours") == "/v1/chat/completions | authorization: Bearer ours"
    )
    asked = bound("api.anthropic.com", CLAUDE, "/v1/messages?beta=1", **THEIRS)
    assert await swapped(asked, anthropic="ours") == "/v1/messages?beta=1 | x-api-key: ours"
    path = "/v1beta/models/gemini-2.5-flash:generateContent"
    asked = bound(GOOGLE.host, GOOGLE, f"{path}?key=theirs&alt=sse")
    assert await swapped(asked, gemini="ours") == f"{path}?alt=sse | x-goog-api-key: ours"


@pytest.mark.parametrize(
    ("host", "upstream"),
    [
        ("api.openai.com", EVIL),
        ("evil.test", HIDDEN),
        ("api.openai.com", CLEAR),
        ("api.anthropic.com", HIDDEN),
        ("api.anthropic.com", CLAUDE),
    ],
)
async def test_our_key_goes_to_no_one_else(host, upstream):
    asked = bound(host, upstream, "/v1/chat/completions", **THEIRS)
    assert await swapped(asked, openai="ours") == (
        "/v1/chat/completions | authorization: Bearer theirs"
    )
