"""Calls of prompts over real sockets: variables in, output out."""

from __future__ import annotations

import json

import httpx
import pytest
from jsonschema import Draft202012Validator

from tidegate.testing import script as scripts

SUMMARISE = {
    "name": "summarise",
    "description": "Summarises a text.",
    "model": "smart",
    "parameters": {"temperature": 0.2},
    "system": "You summarise in {{ language }}.",
    "user": "{{ text }}{% if hint %} ({{ hint }}){% endif %}",
    "variables": {
        "text": {"type": "string", "max_length": 40},
        "language": {"default": "English", "enum": ["English", "French"]},
        "hint": {"required": False},
        "lines": {"type": "integer", "default": 3, "minimum": 1},
    },
}
PERSON = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
EXTRACT = {
    "name": "extract",
    "latest": 1,
    "versions": [
        {
            "version": 1,
            "model": "exact",
            "user": "Who? {{ text }}",
            "variables": {"text": {}},
            "output": {"schema": PERSON},
            "examples": [{"variables": {"text": "Ada wrote."}, "output": {"name": "Ada"}}],
        },
        {
            "version": 2,
            "model": "newer",
            "user": "Who is it? {{ text }}",
            "variables": {"text": {}},
        },
    ],
}
OPTIONS = {"prompts": [SUMMARISE, EXTRACT]}


async def test_variables_become_a_chat_call_and_its_answer_the_output(kit, upstream):
    upstream.answer(*kit.answer("Short."))
    async with kit.running(upstream, OPTIONS) as running:
        answer = await running.http.post("/prompts/summarise", json={"text": "Long & <long>"})
    assert answer.status_code == 200
    assert answer.json() == {
        "output": "Short.",
        "usage": {"input_tokens": 9, "output_tokens": 4},
        "model": "real-model",
        "prompt": "summarise",
        "version": 1,
    }
    (request,) = upstream.requests
    assert (request.method, request.target) == ("POST", "/v1/chat/completions")
    assert request.json() == {
        "model": "smart",
        "messages": [
            {"role": "system", "content": "You summarise in English."},
            {"role": "user", "content": "Long & <long>"},
        ],
        "temperature": 0.2,
    }


async def test_versions_have_paths_of_their_own(kit, upstream):
    upstream.answer(*kit.answer('{"name": "Grace"}'))
    async with kit.running(upstream, OPTIONS) as running:
        for path, model in (("", "exact"), ("/v1", "exact"), ("/v2", "newer")):
            answer = await running.http.post(f"/prompts/extract{path}", json={"text": "x"})
            assert answer.status_code == 200
            assert upstream.requests[-1].json()["model"] == model
        assert (await running.http.post("/prompts/extract/v3", json={})).status_code == 404
        assert (await running.http.get("/prompts/extract")).status_code == 405


async def test_examples_come_before_the_question_and_the_schema_goes_along(kit, upstream):
    upstream.answer(*kit.answer('{"name": "Grace"}'))
    async with kit.running(upstream, OPTIONS) as running:
        answer = await running.http.post("/prompts/extract", json={"text": "Grace came."})
    assert answer.json()["output"] == {"name": "Grace"}
    sent = upstream.requests[0].json()
    assert [(m["role"], m["content"]) for m in sent["messages"]] == [
        ("user", "Who? Ada wrote."),
        ("assistant", '{"name":"Ada"}'),
        ("user", "Who? Grace came."),
    ]
    assert sent["response_format"]["json_schema"]["schema"] == PERSON


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "text"),
        ({"text": 7}, "text"),
        ({"text": "x" * 41}, "text"),
        ({"text": "x", "language": "Klingon"}, "language"),
        ({"text": "x", "lines": 0}, "lines"),
        ({"text": "x", "unknown": 1}, "unknown"),
    ],
)
async def test_a_wrong_variable_is_named(kit, upstream, body, field):
    async with kit.running(upstream, OPTIONS) as running:
        answer = await running.http.post("/prompts/summarise", json=body)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["code"] == "prompt_variables_invalid"
    assert error["request_id"] == answer.headers["x-request-id"]
    assert [fault["name"] for fault in error["fields"]] == [field]
    assert upstream.requests == []


async def test_a_body_that_is_no_object_is_refused(kit, upstream):
    async with kit.running(upstream, OPTIONS) as running:
        for content in (b"[1]", b"{", b'"text"'):
            answer = await running.http.post("/prompts/summarise", content=content)
            assert answer.status_code == 400
            assert answer.json()["error"]["code"] == "prompt_body_invalid"


async def test_what_a_caller_says_is_never_a_template(kit, upstream):
    upstream.answer(*kit.answer("x"))
    async with kit.running(upstream, OPTIONS) as running:
        await running.http.post("/prompts/summarise", json={"text": "{{ language }}{% raw %}"})
    assert upstream.requests[0].json()["messages"][1]["content"] == "{{ language }}{% raw %}"


async def test_a_template_that_does_too_much_stops(kit, upstream):
    bomb = {
        "name": "bomb",
        "model": "m",
        "user": "{% for i in range(n) %}{% for j in range(n) %}x{% endfor %}{% endfor %}",
        "variables": {"n": {"type": "integer"}},
    }
    async with kit.running(upstream, {"prompts": [bomb]}) as running:
        answer = await running.http.post("/prompts/bomb", json={"n": 90000})
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "prompt_template_failed"


