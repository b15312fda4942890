"""What goes over the wire, both ways, on real sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import struct
import zlib
from typing import Any

import anthropic
import boto3
import httpx
import openai
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from google import genai

from tidegate.api import AddonConfig, Plugin, Principal, hook
from tidegate.api.formats import AiCall
from tidegate.testing import ScriptedUpstream, Use, make_exchange
from tidegate.testing import script as scripts

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "a-model",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}
CONVERSE = {
    "output": {"message": {"role": "assistant", "content": [{"text": "Hi"}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 3, "outputTokens": 1, "totalTokens": 4},
    "metrics": {"latencyMs": 1},
}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
SECRET = "sk-canary-3f9a"


def work(upstream: ScriptedUpstream, **fields: Any) -> dict[str, Any]:
    return {"name": "work", "url": f"{upstream.url}/base/v1", "keys": [SECRET], **fields}


def openai_of(node: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{node.url}/v1", api_key="caller", max_retries=0)


async def ask(node: Any, model: str = "work/a-model", **fields: Any) -> httpx.Response:
    body = {"model": model, "messages": HELLO, **fields}
    async with httpx.AsyncClient() as client:
        return await client.post(f"{node.url}/v1/chat/completions", json=body)


def leaf_of(addon: Any) -> Any:
    """The upstream that a call is made with, key and all."""
    pool = addon.catalog.upstream(addon.catalog.find("work/m"), AiCall("openai-chat", HELLO))
    return pool.members[0].upstream


async def test_a_call_of_the_same_format_passes_with_only_the_model_renamed(lane):
    async with ScriptedUpstream() as upstream, lane(work(upstream, formats=["openai-chat"])) as n:
        upstream.answer(*scripts.json({**ANSWER, "vendor_field": [1]}))
        response = await ask(n, vendor_extra={"a": 1}, seed=None)
        assert response.json()["vendor_field"] == [1]
        sent = upstream.requests[0]
        assert sent.target == "/base/v1/chat/completions"
        assert sent.json() == {
            "model": "a-model",
            "messages": HELLO,
            "vendor_extra": {"a": 1},
            "seed": None,
        }
        assert sent.values("authorization") == [f"Bearer {SECRET}"]


async def test_what_callers_say_of_themselves_goes_to_no_provider(lane):
    mine = {
        "authorization": "Bearer caller",
        "x-api-key": "caller",
        "api-key": "caller",
        "x-goog-api-key": "caller",
        "cookie": "session=caller",
        "openai-organization": "org-caller",
        "openai-project": "proj-caller",
    }
    async with ScriptedUpstream() as upstream, lane(work(upstream)) as node:
        upstream.answer(*scripts.json(ANSWER))
        async with httpx.AsyncClient() as client:
            url = f"{node.url}/v1/chat/completions?key=caller&x=1"
            body = {"model": "work/m", "messages": HELLO}
            assert (await client.post(url, json=body, headers=mine)).status_code == 200
        assert b"caller" not in upstream.requests[0].raw


async def test_a_key_is_in_no_log_error_explanation_or_repr(lane, caplog):
    caplog.set_level(logging.DEBUG)
    async with ScriptedUpstream() as upstream, lane(work(upstream)) as node:
        upstream.answer(*scripts.json({"error": {"message": "bad key"}}, 401))
        upstream.answer(*scripts.json(ANSWER))
        refused = await ask(node)
        explained = await ask(node)
        addon = node.addon
        shown = [
            refused.text,
            str(refused.headers),
            explained.text,
            caplog.text,
            repr(addon.config),
            repr(addon.catalog.providers),
            repr(addon.catalog.states),
            addon.explain("route", make_exchange("POST")),
            repr(leaf_of(addon)),
        ]
        assert not [text for text in shown if SECRET in text]


async def test_a_refused_key_gives_way_to_the_next_and_is_told_once(lane, caplog):
    keys = [{"key": "sk-old", "name": "old"}, {"key": "sk-new", "name": "new"}]
    async with ScriptedUpstream() as upstream, lane(work(upstream, keys=keys)) as node:

        def serve(received):
            known = received.values("authorization") == ["Bearer sk-new"]
            said = ANSWER if known else {"error": {"message": "Incorrect API key"}}
            return scripts.json(said, 200 if known else 401)

        upstream.handle(serve)
        answers = [await ask(node) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200] * 4
        assert len(upstream.requests) == 5
        assert node.counters["keys_refused_total"] == 1
        assert caplog.text.count("work: old is refused by its provider (401)") == 1


async def test_a_stream_that_begins_with_a_refusal_of_its_key_goes_on_with_the_next(lane):
    keys = [{"key": "sk-full", "name": "full"}, {"key": "sk-free", "name": "free"}]
    refused = json.dumps({"error": {"message": "Slow down", "code": 429}})
    chunk = json.dumps(
        {
            "id": "c",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}],
        }
    )
    async with ScriptedUpstream() as upstream, lane(work(upstream, keys=keys)) as node:

        def serve(received):
            full = received.values("authorization") == ["Bearer sk-full"]
            return scripts.sse(refused if full else chunk)

        upstream.handle(serve)
        assert [await streamed(node, "work/m") for _ in range(3)] == [["Hi"]] * 3
        assert len(upstream.requests) == 4


async def test_where_all_keys_rest_callers_are_told_when_to_come_again(lane):
    async with ScriptedUpstream() as upstream, lane(work(upstream)) as node, openai_of(node) as sdk:
        upstream.answer(*scripts.json({"error": {"message": "slow"}}, 429, {"retry-after": "40"}))
        first = await ask(node)
        assert (first.status_code, first.headers["retry-after"]) == (429, "40")
        with pytest.raises(openai.RateLimitError) as told:
            await sdk.chat.completions.create(model="work/a-model", messages=HELLO)
        assert told.value.code == "provider_rate_limited"
        assert 35 <= int(told.value.response.headers["retry-after"]) <= 40
        upstream.answer(*scripts.json(ANSWER))
        other = await sdk.chat.completions.create(model="work/another", messages=HELLO)
        assert other.choices[0].message.content == "Hi"
        assert len(upstream.requests) == 2


async def test_where_no_key_is_taken_the_provider_is_not_asked_again(lane):
    async with ScriptedUpstream() as upstream, lane(work(upstream)) as node, openai_of(node) as sdk:
        upstream.answer(*scripts.json({"error": {"message": "no"}}, 401))
        for status, code in ((502, "provider_key_rejected"), (503, "provider_unavailable")):
            with pytest.raises(openai.InternalServerError) as told:
                await sdk.chat.completions.create(model="work/m", messages=HELLO)
            assert (told.value.status_code, told.value.code) == (status, code)
        assert len(upstream.requests) == 1


async def test_a_key_that_is_refused_is_no_fault_of_the_callers(lane):
    """Its client says so at once: it neither blames its own key nor tries again."""
    refused = scripts.json({"type": "error", "error": {"type": "authentication_error",
                            "message": "invalid x-api-key"}}, 401,
                           {"www-authenticate": "Bearer"})  # fmt: skip
    async with ScriptedUpstream() as upstream:
        claude = {"name": "anthropic", "url": upstream.url, "keys": [SECRET]}
        async with (
            lane(claude, {"name": "work", "url": upstream.url}) as node,
            anthropic.AsyncAnthropic(base_url=node.url, api_key="x") as sdk,
            openai.AsyncOpenAI(base_url=f"{node.url}/v1", api_key="x") as other,
        ):
            upstream.handle(lambda received: refused)
            for _ in range(2):
                with pytest.raises(anthropic.InternalServerError) as told:
                    await sdk.messages.create(
                        model="anthropic/claude-haiku-4-5", messages=HELLO, max_tokens=9
                    )
                assert told.value.status_code in (502, 503)
            for _ in range(2):
                with pytest.raises(openai.InternalServerError) as said:
                    await other.chat.completions.create(model="work/m", messages=HELLO)
                assert "www-authenticate" not in said.value.response.headers
            client = genai.Client(api_key="x", http_options={"base_url": node.url}).aio
            with pytest.raises(genai.errors.ServerError):
                await client.models.generate_content(model="work/other", contents="Hello")
        assert len(upstream.requests) == 2


async def test_anthropics_client_learns_the_id_of_a_request(lane):
    """Of an answer, of a stream and of an error; a provider's own id stays."""
    async with (
        ScriptedUpstream() as upstream,
        lane(work(upstream), {"name": "anthropic", "url": upstream.url, "keys": ["k"]}) as node,
        anthropic.AsyncAnthropic(base_url=node.url, api_key="x", max_retries=0) as sdk,
    ):
        options: Any = {"max_tokens": 9, "messages": HELLO}
        upstream.answer(*scripts.json(ANSWER))
        raw = await sdk.messages.with_raw_response.create(model="work/m", **options)
        said = await raw.parse()
        assert said._request_id == raw.headers["x-request-id"]
        upstream.answer(*scripts.sse())
        stream = await sdk.messages.with_raw_response.create(model="work/m", stream=True, **options)
        assert stream.request_id == stream.headers["x-request-id"]
        with pytest.raises(anthropic.NotFoundError) as told:
            await sdk.messages.create(model="nope", **options)
        assert told.value.request_id == told.value.response.headers["x-request-id"]
        upstream.answer(*scripts.json({"type": "error", "error": {}}, 500, {"request-id": "req_1"}))
        with pytest.raises(anthropic.InternalServerError) as failed:
            await sdk.messages.create(model="anthropic/claude-haiku-4-5", **options)
        assert failed.value.request_id == "req_1"


