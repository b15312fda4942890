"""LangChain's models: a tool call and its result, whole and as a stream, by both vendors' APIs.

Run by `test_agents.py`, in an environment that has LangChain.
"""

import json
import os

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI

URL, KEY = os.environ["BASE_URL"], os.environ["API_KEY"]


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


def talk(model, *, stream):
    """Ask, run the tool, ask again: what was called, what was said, and the usage of both."""
    model = model.bind_tools([get_weather])
    messages = [HumanMessage("The weather in Paris?")]
    calls, used = [], []
    while True:
        if stream:
            said = None
            for piece in model.stream(messages):
                said = piece if said is None else said + piece
        else:
            said = model.invoke(messages)
        usage = said.usage_metadata
        used.append([usage["input_tokens"], usage["output_tokens"]])
        if not said.tool_calls:
            return {"text": said.text, "calls": calls, "used": used}
        messages.append(said)
        for call in said.tool_calls:
            calls.append([call["name"], call["args"]])
            messages.append(ToolMessage(get_weather(**call["args"]), tool_call_id=call["id"]))


seen = []
for name in os.environ["MODELS"].split(","):
    common = {"model": name, "api_key": KEY, "max_retries": 0}
    for model in (
        ChatOpenAI(base_url=f"{URL}/v1", stream_usage=True, **common),
        ChatOpenAI(base_url=f"{URL}/v1", use_responses_api=True, **common),
        ChatAnthropic(base_url=URL, max_tokens=100, **common),
    ):
        seen += [talk(model, stream=False), talk(model, stream=True)]
print(json.dumps(seen))