async def test_plain_text_is_given_to_those_who_accept_it(kit, upstream):
    upstream.answer(*kit.answer("Só."))
    async with kit.running(upstream, OPTIONS) as running:
        headers = {"accept": "text/plain"}
        answer = await running.http.post("/prompts/summarise", json={"text": "x"}, headers=headers)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text == "Só."


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"name": "Ada"}\n```',
        'Here it is: {"name": "Ada"}. Anything else?',
        ' {"name": "Ada"}\n',
    ],
)
async def test_json_is_taken_out_of_fences_and_words(kit, upstream, text):
    upstream.answer(*kit.answer(text))
    async with kit.running(upstream, OPTIONS) as running:
        answer = await running.http.post("/prompts/extract", json={"text": "x"})
    assert answer.json()["output"] == {"name": "Ada"}


@pytest.mark.parametrize(
    ("text", "finish", "reason"),
    [
        ("I can't.", "stop", "not JSON"),
        ('{"nom": "Ada"}', "stop", "name"),
        ('{"name": "A', "length", "length limit"),
    ],
)
async def test_an_answer_that_is_not_of_the_schema_is_no_answer(
    kit, upstream, text, finish, reason
):
    upstream.answer(*kit.answer(text, finish))
    async with kit.running(upstream, OPTIONS) as running:
        answer = await running.http.post("/prompts/extract", json={"text": "x"})
        assert running.counters()["outputs_invalid_total"] == 1
    assert answer.status_code == 502
    assert "prompt_output_invalid" in answer.text
    assert reason in answer.text


async def test_a_refusal_is_an_error_with_a_code(kit, upstream):
    upstream.answer(*kit.answer(None, refusal="No."))
    async with kit.running(upstream, OPTIONS) as running:
        answer = await running.http.post("/prompts/summarise", json={"text": "x"})
    assert answer.status_code == 502
    assert "prompt_refused" in answer.text


async def test_a_providers_error_keeps_its_status_and_gets_our_shape(kit, upstream):
    upstream.answer(*scripts.json({"error": {"message": "Slow down", "type": "x"}}, 429))
    async with kit.running(upstream, OPTIONS) as running:
        answer = await running.http.post("/prompts/summarise", json={"text": "x"})
    assert answer.status_code == 429
    error = answer.json()["error"]
    assert (error["code"], error["message"]) == ("model_error", "Slow down")


async def test_with_the_upstream_down_the_caller_gets_an_error(kit, upstream):
    upstream.answer(scripts.reset())
    async with kit.running(upstream, OPTIONS) as running:
        answer = await running.http.post("/prompts/summarise", json={"text": "x"})
    assert answer.status_code == 502
    assert answer.json()["error"]["message"]


# -- streams ----------------------------------------------------------------------------------


def chunks(*texts, finish="stop"):
    """A chat's stream."""
    base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "real-model"}
    deltas = [{"role": "assistant", "content": ""}, *({"content": text} for text in texts), {}]
    events = [
        {**base, "choices": [{"index": 0, "delta": d, "finish_reason": None if d else finish}]}
        for d in deltas
    ]
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    return [json.dumps(event) for event in (*events, {**base, "choices": [], "usage": usage})]


def events_of(text):
    """(type, value) of each event."""
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields.get("event", ""), json.loads(fields["data"])))
    return found


@pytest.mark.parametrize("asked", ["body", "accept"])
async def test_a_stream_gives_the_text_as_it_comes(kit, upstream, asked):
    upstream.answer(*scripts.sse(*chunks("Hé", "llo")))
    body = {"text": "x", **({"stream": True} if asked == "body" else {})}
    headers = {"accept": "text/event-stream"} if asked == "accept" else {}
    async with kit.running(upstream, OPTIONS) as running:
        answer = await running.http.post("/prompts/summarise", json=body, headers=headers)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *deltas, done = events_of(answer.text)
    assert deltas == [("", {"delta": "Hé"}), ("", {"delta": "llo"})]
    assert done == (
        "done",
        {
            "finish": "stop",
            "usage": {"input_tokens": 9, "output_tokens": 4},
            "model": "real-model",
            "prompt": "summarise",
            "version": 1,
        },
    )
    assert upstream.requests[0].json()["stream_options"] == {"include_usage": True}


async def collect(answer, pieces):
    async for piece in answer.aiter_text():
        pieces.append(piece)


async def test_a_streamed_answer_that_is_not_of_the_schema_ends_with_an_error(kit, upstream):
    upstream.answer(*scripts.sse(*chunks('{"nom"', ': "Ada"}')))
    async with kit.running(upstream, OPTIONS) as running:
        body = {"text": "x", "stream": True}
        async with running.http.stream("POST", "/prompts/extract", json=body) as answer:
            pieces = []
            with pytest.raises(httpx.RemoteProtocolError):  # so that nobody takes it for whole
                await collect(answer, pieces)
        text = "".join(pieces)
    assert "prompt_output_invalid" in text
    assert "event: done" not in text


# -- the document -------------------------------------------------------------------------------


async def test_the_openapi_document_tells_paths_variables_and_outputs(kit, upstream):
    async with kit.running(upstream, OPTIONS) as running:
        answer = await running.http.get("/prompts/openapi.json")
    document = answer.json()
    assert document["openapi"] == "3.1.0"
    assert set(document["paths"]) == {
        "/prompts/summarise",
        "/prompts/summarise/v1",
        "/prompts/extract",
        "/prompts/extract/v1",
        "/prompts/extract/v2",
    }
    post = document["paths"]["/prompts/summarise"]["post"]
    schema = post["requestBody"]["content"]["application/json"]["schema"]
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate({"text": "x", "stream": True})
    assert schema["required"] == ["text"]
    assert schema["properties"]["language"]["enum"] == ["English", "French"]
    answers = document["paths"]["/prompts/extract"]["post"]["responses"]["200"]["content"]
    assert answers["application/json"]["schema"]["properties"]["output"] == PERSON
    ids = [path["post"]["operationId"] for path in document["paths"].values()]
    assert len(set(ids)) == len(ids)
