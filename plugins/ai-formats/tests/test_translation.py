"""The codec: an exchange's request, whole answer, events and errors between two formats."""

from __future__ import annotations

import json

import pytest
from tidegate_ai_formats import Translation, get_format
from tidegate_ai_formats.framing import decoder, encoder
from tidegate_ai_formats.registry import NAMES

from tidegate.api import Codec, SseEvent
from tidegate.api.formats import AI_CALL, find_format, format_names
from tidegate.testing.exchanges import make_answer, make_exchange
from tidegate.testing.streams import check

ASKED = {
    "openai-chat": {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
    "anthropic-messages": {
        "model": "m",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "Hi"}],
    },
    "openai-responses": {"model": "m", "input": "Hi"},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]},
    "bedrock-converse": {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]},
    "cohere-chat": {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
    "ollama-chat": {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
}


def begin(client, provider, *, stream=False, body=None, **options):
    """(codec, exchange, the provider's request)."""
    body = dict(body or ASKED[client])
    path = "/v1/x"
    if client == "gemini":
        path = (
            f"/v1beta/models/m:{'streamGenerateContent?alt=sse' if stream else 'generateContent'}"
        )
    elif client == "bedrock-converse":
        path = f"/model/m/converse{'-stream' if stream else ''}"
    else:
        body["stream"] = stream
    codec = Translation(get_format(client), get_format(provider), **options)
    exchange = make_exchange("POST", f"http://api.test{path}", body=body)
    request = codec.encode(exchange, exchange.request)
    return codec, exchange, request


def answer_of(provider, text="Hello"):
    """A whole answer of each format, as its provider would give it."""
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    return {
        "openai-chat": {
            "id": "c1",
            "object": "chat.completion",
            "created": 1,
            "model": "m-1",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": "stop",
                }
            ],
            "usage": usage,
        },
        "anthropic-messages": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m-1",
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 5, "output_tokens": 2},
        },
        "openai-responses": {
            "id": "resp_1",
            "object": "response",
            "created_at": 1,
            "model": "m-1",
            "status": "completed",
            "output": [
                {
                    "id": "msg_1",
                    "type": "message",
                    "role": "assistant",
                    "status": "completed",
                    "content": [{"type": "output_text", "text": text, "annotations": []}],
                }
            ],
            "usage": {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7},
        },
        "gemini": {
            "candidates": [
                {"content": {"parts": [{"text": text}], "role": "model"}, "finishReason": "STOP"}
            ],
            "usageMetadata": {
                "promptTokenCount": 5,
                "candidatesTokenCount": 2,
                "totalTokenCount": 7,
            },
            "modelVersion": "m-1",
            "responseId": "r1",
        },
        "bedrock-converse": {
            "output": {"message": {"role": "assistant", "content": [{"text": text}]}},
            "stopReason": "end_turn",
            "usage": {"inputTokens": 5, "outputTokens": 2, "totalTokens": 7},
        },
        "cohere-chat": {
            "id": "co1",
            "finish_reason": "COMPLETE",
            "message": {"role": "assistant", "content": [{"type": "text", "text": text}]},
            "usage": {"tokens": {"input_tokens": 5, "output_tokens": 2}},
        },
        "ollama-chat": {
            "model": "m-1",
            "created_at": "2026-01-02T03:04:05.678Z",
            "message": {"role": "assistant", "content": text},
            "done": True,
            "done_reason": "stop",
            "prompt_eval_count": 5,
            "eval_count": 2,
        },
    }[provider]


def test_formats_are_found_by_their_entry_points():
    chat = [name for name in format_names() if find_format(name).kind == "chat"]
    assert chat == sorted(NAMES)
    codec = find_format("openai-chat").translation(find_format("openai-chat/mistral"))
    assert isinstance(codec, Codec)
    for name in ("smoke-signals", "openai-chat/klingon", "gemini/latin"):
        with pytest.raises(LookupError):
            find_format(name)
        with pytest.raises(LookupError):
            get_format(name)