async def test_a_provider_that_is_down_is_an_error_of_the_client(lane):
    async with ScriptedUpstream() as upstream:
        gone = work(upstream, keys=["sk-a", "sk-b"])
    async with lane(gone) as node, openai_of(node) as sdk:
        with pytest.raises(openai.InternalServerError) as told:
            await sdk.chat.completions.create(model="work/m", messages=HELLO)
        assert told.value.code == "upstream_unreachable"
        async with anthropic.AsyncAnthropic(base_url=node.url, api_key="x", max_retries=0) as other:
            with pytest.raises(anthropic.InternalServerError):
                await other.messages.create(model="work/m", max_tokens=9, messages=HELLO)


async def test_an_unknown_model_is_not_found_in_the_clients_own_words(lane):
    async with (
        ScriptedUpstream() as upstream,
        lane(work(upstream, models=["m"])) as node,
        openai_of(node) as sdk,
        anthropic.AsyncAnthropic(base_url=node.url, api_key="x", max_retries=0) as other,
    ):
        for model in ("nope", "work/nope", "elsewhere/m"):
            with pytest.raises(openai.NotFoundError) as told:
                await sdk.chat.completions.create(model=model, messages=HELLO)
            assert told.value.code == "model_not_found"
            with pytest.raises(anthropic.NotFoundError) as said:
                await other.messages.create(model=model, max_tokens=9, messages=HELLO)
            assert said.value.body["error"]["type"] == "not_found_error"
            client = genai.Client(api_key="x", http_options={"base_url": node.url})
            with pytest.raises(genai.errors.ClientError) as heard:
                await client.aio.models.generate_content(model=model, contents="Hello")
            assert heard.value.code == 404
        assert upstream.requests == []


