"""The addon in a real pipeline: what every plugin keeps, and what this one does."""

from collections.abc import Mapping, Sequence
from typing import Any

from tidegate.api import Exchange, Principal
from tidegate.testing import AuthorizeContract, Clock, PluginContract, make_exchange


class TestMyPolicy(AuthorizeContract, PluginContract):
    """The contract suites; this plugin has no backend that could be down."""

    name = "my-policy"

    def options(self) -> Mapping[str, Any]:
        return {"rate": "2/min"}

    def denied(self) -> Sequence[Exchange]:
        return [make_exchange() for _ in range(3)]

    async def test_each_caller_has_a_window_of_its_own(self) -> None:
        async with self.harness() as harness:
            for caller in (Principal("ada"), Principal("bob")):
                for _ in range(2):
                    exchange = await harness.send(make_exchange(principal=caller))
                    assert exchange.outcome == "answered"

    async def test_the_next_window_begins_when_the_answer_said(self, clock: Clock) -> None:
        async with self.harness() as harness:
            for _ in range(3):
                last = await harness.send(make_exchange(clock=clock))
            assert last.denial is not None
            assert last.denial.retry_after is not None
            clock.advance(last.denial.retry_after)
            again = await harness.send(make_exchange(clock=clock))
            assert again.outcome == "answered"

    async def test_a_reload_does_not_forgive(self) -> None:
        async with self.harness() as harness:
            for _ in range(2):
                await harness.send(make_exchange())
            await harness.reload(self.use(rate="1/min"))
            exchange = await harness.send(make_exchange())
            assert exchange.outcome == "denied"
