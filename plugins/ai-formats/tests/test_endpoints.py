"""Calls besides chat: translated within their kind, or passed with the model's name changed."""

from __future__ import annotations

import base64
import gzip
import json
import re
import struct
from typing import Any

import openai
import pytest
from mitmproxy import http
from tidegate_ai_formats.losses import Losses

from tidegate.api.formats import (
    AI_CALL,
    endpoint_call,
    find_format,
    format_names,
    inbound_endpoint,
    inbound_format,
)
from tidegate.testing import make_exchange

EMBEDDINGS = [name for name in format_names() if name.endswith("-embeddings")]
RERANKS = [name for name in format_names() if name.endswith("-rerank")]
PATHS = {
    "/v1/embeddings": "openai-embeddings",
    "/openai/deployments/e/embeddings": "openai-embeddings",
    "/v1beta/models/e:batchEmbedContents": "gemini-embeddings",
    "/v1beta/models/e:embedContent": "gemini-embeddings",
    "/v1/projects/p/locations/l/publishers/google/models/e:predict": "vertex-embeddings",
    "/v2/embed": "cohere-embeddings",
    "/api/embed": "ollama-embeddings",
    "/v2/rerank": "cohere-rerank",
    "/v1/rerank": "jina-rerank",
    "/v1/images/edits": "openai-images",
    "/v1/audio/speech": "openai-speech",
    "/v1/audio/transcriptions": "openai-transcription",
    "/v1/moderations": "openai-moderations",
    "/v1/messages/count_tokens": "anthropic-count-tokens",
    "/v1beta/models/g:countTokens": "gemini-count-tokens",
    "/v1/responses/input_tokens": "openai-count-tokens",
    "/v1/models": "openai-models",
    "/v1beta/models/g": "gemini-models",
}


@pytest.mark.parametrize(("path", "name"), PATHS.items())
def test_a_path_says_which_call_it_is(path, name):
    assert inbound_endpoint(path) == name
    assert inbound_format(path) is None
    assert find_format(name).name == name


def ask(client: str, provider: str, path: str, body: Any, *, model: str = "p-1", policy="strict"):
    """(codec, exchange, what is sent) of a call."""
    codec = find_format(client).translation(find_format(provider), policy=policy, model=model)
    exchange = make_exchange("POST", f"http://api.test{path}", body=body)
    return codec, exchange, codec.encode(exchange, exchange.request)


def answer(codec, exchange, body: Any, status: int = 200) -> Any:
    """The caller's answer."""
    headers = {"content-type": "application/json"}
    response = http.Response.make(status, json.dumps(body), headers)
    return codec.decode(exchange, response)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/chat/completions", "openai-chat"),
        ("/api/v1/chat/completions", "openai-chat"),
        ("/openai/deployments/gpt-4o/chat/completions", "openai-chat"),
        ("/v1beta/openai/chat/completions", "openai-chat"),
        ("/compatible-mode/v1/chat/completions", "openai-chat"),
        ("/openai/v1/responses", "openai-responses"),
        ("/anthropic/v1/messages", "anthropic-messages"),
        ("/v1/projects/p/locations/l/publishers/google/models/g:generateContent", "gemini"),
        ("/model/anthropic.claude-v2:1/converse-stream", "bedrock-converse"),
        ("/chat/completions/1", None),
        ("/v1/orders/messages", None),
        ("/v1/messages/1", None),
    ],
)
def test_a_path_says_which_format_its_callers_chat_in(path, name):
    assert inbound_format(path) == name


# -- embeddings ------------------------------------------------------------------------------------

