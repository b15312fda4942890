"""The addon in a real pipeline: what every plugin keeps, and what this one does."""

from collections.abc import Mapping
from typing import Any

from mitmproxy import http

from tidegate.testing import PluginContract, TransformContract, make_answer

STREAM = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}


class TestMyPolicy(TransformContract, PluginContract):
    """The contract suites; this plugin has no backend that could be down."""

    name = "my-policy"

    def options(self) -> Mapping[str, Any]:
        return {"words": ["falcon"]}

    def answer(self) -> http.Response:
        body = "data: Falcon flies at dawn\n\nevent: note\ndata: falcons do not\n\ndata: [DONE]\n\n"
        return make_answer(200, body, STREAM)

    async def test_words_are_masked_and_the_rest_keeps_its_bytes(self) -> None:
        async with self.harness(answer=self.answer()) as harness:
            exchange = await harness.send(self.good_exchange())
            assert exchange.response is not None
            assert exchange.response.raw_content == (
                b"data: *** flies at dawn\n\nevent: note\ndata: falcons do not\n\ndata: [DONE]\n\n"
            )
            assert harness.counters() == {"words_masked_total": 1}