async def test_the_client_of_gemini_may_name_provider_and_model(lane):
    async with ScriptedUpstream() as upstream, lane(work(upstream)) as node:
        upstream.answer(*scripts.json(ANSWER))
        client = genai.Client(api_key="x", http_options={"base_url": node.url}).aio
        said = await client.models.generate_content(model="work/a-model", contents="Hello")
        assert said.text == "Hi"
        assert upstream.requests[0].json()["model"] == "a-model"


async def test_a_model_that_has_no_tools_or_images_is_not_asked_for_them(lane):
    model = {"name": "plain", "capabilities": []}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    seen: list[Any] = [{"role": "user", "content": [image]}]
    async with (
        ScriptedUpstream() as upstream,
        lane(work(upstream, models=[model, "unknown"])) as node,
        openai_of(node) as sdk,
    ):
        with pytest.raises(openai.BadRequestError, match="takes no tools") as told:
            await sdk.chat.completions.create(model="plain", messages=HELLO, tools=[TOOL])
        assert told.value.code == "unsupported_by_model"
        with pytest.raises(openai.BadRequestError, match="takes no images"):
            await sdk.chat.completions.create(model="plain", messages=seen)
        upstream.answer(*scripts.json(ANSWER))
        await sdk.chat.completions.create(model="unknown", messages=seen, tools=[TOOL])
        assert len(upstream.requests) == 1