ASKED = {"model": "alias", "input": ["One", "Two"], "dimensions": 3}
SENT = {
    "gemini-embeddings": (
        "/models/p-1:batchEmbedContents",
        {
            "requests": [
                {
                    "model": "models/p-1",
                    "content": {"parts": [{"text": text}]},
                    "outputDimensionality": 3,
                }
                for text in ("One", "Two")
            ]
        },
        {"embeddings": [{"values": [1.0, 2.0]}, {"values": [3.0, 4.5]}],
         "usageMetadata": {"promptTokenCount": 4}},
    ),
    "vertex-embeddings": (
        "/models/p-1:predict",
        {"instances": [{"content": "One"}, {"content": "Two"}],
         "parameters": {"outputDimensionality": 3}},
        {"predictions": [
            {"embeddings": {"values": [1.0, 2.0], "statistics": {"token_count": 2}}},
            {"embeddings": {"values": [3.0, 4.5], "statistics": {"token_count": 2}}},
        ]},
    ),
    "cohere-embeddings": (
        "/v2/embed",
        {"model": "p-1", "texts": ["One", "Two"], "input_type": "search_document",
         "embedding_types": ["float"], "output_dimension": 3},
        {"id": "i", "embeddings": {"float": [[1.0, 2.0], [3.0, 4.5]]}, "texts": ["One", "Two"],
         "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 4}}},
    ),
    "ollama-embeddings": (
        "/api/embed",
        {"model": "p-1", "input": ["One", "Two"], "dimensions": 3},
        {"model": "p-1", "embeddings": [[1.0, 2.0], [3.0, 4.5]], "prompt_eval_count": 4},
    ),
    "openai-embeddings/voyage": (
        "/embeddings",
        {"model": "p-1", "input": ["One", "Two"], "output_dimension": 3},
        {"object": "list", "model": "p-1", "usage": {"total_tokens": 4}, "data": [
            {"object": "embedding", "index": 1, "embedding": [3.0, 4.5]},
            {"object": "embedding", "index": 0, "embedding": [1.0, 2.0]},
        ]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("provider", SENT)
def test_openai_embeddings_from_any_provider(provider):
    path, sent, given = SENT[provider]
    codec, exchange, request = ask("openai-embeddings", provider, "/v1/embeddings", ASKED)
    assert (request.path, json.loads(request.content)) == (path, sent)
    body = json.loads(answer(codec, exchange, given).content)
    assert [one["embedding"] for one in body["data"]] == [[1.0, 2.0], [3.0, 4.5]]
    assert [one["index"] for one in body["data"]] == [0, 1]
    assert body["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    call = exchange.stash[AI_CALL]
    assert (call.model, call.usage.input, call.provider_format.partition("/")[0]) == (
        "p-1",
        4,
        provider.partition("/")[0],
    )


def test_vectors_come_in_base64_where_the_caller_asks_for_that():
    asked = {"model": "m", "input": "One", "encoding_format": "base64"}
    codec, exchange, _ = ask("openai-embeddings", "ollama-embeddings", "/v1/embeddings", asked)
    body = json.loads(answer(codec, exchange, {"embeddings": [[0.5, -2.0]]}).content)
    data = base64.b64decode(body["data"][0]["embedding"])
    assert struct.unpack("<2f", data) == (0.5, -2.0)


@pytest.mark.parametrize("client", EMBEDDINGS)
@pytest.mark.parametrize("provider", EMBEDDINGS)
def test_every_embedding_format_can_ask_every_other(client, provider):
    path = next(path for path, name in PATHS.items() if name == client)
    bodies = {
        "openai-embeddings": {"model": "e", "input": ["One"]},
        "gemini-embeddings": {"requests": [{"content": {"parts": [{"text": "One"}]}}]},
        "vertex-embeddings": {"instances": [{"content": "One"}]},
        "cohere-embeddings": {"model": "e", "texts": ["One"], "input_type": "search_query",
                              "embedding_types": ["float"]},
        "ollama-embeddings": {"model": "e", "input": ["One"]},
    }  # fmt: skip
    codec, exchange, request = ask(client, provider, path, bodies[client], policy="drop-and-warn")
    assert isinstance(request, http.Request)
    parsed = find_format(provider).parse_request(json.loads(request.content), request.path)
    assert parsed.value.inputs == ["One"]
    if client == provider:
        return
    given = next(case[2] for name, case in SENT.items() if name.partition("/")[0] == provider)
    back = find_format(client).parse_answer(json.loads(answer(codec, exchange, given).content))
    assert back.value == [[1.0, 2.0], [3.0, 4.5]]


def test_tokens_in_place_of_text_are_refused_where_the_provider_takes_text_alone():
    asked = {"model": "m", "input": [1, 2, 3]}
    _, _, refusal = ask("openai-embeddings", "gemini-embeddings", "/v1/embeddings", asked)
    assert isinstance(refusal, http.Response)
    assert refusal.status_code == 400
    assert json.loads(refusal.content)["error"]["param"] == "input[0]"
    _, _, request = ask("openai-embeddings", "openai-embeddings", "/v1/embeddings", asked)
    assert json.loads(request.content) == {"model": "p-1", "input": [1, 2, 3]}


def test_a_provider_s_error_is_said_as_the_caller_s_format_says_it():
    codec, exchange, _ = ask("openai-embeddings", "gemini-embeddings", "/v1/embeddings", ASKED)
    given = {"error": {"code": 429, "message": "Slow down.", "status": "RESOURCE_EXHAUSTED"}}
    response = answer(codec, exchange, given, 429)
    assert response.status_code == 429
    assert json.loads(response.content)["error"]["code"] == "rate_limit_exceeded"


RECORDED = {
    r"perplexity.*/v1/embeddings$": "openai-embeddings/perplexity",
    r"/v1/embeddings$": "openai-embeddings",
    r":batchEmbedContents$": "gemini-embeddings",
    r":predict$": "vertex-embeddings",
    r"/v2/embed$": "cohere-embeddings",
    r"/v2/rerank$": "cohere-rerank",
    r"/v1/rerank$": "jina-rerank",
}


@pytest.fixture(scope="module")
def recorded(recordings):
    from pathlib import Path

    found = []
    file = Path(__file__).resolve().parents[4] / "shared/recordings/providers.jsonl.gz"
    with gzip.open(file) as lines:
        for number, line in enumerate(lines):
            one = json.loads(line)
            path = one["url"].partition("?")[0]
            name = next((name for like, name in RECORDED.items() if re.search(like, path)), None)
            if name is not None and one["status"] == 200 and "mistral" not in path:
                body = json.loads(base64.b64decode(one["body_b64"]))
                found.append((number, name, path, one["request"], body))
    assert found
    return found


def test_recorded_calls_come_back_and_come_across(recorded):
    for number, name, path, asked, body in recorded:
        if name.endswith("rerank") or not isinstance(body, dict):
            continue
        source = find_format(name)
        request = source.parse_request(json.loads(json.dumps(asked)), path)
        answered = source.parse_answer(json.loads(json.dumps(body)))
        assert len(answered.value) == len(request.value.inputs), number
        for other in EMBEDDINGS:
            target = find_format(other)
            written = target.write_answer_of(answered, request, Losses(other))
            again = target.parse_answer(json.loads(json.dumps(written)))
            for vector, was in zip(again.value, answered.value, strict=True):
                assert vector == pytest.approx(was, rel=1e-6), (number, other)
            if other != "vertex-embeddings" and answered.usage is not None:
                assert again.usage.input == answered.usage.input, (number, other)


# -- rerank ----------------------------------------------------------------------------------------

RANK = {"model": "m", "query": "ruby", "documents": ["A", {"text": "B"}, "C"], "top_n": 2}


def test_reranking_comes_across(recorded):
    for number, name, path, asked, body in recorded:
        if not name.endswith("rerank"):
            continue
        source = find_format(name)
        request = source.parse_request(json.loads(json.dumps(asked)), path)
        answered = source.parse_answer(json.loads(json.dumps(body)))
        ranks = [(one.index, one.score) for one in answered.value]
        assert ranks == [(one["index"], one["relevance_score"]) for one in body["results"]], number
        for other in RERANKS:
            target = find_format(other)
            sent = target.write_request(request, Losses(other))
            assert target.parse_request(sent).value.documents == asked["documents"]
            written = target.write_answer_of(answered, request, Losses(other))
            again = target.parse_answer(json.loads(json.dumps(written)))
            assert [(one.index, one.score) for one in again.value] == ranks, (number, other)


def test_jina_s_callers_see_the_documents_that_cohere_does_not_repeat():
    codec, exchange, request = ask("jina-rerank", "cohere-rerank", "/v1/rerank", RANK)
    assert request.path == "/v2/rerank"
    assert json.loads(request.content)["documents"] == ["A", "B", "C"]
    given = {"id": "i", "results": [{"index": 1, "relevance_score": 0.9}], "meta": {}}
    body = json.loads(answer(codec, exchange, given).content)
    assert body["results"] == [{"index": 1, "relevance_score": 0.9, "document": {"text": "B"}}]


def test_voyage_has_other_names():
    codec, exchange, request = ask("cohere-rerank", "voyage-rerank", "/v2/rerank", RANK)
    assert json.loads(request.content)["top_k"] == 2
    given = {"object": "list", "data": [{"index": 2, "relevance_score": 0.5}], "model": "v",
             "usage": {"total_tokens": 9}}  # fmt: skip
    body = json.loads(answer(codec, exchange, given).content)
    assert body["results"] == [{"index": 2, "relevance_score": 0.5}]
    assert exchange.stash[AI_CALL].usage.input == 9


# -- what passes -----------------------------------------------------------------------------------


def form(*fields: tuple[str, bytes, str]) -> bytes:
    out = b""
    for name, value, rest in fields:
        head = f'--b\r\nContent-Disposition: form-data; name="{name}"{rest}\r\n\r\n'
        out += head.encode() + value + b"\r\n"
    return out + b"--b--\r\n"


SOUND = b"\x00RIFF\r\n\r\nmodel\r\n--nob\xff" * 400
FORM = form(("file", SOUND, '; filename="a.wav"\r\nContent-Type: audio/wav'),
            ("model", b"alias", ""), ("stream", b"true", ""))  # fmt: skip


def test_a_form_passes_with_another_model_and_nothing_else_changed():
    name = "openai-transcription"
    codec = find_format(name).translation(find_format(name), model="whisper-1")
    exchange = make_exchange("POST", "http://api.test/v1/audio/transcriptions", body=FORM)
    exchange.request.headers["content-type"] = "multipart/form-data; boundary=b"
    call = endpoint_call(exchange)
    assert call is not None
    assert (call.request.model, call.request.stream) == ("alias", True)
    request = codec.encode(exchange, exchange.request)
    assert request.path == "/audio/transcriptions"
    assert request.raw_content == FORM.replace(b"\r\n\r\nalias\r\n", b"\r\n\r\nwhisper-1\r\n")


@pytest.mark.parametrize("names", [(), ("model", "model")])
def test_a_form_without_one_model_is_refused(names):
    name = "openai-transcription"
    codec = find_format(name).translation(find_format(name), model="whisper-1")
    body = form(("file", b"x", ""), *((one, b"m", "") for one in names))
    exchange = make_exchange("POST", "http://api.test/v1/audio/transcriptions", body=body)
    exchange.request.headers["content-type"] = "multipart/form-data; boundary=b"
    assert codec.encode(exchange, exchange.request).status_code == 400


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("openai-images", "/images/generations"),
        ("openai-speech", "/audio/speech"),
        ("openai-moderations", "/moderations"),
    ],
)
def test_what_only_passes_has_its_model_changed(name, path):
    asked = {"model": "alias", "input": "x", "odd": {"a": 1.0}}
    _, _, request = ask(name, name, f"/v1{path}", asked)
    assert request.path == path
    assert json.loads(request.content) == {**asked, "model": "p-1"}


def test_usage_of_images_is_learned():
    asked = {"model": "m", "prompt": "x"}
    codec, exchange, _ = ask("openai-images", "openai-images", "/v1/images/generations", asked)
    answer(codec, exchange, {"created": 1, "data": [], "usage": {"input_tokens": 3,
           "output_tokens": 9, "total_tokens": 12}})  # fmt: skip
    usage = exchange.stash[AI_CALL].usage
    assert (usage.input, usage.output) == (3, 9)


# -- counting --------------------------------------------------------------------------------------


def test_counts_come_across():
    asked = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "system": "Be."}
    path = "/v1/messages/count_tokens"
    codec, exchange, request = ask("anthropic-count-tokens", "gemini-count-tokens", path, asked)
    assert request.path == "/models/p-1:countTokens"
    sent = json.loads(request.content)["generateContentRequest"]
    assert sent["model"] == "models/p-1"
    assert sent["contents"] == [{"role": "user", "parts": [{"text": "Hi"}]}]
    body = json.loads(answer(codec, exchange, {"totalTokens": 8}).content)
    assert body == {"input_tokens": 8}
    path = "/v1beta/models/g:countTokens"
    asked = {"generateContentRequest": sent}
    codec, exchange, request = ask("gemini-count-tokens", "anthropic-count-tokens", path, asked)
    sent = json.loads(request.content)
    assert sent["messages"] == [{"role": "user", "content": "Hi"}]
    assert sent.keys() <= {"model", "messages", "system"}
    body = json.loads(answer(codec, exchange, {"input_tokens": 8}).content)
    assert body["totalTokens"] == 8


def test_whoever_counts_can_answer():
    assert find_format("anthropic-count-tokens").counted(5) == {"input_tokens": 5}
    assert find_format("gemini-count-tokens").counted(5)["totalTokens"] == 5


def test_kinds_are_not_mixed():
    with pytest.raises(LookupError):
        find_format("openai-embeddings").translation(find_format("cohere-rerank"))


def test_the_official_client_reads_what_is_written():
    codec, exchange, _ = ask("openai-embeddings", "ollama-embeddings", "/v1/embeddings", ASKED)
    content = answer(codec, exchange, {"embeddings": [[1.0], [2.0]], "model": "o"}).content
    parsed = openai.types.CreateEmbeddingResponse.model_validate_json(content)
    assert [one.embedding for one in parsed.data] == [[1.0], [2.0]]