@pytest.mark.parametrize("provider", NAMES)
@pytest.mark.parametrize("client", NAMES)
def test_a_whole_answer_reaches_every_caller(client, provider, kit):
    codec, exchange, request = begin(client, provider)
    sent = get_format(provider).parse_request(json.loads(request.content), request.path)
    assert sent.model == "m"
    assert sent.messages[0].parts[0].text == "Hi"
    response = codec.decode(exchange, make_answer(200, answer_of(provider, "Hello é")))
    assert response.headers["content-type"] == "application/json"
    got = get_format(client).parse_response(json.loads(response.content))
    assert kit.gist(got)["text"] == "Hello é"
    assert kit.gist(got)["finish"] == "stop"
    assert kit.gist(got)["usage"] == (5, 2)
    if client not in ("bedrock-converse", "ollama-chat"):
        assert got.id
    call = exchange.stash[AI_CALL]
    assert (call.usage.input, call.usage.output, call.finish) == (5, 2, "stop")
    assert call.model == "m"


@pytest.mark.parametrize("provider", NAMES)
@pytest.mark.parametrize("client", NAMES)
def test_a_stream_reaches_every_caller_in_its_grammar(client, provider, kit):
    codec, exchange, _ = begin(client, provider, stream=True)
    source, target = get_format(provider), get_format(client)
    whole = source.parse_response(answer_of(provider))
    items = kit.write(source, events_of(whole))
    if source.framing == "sse":
        out = []
        for item in items:
            result = codec.decode_event(exchange, item)
            out += [result] if isinstance(result, SseEvent) else result
        out += codec.decode_end(exchange) or []
    else:  # the carrier gathers what is not made of server-sent events
        body = kit.bytes(source, items)
        response = codec.decode(
            exchange, make_answer(200, body, {"content-type": source.stream_type})
        )
        assert response.headers["content-type"] == target.stream_type
        wire = decoder(target.framing)
        out = wire.feed(response.content) + wire.end()
    check(client, out)
    got = kit.collect(target, kit.bytes(target, out))
    assert kit.gist(got)["text"] == "Hello"
    assert kit.gist(got)["finish"] == "stop"
    call = exchange.stash[AI_CALL]
    assert (call.usage.input, call.usage.output, call.finish) == (5, 2, "stop")


def events_of(response):
    """The events of a whole answer of one text."""
    from tidegate_ai_formats.events import (
        Delta,
        End,
        Finished,
        PartStart,
        PartStop,
        Start,
        UsageUpdate,
    )
    from tidegate_ai_formats.model import Text

    one = response.candidates[0]
    text = one.parts[0].text
    return [
        Start(response.family, response.id, response.model, response.created),
        PartStart(0, Text("")),
        *[Delta(0, piece) for piece in text],
        PartStop(0),
        Finished(one.finish),
        UsageUpdate(response.usage),
        End(),
    ]


SSE_CLIENTS = [name for name in NAMES if get_format(name).framing == "sse"]


@pytest.mark.parametrize("client", SSE_CLIENTS)
def test_a_stream_that_is_cut_ends_with_the_callers_error_event(client):
    provider = "openai-chat" if client != "openai-chat" else "anthropic-messages"
    codec, exchange, _ = begin(client, provider, stream=True)
    first = {
        "openai-chat": '{"id":"1","object":"chat.completion.chunk","created":1,"model":"m",'
        '"choices":[{"index":0,"delta":{"content":"He"},"finish_reason":null}]}',
        "anthropic-messages": '{"type":"message_start","message":{"id":"1","usage":{}}}',
    }[provider]
    out = codec.decode_event(exchange, SseEvent(first))
    last = codec.decode_end(exchange)
    check(client, [*out, *last])
    assert "ended before its end" in last[-2 if client == "openai-chat" else -1].data
    assert codec.decode_event(exchange, SseEvent(first)) == []