async def test_a_body_that_is_no_request_is_a_bad_request(lane):
    async with ScriptedUpstream() as upstream, lane(work(upstream)) as node:
        async with httpx.AsyncClient() as client:
            for body in (b"{", b"[]", b'{"model": "work/m"}'):
                said = await client.post(f"{node.url}/v1/chat/completions", content=body)
                assert (said.status_code, said.json()["error"]["code"]) == (400, "invalid_request")
        assert upstream.requests == []


# -- providers with ways of their own -----------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "target"),
    [
        ({}, "/openai/v1/chat/completions"),
        (
            {"api_version": "2024-10-21"},
            "/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21",
        ),
    ],
)
async def test_azure_is_asked_for_a_deployment(lane, fields, target):
    model = {"name": "gpt", "id": "my-gpt", "like": "gpt-4o-mini"}
    async with ScriptedUpstream() as upstream:
        azure = {"name": "azure", "url": upstream.url, "keys": [SECRET], "models": [model]}
        async with lane({**azure, **fields}) as node:
            upstream.answer(*scripts.json(ANSWER))
            assert (await ask(node, "azure/gpt")).status_code == 200
            assert node.addon.catalog.find("gpt").context == 128_000
        sent = upstream.requests[0]
        assert (sent.target, sent.json()["model"]) == (target, "my-gpt")
        assert sent.values("api-key") == [SECRET]
        assert sent.values("authorization") == []


