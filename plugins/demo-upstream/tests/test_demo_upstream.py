"""The demo through OpenAI's own SDK, and as an addon."""

import json
import socket

import httpx
import openai
import pytest
from tidegate_demo_upstream import DemoUpstream, DemoUpstreamConfig
from tidegate_demo_upstream.model import embedding, example, words

from tidegate.api import AddonContext
from tidegate.testing import make_exchange
from tidegate.testing.contracts import PluginContract, RouteContract

HELLO = [{"role": "user", "content": "Is the tide in?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"enum": ["C", "F"]},
                "days": {"type": "integer", "minimum": 2},
            },
        },
    },
}


def make(tmp_path, environment="development", **options):
    config = DemoUpstreamConfig.model_validate({"pace": 0, **options})
    return DemoUpstream(config, AddonContext("demo-upstream", tmp_path, environment=environment))


@pytest.fixture
async def addon(tmp_path):
    plugin = make(tmp_path)
    await plugin.startup(None)
    yield plugin
    await plugin.shutdown()


@pytest.fixture
async def client(addon):
    url = f"http://127.0.0.1:{addon.server.port}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


async def test_a_chat_is_answered_with_what_was_said_and_what_to_do_next(client):
    answer = await client.chat.completions.create(model="gpt-4o", messages=HELLO)
    text = answer.choices[0].message.content
    assert "Is the tide in?" in text
    assert "tidegate up --local-model" in text
    assert "OPENAI_API_KEY" in text
    assert answer.model == "gpt-4o"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == len(words(text))
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_a_stream_says_the_same_as_the_whole_with_the_same_usage(client):
    whole = await client.chat.completions.create(model="demo", messages=HELLO)
    chunks = [
        chunk
        async for chunk in await client.chat.completions.create(
            model="demo", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    ]
    first, *middle, finish, usage = chunks
    assert first.choices[0].delta.role == "assistant"
    said = "".join(chunk.choices[0].delta.content for chunk in middle)
    assert said == whole.choices[0].message.content
    assert len(middle) > 10
    assert finish.choices[0].finish_reason == "stop"
    assert usage.choices == []
    assert usage.usage == whole.usage
    assert {chunk.id for chunk in chunks} == {first.id}


async def test_without_include_usage_no_chunk_has_usage(client):
    stream = await client.chat.completions.create(model="demo", messages=HELLO, stream=True)
    assert [chunk.usage async for chunk in stream if chunk.usage is not None] == []


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_a_limit_of_tokens_is_kept(client, name):
    answer = await client.chat.completions.create(model="demo", messages=HELLO, **{name: 3})
    assert answer.usage.completion_tokens == 3
    assert answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "get_weather"}}]
)
async def test_a_tool_that_must_be_called_is_called_with_arguments_of_its_schema(client, choice):
    options = {"model": "demo", "messages": HELLO, "tools": [WEATHER], "tool_choice": choice}
    answer = await client.chat.completions.create(**options)
    (call,) = answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason == "tool_calls"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "city", "unit": "C", "days": 2}
    async with client.chat.completions.stream(**options) as stream:
        final = await stream.get_final_completion()
    streamed = final.choices[0].message.tool_calls[0].function
    assert streamed.arguments == call.function.arguments


async def test_a_tools_result_is_said_back(client):
    call = {"id": "a", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "18 degrees"},
    ]
    answer = await client.chat.completions.create(model="d", messages=messages, tools=[WEATHER])
    assert answer.choices[0].message.content == "The tool said: 18 degrees"


async def test_json_is_answered_where_json_is_asked_for(client):
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    answer = await client.chat.completions.create(
        model="demo", messages=HELLO, response_format=form
    )
    assert json.loads(answer.choices[0].message.content) == {"ok": True}
    answer = await client.chat.completions.create(
        model="demo", messages=HELLO, response_format={"type": "json_object"}
    )
    assert "answer" in json.loads(answer.choices[0].message.content)


async def test_parts_of_a_message_are_read(client):
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    answer = await client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": parts}]
    )
    assert "“one two”" in answer.choices[0].message.content


async def test_models_are_listed_and_found_under_any_name(client):
    assert [model.id async for model in client.models.list()] == ["demo"]
    assert (await client.models.retrieve("gpt-4o")).id == "gpt-4o"