@pytest.mark.parametrize("client", SSE_CLIENTS)
def test_an_error_within_a_stream_is_the_callers_error(client):
    codec, exchange, _ = begin(client, "anthropic-messages", stream=True)
    event = SseEvent(
        '{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}', "error"
    )
    out = codec.decode_event(exchange, event)
    out = [out] if isinstance(out, SseEvent) else out
    assert "Overloaded" in out[0].data
    assert not codec.decode_end(exchange) or client == "anthropic-messages"


@pytest.mark.parametrize("provider", NAMES)
@pytest.mark.parametrize("client", NAMES)
def test_errors_come_in_the_callers_shape_with_a_fitting_status(client, provider):
    codec, exchange, _ = begin(client, provider)
    source = get_format(provider)
    from tidegate_ai_formats.losses import Failure

    status, body = source.write_error(Failure(429, "rate_limit", "Slow down."))
    response = codec.decode(exchange, make_answer(status, body))
    assert response.status_code == 429
    failure = get_format(client).parse_error(429, json.loads(response.content))
    assert (failure.kind, failure.message) == ("rate_limit", "Slow down.")


def test_what_is_no_answer_is_an_error_in_the_callers_shape():
    codec, exchange, _ = begin("anthropic-messages", "openai-chat")
    for body in (b"<html>", b"[]", b'{"choices": [null]}', b"{}"):
        response = codec.decode(exchange, make_answer(200, body))
        assert response.status_code == 502
        assert json.loads(response.content)["error"]["type"] == "api_error"


def test_the_same_format_passes_untouched_and_is_accounted():
    body = {**ASKED["openai-chat"], "odd": {"a": [1.0, None]}, "max_tokens": 5}
    codec, exchange, request = begin("openai-chat", "openai-chat", body=body)
    assert json.loads(request.content) == {**body, "stream": False}
    content = json.dumps(answer_of("openai-chat"), indent=3).encode()
    response = codec.decode(exchange, make_answer(200, content))
    assert response.content == content
    assert exchange.stash[AI_CALL].usage.input == 5


def test_a_provider_may_call_the_model_otherwise():
    for name in ("openai-chat", "anthropic-messages", "gemini"):
        _, exchange, request = begin(name, name, model="m-2026")
        assert "m-2026" in request.content.decode() + request.path
        assert exchange.stash[AI_CALL].model == "m-2026"
        assert exchange.stash[AI_CALL].request.model == "m"


def test_strict_refuses_and_names_the_field_where_the_lenient_policy_warns():
    body = {**ASKED["openai-chat"], "seed": 7, "logit_bias": {"1": 2}}
    codec = Translation(get_format("openai-chat"), get_format("anthropic-messages"), "strict")
    exchange = make_exchange("POST", "http://api.test/v1/chat/completions", body=body)
    for ask in (codec.encode, codec.refusal):
        refusal = ask(exchange, exchange.request)
        assert refusal.status_code == 400
        error = json.loads(refusal.content)["error"]
        assert (error["param"], error["type"]) == ("seed", "invalid_request_error")
    codec, exchange, _ = begin("openai-chat", "anthropic-messages", body=body)
    response = codec.decode(exchange, make_answer(200, answer_of("anthropic-messages")))
    header = response.headers["x-tidegate-warnings"]
    assert "seed" in header
    assert "logit_bias" in header


def test_what_only_a_provider_remembers_is_refused_under_any_policy():
    body = {**ASKED["openai-responses"], "previous_response_id": "resp_0"}
    codec = Translation(get_format("openai-responses"), get_format("gemini"))
    exchange = make_exchange("POST", "http://api.test/v1/responses", body=body)
    refusal = codec.refusal(exchange, exchange.request)
    assert json.loads(refusal.content)["error"]["param"] == "previous_response_id"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"messages": 1}', b'{"messages": [1]}'])