async def test_bedrock_is_sent_a_signature_that_the_sdk_would_make(lane, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-token")
    async with ScriptedUpstream() as upstream:
        bedrock = {"name": "bedrock", "url": upstream.url, "region": "eu-west-1"}
        async with lane(bedrock) as node:
            upstream.answer(*scripts.json(CONVERSE))
            answer = await ask(node, "bedrock/amazon.nova-lite-v1:0")
            assert answer.json()["choices"][0]["message"]["content"] == "Hi"
        sent = upstream.requests[0]
        assert sent.target == "/model/amazon.nova-lite-v1%3A0/converse"
        (date,), (signature,) = sent.values("x-amz-date"), sent.values("authorization")
        request = AWSRequest("POST", f"{upstream.url}{sent.target}", data=sent.body)
        request.context["timestamp"] = date
        request.headers["x-amz-date"] = date
        request.headers["x-amz-security-token"] = "a-token"
        request.headers["host"] = sent.values("host")[0]
        signer = SigV4Auth(Credentials("AKIDEXAMPLE", "secret", "a-token"), "bedrock", "eu-west-1")
        signed = signer.signature(
            signer.string_to_sign(request, signer.canonical_request(request)), request
        )
        assert signature.endswith(f"Signature={signed}")
        assert "SignedHeaders=host;x-amz-date;x-amz-security-token," in signature


async def test_the_client_of_bedrock_calls_any_provider_by_an_alias(lane):
    async with (
        ScriptedUpstream() as upstream,
        lane(work(upstream), aliases={"fast": "work/a-model"}) as node,
    ):
        upstream.answer(*scripts.json(ANSWER))
        client = boto3.client(
            "bedrock-runtime",
            region_name="eu-west-1",
            endpoint_url=node.url,
            aws_access_key_id="a",
            aws_secret_access_key="b",
        )
        said: Any = [{"role": "user", "content": [{"text": "Hello"}]}]
        answer = await asyncio.to_thread(client.converse, modelId="fast", messages=said)
        assert answer["output"]["message"]["content"] == [{"text": "Hi"}]
        assert upstream.requests[0].values("x-amz-date") == []


async def test_ollama_is_spoken_to_in_its_own_words(lane):
    answer = {"model": "m", "message": {"role": "assistant", "content": "Hi"}, "done": True}
    async with ScriptedUpstream() as upstream, lane({"name": "ollama", "url": upstream.url}) as n:
        upstream.answer(*scripts.json({**answer, "done_reason": "stop"}))
        response = await ask(n, "ollama/qwen3")
        assert response.json()["choices"][0]["message"]["content"] == "Hi"
        assert (upstream.requests[0].target, upstream.requests[0].json()["model"]) == (
            "/api/chat",
            "qwen3",
        )


async def test_a_model_that_has_one_api_alone_is_asked_in_that(lane):
    answer = {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "model": "o3-pro",
        "output": [
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": "Hi", "annotations": []}],
            }
        ],
        "usage": {"input_tokens": 3, "output_tokens": 1, "total_tokens": 4},
    }
    async with ScriptedUpstream() as upstream:
        async with lane({"name": "openai", "url": upstream.url, "keys": ["k"]}) as node:
            upstream.answer(*scripts.json(answer))
            response = await ask(node, "openai/o3-pro")
            assert response.json()["choices"][0]["message"]["content"] == "Hi"
        assert upstream.requests[0].target == "/responses"


# -- other kinds of calls -----------------------------------------------------------------------


async def test_speech_passes_piece_by_piece(lane):
    sound = bytes(range(256)) * 40_000  # more than is ever gathered
    async with ScriptedUpstream() as upstream, lane(work(upstream)) as node, openai_of(node) as sdk:
        upstream.answer(*scripts.chunked(sound[:100], sound[100:]))
        said = await sdk.audio.speech.create(model="work/tts", voice="alloy", input="Hello")
        assert said.content == sound
        sent = upstream.requests[0]
        assert (sent.target, sent.json()["model"]) == ("/base/v1/audio/speech", "tts")


async def test_a_form_passes_with_its_model_renamed(lane):
    sound = b'\r\n--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nwork/other\r\n--x--'
    async with ScriptedUpstream() as upstream, lane(work(upstream)) as node, openai_of(node) as sdk:
        upstream.answer(*scripts.json({"text": "Hi"}))
        said = await sdk.audio.transcriptions.create(model="work/whisper", file=("a.wav", sound))
        assert said.text == "Hi"
        sent = upstream.requests[0]
        assert b'name="model"\r\n\r\nwhisper\r\n' in sent.body
        assert sound in sent.body
        assert sent.target == "/base/v1/audio/transcriptions"


async def test_a_form_that_names_two_models_is_refused(lane):
    part = b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nwork/%b\r\n'
    form = part % b"one" + part % b"two" + b"--b--\r\n"
    async with ScriptedUpstream() as upstream, lane(work(upstream)) as node:
        async with httpx.AsyncClient() as client:
            said = await client.post(
                f"{node.url}/v1/audio/transcriptions",
                content=form,
                headers={"content-type": "multipart/form-data; boundary=b"},
            )
        assert said.status_code == 400
        assert upstream.requests == []


