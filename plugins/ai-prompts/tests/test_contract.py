"""What every plugin and every transform keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mitmproxy import http

from tidegate.api import Exchange
from tidegate.testing import make_answer, make_exchange
from tidegate.testing.contracts import PluginContract, TransformContract

GREET = {
    "name": "greet",
    "model": "m",
    "user": "Greet {{ who }}.",
    "variables": {"who": {"type": "string"}},
}
ANSWER = (
    b'{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"finish_reason":"stop",'
    b'"message":{"role":"assistant","content":"Hello"}}],"usage":{"prompt_tokens":1,'
    b'"completion_tokens":1}}'
)


class Common:
    name = "ai-prompts"

    def options(self) -> Mapping[str, Any]:
        return {"prompts": [GREET]}

    def good_exchange(self) -> Exchange:
        return make_exchange("POST", "http://api.test/prompts/greet", body={"who": "Ada"})


class TestPlugin(Common, PluginContract):
    pass


class TestTransform(Common, TransformContract):
    def answer(self) -> http.Response:
        return make_answer(200, ANSWER, {"content-type": "application/json"})