def test_what_is_no_request_is_refused_in_the_callers_shape(body):
    codec = Translation(get_format("anthropic-messages"), get_format("openai-chat"))
    exchange = make_exchange("POST", "http://api.test/v1/messages", body=body)
    refusal = codec.refusal(exchange, exchange.request)
    assert json.loads(refusal.content)["error"]["type"] == "invalid_request_error"


def test_a_failover_to_another_format_starts_from_the_callers_request():
    client = get_format("openai-chat")
    exchange = make_exchange("POST", "http://api.test/v1/x", body=ASKED["openai-chat"])
    from tidegate.runtime.messages import copy_request

    first = Translation(client, get_format("anthropic-messages"))
    second = Translation(client, get_format("gemini"))
    first.encode(exchange, copy_request(exchange.request))
    sent = second.encode(exchange, copy_request(exchange.request))
    assert json.loads(sent.content)["contents"][0]["parts"] == [{"text": "Hi"}]
    response = second.decode(exchange, make_answer(200, answer_of("gemini")))
    assert json.loads(response.content)["choices"][0]["message"]["content"] == "Hello"


def test_a_caller_without_alt_sse_gets_one_json_array(kit):
    codec = Translation(get_format("gemini"), get_format("bedrock-converse"))
    url = "http://api.test/v1beta/models/m:streamGenerateContent"
    exchange = make_exchange("POST", url, body=ASKED["gemini"])
    codec.encode(exchange, exchange.request)
    source = get_format("bedrock-converse")
    items = kit.write(source, events_of(source.parse_response(answer_of("bedrock-converse"))))
    body = b"".join(map(encoder("aws").feed, items))
    response = codec.decode(exchange, make_answer(200, body, {"content-type": source.stream_type}))
    texts = [
        part.get("text")
        for chunk in json.loads(response.content)
        for candidate in chunk["candidates"]
        for part in candidate["content"]["parts"]
    ]
    assert "".join(texts) == "Hello"
    assert response.headers["content-type"] == "application/json"


def test_a_gemini_caller_of_gemini_keeps_its_query_and_its_array():
    gemini = get_format("gemini")
    codec = Translation(gemini, gemini)
    url = "http://api.test/v1beta/models/m:streamGenerateContent?x=1"
    exchange = make_exchange("POST", url, body=ASKED["gemini"])
    request = codec.encode(exchange, exchange.request)
    assert request.path == "/models/m:streamGenerateContent?x=1"
    content = json.dumps([answer_of("gemini")], indent=1).encode()
    response = codec.decode(exchange, make_answer(200, content))
    assert response.content == content
    assert exchange.stash[AI_CALL].usage.output == 2


def test_what_passes_is_never_made_an_error():
    codec, exchange, _ = begin("openai-chat", "openai-chat")
    response = codec.decode(exchange, make_answer(200, b"<odd>"))
    assert (response.status_code, response.content) == (200, b"<odd>")


async def test_the_addon_tells_what_was_lost_unless_it_is_told_not_to(tmp_path):
    from tidegate_ai_formats import AiFormats, AiFormatsConfig

    from tidegate.api import AddonContext

    body = {**ASKED["openai-chat"], "seed": 7}
    for wanted in (True, False):
        _, exchange, _ = begin("openai-chat", "anthropic-messages", stream=True, body=body)
        exchange.response = make_answer(200, b"", {"content-type": "text/event-stream"})
        config = AiFormatsConfig(warnings=wanted)
        AiFormats(config, AddonContext("ai-formats", tmp_path)).transform_response(exchange)
        assert ("seed" in exchange.response.headers.get("x-tidegate-warnings", "")) is wanted


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("..", "/model/%2E%2E/converse"),
        ("../x", "/model/..%2Fx/converse"),
        ("a.b:0", "/model/a.b%3A0/converse"),
    ],
)
def test_a_name_of_a_model_takes_no_step_in_the_path(model, path):
    _, _, request = begin(
        "openai-chat", "bedrock-converse", body={**ASKED["openai-chat"], "model": model}
    )
    assert request.path == path