async def test_moderations_images_and_rerank_pass(lane):
    async with ScriptedUpstream() as upstream, lane(work(upstream)) as node:
        for path in ("moderations", "images/generations", "rerank"):
            upstream.answer(*scripts.json({"ok": path}))
            async with httpx.AsyncClient() as client:
                body = {"model": "work/m", "query": "tides", "documents": ["a"]}
                said = await client.post(f"{node.url}/v1/{path}", json=body)
            assert said.json() == {"ok": path}
        assert [r.target for r in upstream.requests] == [
            "/base/v1/moderations",
            "/base/v1/images/generations",
            "/base/v1/rerank",
        ]
        assert [r.json()["model"] for r in upstream.requests] == ["m"] * 3


async def test_rerank_is_translated_for_cohere(lane):
    asked = {"model": "cohere/rerank-v3.5", "query": "tides", "documents": ["a", "b"], "top_n": 1}
    answer = {"id": "1", "results": [{"index": 1, "relevance_score": 0.9}], "meta": {}}
    async with ScriptedUpstream() as upstream:
        async with lane({"name": "cohere", "url": upstream.url, "keys": ["k"]}) as node:
            upstream.answer(*scripts.json(answer))
            async with httpx.AsyncClient() as client:
                said = await client.post(f"{node.url}/v1/rerank", json=asked)
            assert said.json()["results"][0]["index"] == 1
        assert upstream.requests[0].target == "/v2/rerank"
        assert upstream.requests[0].json()["model"] == "rerank-v3.5"


async def test_embeddings_are_translated_for_gemini(lane):
    answer = {"embeddings": [{"values": [0.1, 0.2]}, {"values": [0.3, 0.4]}]}
    async with ScriptedUpstream() as upstream:
        gemini = {"name": "gemini", "url": f"{upstream.url}/v1beta", "keys": [SECRET]}
        async with lane(gemini) as node, openai_of(node) as sdk:
            upstream.answer(*scripts.json(answer))
            said = await sdk.embeddings.create(model="gemini-embedding-001", input=["x", "y"])
            assert said.data[1].embedding == pytest.approx([0.3, 0.4])
        assert upstream.requests[0].target == (
            "/v1beta/models/gemini-embedding-001:batchEmbedContents"
        )
        assert upstream.requests[0].values("x-goog-api-key") == [SECRET]


async def test_tokens_are_counted_by_the_models_provider(lane):
    async with ScriptedUpstream() as upstream:
        claude = {"name": "anthropic", "url": upstream.url, "keys": [SECRET]}
        async with (
            lane(claude, aliases={"fast": "anthropic/claude-haiku-4-5"}) as node,
            anthropic.AsyncAnthropic(base_url=node.url, api_key="x", max_retries=0) as sdk,
        ):
            upstream.answer(*scripts.json({"input_tokens": 7}))
            said = await sdk.messages.count_tokens(model="fast", messages=HELLO)
            assert said.input_tokens == 7
        sent = upstream.requests[0]
        assert (sent.target, sent.json()["model"]) == (
            "/v1/messages/count_tokens",
            "claude-haiku-4-5",
        )


async def test_what_a_provider_does_not_do_is_not_found(lane):
    async with ScriptedUpstream() as upstream:
        async with lane({"name": "anthropic", "url": upstream.url, "keys": ["k"]}) as node:
            with pytest.raises(openai.NotFoundError) as told:
                async with openai_of(node) as sdk:
                    await sdk.embeddings.create(model="anthropic/claude-haiku-4-5", input="x")
            assert told.value.code == "model_not_found"
        assert upstream.requests == []


# -- lists --------------------------------------------------------------------------------------


async def test_models_are_listed_as_each_client_expects(lane):
    async with (
        ScriptedUpstream() as upstream,
        lane(work(upstream, models=["a", "b"]), aliases={"fast": "work/b"}) as node,
        openai_of(node) as sdk,
        anthropic.AsyncAnthropic(base_url=node.url, api_key="x") as other,
    ):
        wanted = ["work/a", "work/b", "fast"]
        assert [m.id async for m in sdk.models.list()] == wanted
        assert [m.id async for m in other.models.list()] == wanted
        client = genai.Client(api_key="x", http_options={"base_url": node.url}).aio
        assert [m.name async for m in await client.models.list()] == [f"models/{n}" for n in wanted]
        assert (await sdk.models.retrieve("fast")).owned_by == "work"
        async with httpx.AsyncClient() as plain:
            assert (await plain.get(f"{node.url}/v1/models/work/a")).json()["id"] == "work/a"
        assert (await other.models.retrieve("fast")).type == "model"
        with pytest.raises(openai.NotFoundError):
            await sdk.models.retrieve("nope")


