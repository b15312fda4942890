"""What happens when a model can't answer, with real sockets and OpenAI's own client."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack

import httpx
import openai
import pytest
from tidegate_ai_route.failures import failure_of

from tidegate.testing import ScriptedUpstream, Use
from tidegate.testing import script as scripts

CHUNK = {
    "id": "c",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hel"}}],
}
ANTHROPIC = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [{"type": "text", "text": "from another provider"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 7, "output_tokens": 3},
}
TOO_LONG = {
    "error": {
        "message": "This model's maximum context length is 8192 tokens.",
        "type": "invalid_request_error",
        "code": "context_length_exceeded",
    }
}


def answer(text="Hello"):
    """A whole answer in OpenAI's shape."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return scripts.json({"id": "c", "object": "chat.completion", "created": 1, "model": "m",
                         "choices": [choice]})  # fmt: skip


@pytest.fixture
async def pair():
    """Two upstreams: the second one speaks Anthropic Messages."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(ScriptedUpstream())
        second = await stack.enter_async_context(ScriptedUpstream())
        second.answer(*scripts.json(ANTHROPIC))
        yield first, second


def known(pair, **more):
    """The models behind the two."""
    return {
        "a/one": pair[0].url,
        "b/two": {"url": pair[1].url, "format": "anthropic-messages", **more},
    }


def smart(on=None):
    fallback = {"to": ["b/two"], **({} if on is None else {"on": on})}
    return [{"name": "smart", "targets": ["a/one"], "fallback": fallback}]


@pytest.mark.parametrize(
    "script",
    [
        scripts.json({"error": {"message": "Slow down"}}, 429, {"retry-after": "7"}),
        scripts.json({"error": {"message": "Sorry"}}, 500),
        scripts.json({"error": {"message": "bad gateway"}}, 502),
        scripts.json(TOO_LONG, 400),
        scripts.json({"error": {"code": "content_filter", "message": "filtered"}}, 400),
        scripts.json({"error": {"message": "Incorrect API key provided"}}, 401),
        scripts.json({"error": {"code": "model_not_found", "message": "gone"}}, 404),
        (scripts.reset(),),
        (scripts.silence(),),
    ],
    ids=[
        "rate-limit",
        "server-error",
        "bad-gateway",
        "context-window",
        "content-policy",
        "auth",
        "unknown-model",
        "reset",
        "silence",
    ],
)
async def test_another_provider_answers_where_the_first_one_fails(setup, pair, script):
    pair[0].answer(*script)
    async with setup.running(smart(), known(pair)) as running:
        done = await running.ask()
        assert done.choices[0].message.content == "from another provider"
        assert running.counters()["fallbacks_total"] == 1
    assert pair[1].requests[0].json()["max_tokens"]


async def test_a_stream_falls_back_before_its_first_event(setup, pair):
    pair[0].answer(*scripts.json({"error": {"message": "busy"}}, 503))
    events = [
        {"type": "message_start", "message": {**ANTHROPIC, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": 1},
        },
        {"type": "message_stop"},
    ]
    pair[1].answer(*scripts.sse(*map(json.dumps, events), done=False))
    async with setup.running(smart(), known(pair)) as running:
        text = ""
        async for chunk in await running.ask(stream=True):
            for choice in chunk.choices:
                text += choice.delta.content or ""
    assert text == "Hi"


async def test_a_failure_that_is_not_named_is_passed_on(setup, pair):
    pair[0].answer(*scripts.json({"error": {"message": "Slow down"}}, 429, {"retry-after": "7"}))
    async with setup.running(smart(["server-error"]), known(pair)) as running:
        with pytest.raises(openai.RateLimitError, match="Slow down") as caught:
            await running.ask()
    assert caught.value.response.headers["retry-after"] == "7"
    assert pair[1].requests == []


async def test_a_request_that_is_wrong_is_not_sent_twice(setup, pair):
    pair[0].answer(*scripts.json({"error": {"message": "temperature: at most 2"}}, 400))
    async with setup.running(smart(), known(pair)) as running:
        with pytest.raises(openai.BadRequestError, match="temperature"):
            await running.ask()
    assert pair[1].requests == []


async def test_a_prompt_too_long_is_not_sent_to_a_smaller_model(setup, pair):
    pair[0].answer(*scripts.json(TOO_LONG, 400))
    models = {**known(pair, context=4096), "a/one": {"url": pair[0].url, "context": 8192}}
    async with setup.running(smart(), models) as running:
        with pytest.raises(openai.BadRequestError, match="maximum context length"):
            await running.ask()
    assert pair[1].requests == []


async def test_what_one_providers_api_cant_say_goes_to_one_that_can(setup, pair):
    pair[0].answer(*answer("exact"))
    models = [
        {"name": "smart", "targets": ["b/two", "a/one"]},
        {"name": "only", "targets": ["b/two"]},
    ]
    async with setup.running(models, known(pair), policy="strict") as running:
        done = await running.ask(frequency_penalty=1)
        assert done.choices[0].message.content == "exact"
        with pytest.raises(openai.BadRequestError, match="frequency_penalty"):
            await running.ask(model="only", frequency_penalty=1)
    assert pair[1].requests == []


async def test_callers_of_another_api_have_fallbacks_too(setup, pair):
    pair[0].answer(*scripts.json({"error": {"message": "down"}}, 500))
    body = {"model": "smart", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    async with (
        setup.running(smart(), known(pair)) as running,
        httpx.AsyncClient(base_url=running.url, trust_env=False) as client,
    ):
        done = await client.post("/v1/messages", json=body)
        assert done.json()["content"][0]["text"] == "from another provider"
        pair[1].answer(*scripts.json({"type": "error", "error": {"message": "full"}}, 529))
        failed = await client.post("/v1/messages", json=body)
    assert failed.status_code == 529
    assert failed.json()["type"] == "error"


async def test_when_all_fail_the_caller_gets_the_last_answer_in_its_own_shape(setup, pair):
    pair[0].answer(*scripts.json({"error": {"message": "one is down"}}, 500))
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "two is full"}}
    pair[1].answer(*scripts.json(overloaded, 529))
    async with setup.running(smart(), known(pair)) as running:
        with pytest.raises(openai.InternalServerError, match="two is full"):
            await running.ask()
    assert len(pair[0].requests) == len(pair[1].requests) == 1


OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
HEAD = scripts.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})


def event(value, name=""):
    """An event, as a chunk each of its halves: its end comes later."""
    data = (f"event: {name}\n" if name else "") + f"data: {json.dumps(value)}\n\n"
    half = len(data) // 2
    return scripts.chunk(data[:half].encode()), scripts.chunk(data[half:].encode())


@pytest.mark.parametrize(
    ("format", "failure", "kind"),
    [
        ("anthropic-messages", event(OVERLOADED, "error"), "server-error"),
        ("openai-chat", event({"error": {"message": "Oh", "code": 503}}), "server-error"),
        ("openai-chat", event({"error": {"message": "Slow", "code": 429}}), "rate-limit"),
        ("openai-chat/generic", event({"error": {"message": "Oh"}}), "server-error"),
    ],
)
@pytest.mark.parametrize("ends", [True, False])
async def test_a_stream_that_begins_with_its_failure_falls_back_as_a_status_does(
    setup, pair, format, failure, kind, ends
):
    """Also where the provider leaves the connection open: it is not used for another call."""
    pair[0].answer(HEAD, *failure, scripts.last_chunk() if ends else scripts.sleep(60))
    models = {**known(pair), "a/one": {"url": pair[0].url, "format": format}}
    async with setup.running(smart(on=[kind]), models) as running:
        stream = await running.ask(stream=True)
        text = "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])
        assert text == "from another provider"
        assert stream.response.headers["x-tidegate-model"] == "b/two"


async def test_where_nothing_is_left_a_stream_that_begins_with_its_failure_is_an_error(setup, pair):
    pair[0].answer(HEAD, *event(OVERLOADED, "error"), scripts.last_chunk())
    models = {**known(pair), "a/one": {"url": pair[0].url, "format": "anthropic-messages"}}
    async with setup.running(smart(on=["rate-limit"]), models) as running:
        with pytest.raises(openai.InternalServerError) as told:
            await running.ask(stream=True)
        assert (told.value.status_code, told.value.message) == (503, "Error code: 503 - Overloaded")
    assert not pair[1].requests


async def test_a_failure_after_content_is_passed_on(setup, pair):
    pair[0].answer(
        HEAD, *event(CHUNK), *event({"error": {"message": "Oh", "code": 503}}), scripts.last_chunk()
    )
    async with setup.running(smart(), known(pair)) as running:
        stream = await running.ask(stream=True)
        with pytest.raises(openai.APIError, match="Oh"):
            _ = [chunk async for chunk in stream]
    assert not pair[1].requests


async def test_after_the_first_token_nothing_is_repeated_and_the_stream_ends_with_an_error(
    setup, pair
):
    pair[0].answer(*scripts.sse(json.dumps(CHUNK), done=False)[:-1], scripts.reset())
    async with setup.running(smart(), known(pair)) as running:
        stream = await running.ask(stream=True)
        assert (await anext(stream)).choices[0].delta.content == "Hel"
        with pytest.raises(openai.APIError):
            await anext(stream)
    assert pair[1].requests == []


async def test_a_target_that_failed_again_and_again_is_asked_last(setup, pair):
    pair[0].answer(*scripts.json({"error": {"message": "down"}}, 500))
    async with setup.running(smart(), known(pair)) as running:
        for _ in range(5):
            await running.ask()
    assert len(pair[0].requests) == 3
    assert len(pair[1].requests) == 5


async def test_what_is_known_of_a_target_outlives_a_reload(setup, pair):
    pair[0].answer(*scripts.json({"error": {"message": "down"}}, 500))
    async with setup.running(smart(), known(pair)) as running:
        for _ in range(3):
            await running.ask()
        providers = Use(setup.Providers, {"models": known(pair)})
        await running.harness.reload(setup.route_use(smart(), header=False), providers)
        raw = await running.sdk.chat.completions.with_raw_response.create(
            model="smart", messages=[{"role": "user", "content": "Hi"}]
        )
    assert "x-tidegate-model" not in raw.headers, "the new options are in force"
    assert len(pair[0].requests) == 3


async def test_with_every_provider_down_the_error_is_the_apis_own(setup):
    models = {"a/one": "http://127.0.0.1:9", "b/two": "http://127.0.0.1:9"}
    async with setup.running(smart(), models) as running:
        with pytest.raises(openai.InternalServerError) as caught:
            await running.ask()
    assert caught.value.status_code == 502


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (400, {"type": "error", "error": {"message": "prompt is too long: 3 > 2 maximum"}},
         "context-window"),
        (400, {"message": "Input Tokens Exceeded: Number of input tokens exceeds"},
         "context-window"),
        (400, {"message": "too many tokens: size limit exceeded by 25836 tokens."},
         "context-window"),
        (400, {"error": {"message": "The input token count (125) exceeds the maximum"}},
         "context-window"),
        (400, {"error": {"message": "The request exceeds the available context size."}},
         "context-window"),
        (400, {"error": {"type": "too_many_prompt_tokens", "message": "is too long"}},
         "context-window"),
        (413, {}, "context-window"),
        (400, {"error": {"innererror": {"code": "ResponsibleAIPolicyViolation"}}},
         "content-policy"),
        (403, {"error": {"message": "Output blocked by content filtering policy"}},
         "content-policy"),
        (400, {"error": {"message": "API key not valid."}}, "auth"),
        (429, {"error": {"code": "insufficient_quota", "message": "no"}}, "auth"),
        (429, {"error": {"code": "RateLimitReached"}}, "rate-limit"),
        (404, {"error": {"message": "model: claude-9"}}, "unknown-model"),
        (400, {"error": {"message": "Unknown model: gpt-9"}}, "unknown-model"),
        (529, {"error": {"type": "overloaded_error"}}, "server-error"),
        (504, {}, "timeout"),
        (400, {"error": {"message": "Invalid image data."}}, "invalid-request"),
        (422, {"detail": [{"msg": "field required"}]}, "invalid-request"),
    ],
)  # fmt: skip
def test_failures_are_read_in_the_providers_own_words(status, body, failure):
    assert failure_of(status, json.dumps(body).encode()) == failure
