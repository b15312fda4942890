"""The addon in a real pipeline: what every plugin keeps, and what this one does."""

from mitmproxy import http

from tidegate.api import Exchange, Principal
from tidegate.testing import PluginContract, TransformContract, make_answer, make_exchange


class TestMyPolicy(TransformContract, PluginContract):
    """The contract suites; this plugin has no backend that could be down."""

    name = "my-policy"

    def good_exchange(self) -> Exchange:
        return make_exchange(principal=Principal("ada", "platform"), headers={"x-caller": "root"})

    def answer(self) -> http.Response:
        return make_answer(200, "ok", {"server": "nginx/1.0", "x-kept": "1"})

    async def test_upstream_is_told_who_calls(self) -> None:
        async with self.harness() as harness:
            await harness.send(self.good_exchange())
            assert harness.sent[0].headers.get_all("x-caller") == ["platform/ada"]

    async def test_an_anonymous_caller_can_not_name_themselves(self) -> None:
        async with self.harness() as harness:
            await harness.send(make_exchange(headers={"x-caller": "root"}))
            assert "x-caller" not in harness.sent[0].headers

    async def test_callers_do_not_see_what_serves_them(self) -> None:
        async with self.harness(answer=self.answer()) as harness:
            exchange = await harness.send(self.good_exchange())
            assert exchange.response is not None
            assert "server" not in exchange.response.headers
            assert exchange.response.headers["x-kept"] == "1"