async def test_embeddings_are_the_same_each_time_in_both_encodings(client):
    base64 = await client.embeddings.create(model="demo", input=["a b", "a c", "x y"])
    floats = await client.embeddings.create(model="demo", input="a b", encoding_format="float")
    one, two, three = (item.embedding for item in base64.data)
    assert one == pytest.approx(floats.data[0].embedding, abs=1e-6)

    def near(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert near(one, one) == pytest.approx(1)
    assert near(one, two) > near(one, three)


async def test_dimensions_and_token_inputs_are_taken(client):
    answer = await client.embeddings.create(model="demo", input=[[1, 2], [3]], dimensions=8)
    assert [len(item.embedding) for item in answer.data] == [8, 8]
    assert answer.usage.prompt_tokens == 3


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages"),
        ({"messages": HELLO, "model": ""}, "model"),
        ({"messages": HELLO, "max_tokens": 0}, "max_tokens"),
        ({"messages": HELLO, "tool_choice": "required"}, "tool_choice"),
        (
            {
                "messages": HELLO,
                "tools": [WEATHER],
                "tool_choice": {"type": "function", "function": {"name": "no"}},
            },
            "tool_choice",
        ),
    ],
)
async def test_wrong_requests_raise_the_sdks_bad_request_error(client, options, param):
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(**{"model": "demo", **options})
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize("value", [[], "", ["a", ""], [[]]])
async def test_wrong_embedding_inputs_raise_bad_request(client, value):
    with pytest.raises(openai.BadRequestError):
        await client.embeddings.create(model="demo", input=value)


async def test_an_unknown_path_raises_not_found(client):
    with pytest.raises(openai.NotFoundError, match="chat completions"):
        await client.moderations.create(input="x")


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b""])
async def test_a_body_that_is_not_json_is_a_bad_request(addon, content):
    url = f"http://127.0.0.1:{addon.server.port}/v1/chat/completions"
    async with httpx.AsyncClient() as http:
        response = await http.post(url, content=content)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


# -- values -----------------------------------------------------------------------------------


def test_words_join_to_the_text_again():
    for text in ("", "a", " a  b\n", "{}", "a\u00a0b "):
        assert "".join(words(text)) == text


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string", "minLength": 8}, "valuexxx"),
        ({"type": ["integer", "null"]}, 1),
        ({"type": "array", "items": {"type": "number"}, "minItems": 2}, [1, 1]),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, True),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"const": 7}}}, 7),
        ({"type": "string", "format": "date"}, "2026-01-31"),
        ({"type": "string", "minLength": "no"}, "value"),
        ({"type": {}}, "value"),
        ({"$ref": "#/nowhere"}, None),
        (None, None),
    ],
)
def test_examples_fit_their_schema(schema, value):
    assert example(schema) == value


def test_a_schema_that_grows_without_end_is_cut():
    properties = {name: {"$ref": "#"} for name in "abcdefghijkl"}
    text = json.dumps(example({"type": "object", "properties": properties}))
    assert len(text) < 100_000


def test_a_vector_has_length_one():
    for text in ("a", "", "!", "the tide is in"):
        assert sum(x * x for x in embedding(text)) == pytest.approx(1)


# -- the addon --------------------------------------------------------------------------------


async def test_it_routes_its_paths_and_leaves_the_rest(addon):
    assert addon.route(make_exchange("GET", "http://x/v1/models")) is addon.upstream
    assert addon.upstream.url == f"http://127.0.0.1:{addon.server.port}"
    assert addon.route(make_exchange("GET", "http://x/v2")) is None


async def test_in_production_it_refuses_to_start_unless_forced(tmp_path):
    with pytest.raises(RuntimeError, match="not for production"):
        await make(tmp_path, "production").startup(None)
    forced = make(tmp_path, "production", force=True)
    await forced.startup(None)
    await forced.shutdown()


async def test_a_taken_port_refuses_to_start(tmp_path, addon):
    with pytest.raises(OSError, match="in use"):
        await make(tmp_path, port=addon.server.port).startup(None)


@pytest.fixture(scope="module")
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class TestPlugin(PluginContract):
    name = "demo-upstream"


class TestRoute(RouteContract):
    name = "demo-upstream"

    @pytest.fixture(autouse=True)
    def _port(self, free_port):
        self.port = free_port

    def options(self):
        return {"port": self.port}

    def good_exchange(self):
        return make_exchange("GET", "http://api.test/v1/models")

    def unrouted_exchange(self):
        return make_exchange("GET", "http://api.test/elsewhere")