# -- in company ---------------------------------------------------------------------------------


class Caller(Plugin):
    """Authenticates by a key that must go no further."""

    Config = AddonConfig

    @hook
    def authenticate(self, exchange):
        return Principal("dev") if exchange.consume_header("authorization") else None


async def test_what_authenticates_a_caller_is_asked_before_any_model(lane):
    async with (
        ScriptedUpstream() as upstream,
        lane(work(upstream), others=(Use(Caller),)) as node,
        openai_of(node) as sdk,
    ):
        assert (await ask(node)).status_code == 401
        upstream.answer(*scripts.json(ANSWER))
        said = await sdk.chat.completions.create(model="work/m", messages=HELLO)
        assert said.choices[0].message.content == "Hi"
        assert json.dumps(upstream.requests[0].json()["messages"]) == json.dumps(HELLO)


# -- streams that are not made of server-sent events --------------------------------------------


async def streamed(node: Any, model: str) -> list[str]:
    """The pieces of text that OpenAI's client gets."""
    async with openai_of(node) as sdk:
        stream = await sdk.chat.completions.create(model=model, messages=HELLO, stream=True)
        return [c.choices[0].delta.content or "" async for c in stream if c.choices]


async def test_a_stream_of_ollama_comes_piece_by_piece(lane):
    lines = [
        json.dumps({"model": "m", "message": {"role": "assistant", "content": text}, "done": False})
        for text in ("Hé", "llo")
    ]
    end = {"model": "m", "message": {"role": "assistant", "content": ""}, "done": True}
    lines.append(json.dumps({**end, "done_reason": "stop", "eval_count": 2}))
    kind = {"content-type": "application/x-ndjson"}
    async with ScriptedUpstream() as upstream, lane({"name": "ollama", "url": upstream.url}) as n:
        upstream.answer(*scripts.chunked(*(f"{line}\n".encode() for line in lines), headers=kind))
        assert "".join(await streamed(n, "ollama/qwen3")) == "Héllo"
        assert upstream.requests[0].json()["stream"] is True


async def test_a_stream_of_bedrock_comes_piece_by_piece(lane, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    events = [
        ("messageStart", {"role": "assistant"}),
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hé"}}),
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "llo"}}),
        ("contentBlockStop", {"contentBlockIndex": 0}),
        ("messageStop", {"stopReason": "end_turn"}),
        ("metadata", {"usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}}),
    ]
    kind = {"content-type": "application/vnd.amazon.eventstream"}
    async with ScriptedUpstream() as upstream:
        bedrock = {"name": "bedrock", "url": upstream.url, "region": "eu-west-1"}
        async with lane(bedrock) as node:
            upstream.answer(*scripts.chunked(*(frame(*e) for e in events), headers=kind))
            assert "".join(await streamed(node, "bedrock/amazon.nova-lite-v1:0")) == "Héllo"
        assert upstream.requests[0].target.endswith("/converse-stream")


def frame(name: str, body: dict[str, Any]) -> bytes:
    """A message of the AWS event stream (Amazon Transcribe guide, "Event stream encoding")."""
    fields = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    head = b"".join(
        struct.pack("!B", len(k)) + k.encode() + b"\x07" + struct.pack("!H", len(v)) + v.encode()
        for k, v in fields.items()
    )
    payload = json.dumps(body).encode()
    prelude = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + head + payload
    return message + struct.pack("!I", zlib.crc32(message))
