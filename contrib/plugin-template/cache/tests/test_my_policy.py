"""The addon in a real pipeline: what every plugin keeps, and what this one does."""

from tidegate.testing import CacheContract, Clock, PluginContract, make_answer, make_exchange

MINUTE = {"cache-control": "max-age=60"}


class TestMyPolicy(CacheContract, PluginContract):
    """The contract suites; this plugin has no backend that could be down."""

    name = "my-policy"

    async def test_an_answer_is_asked_for_anew_when_its_time_is_over(self, clock: Clock) -> None:
        async with self.harness(answer=make_answer(200, b"fresh", MINUTE)) as harness:
            for seconds, hit in ((0, False), (59, True), (1, False), (1, True)):
                clock.advance(seconds)
                exchange = await harness.send(make_exchange(clock=clock))
                assert exchange.from_cache is hit

    async def test_a_caller_may_ask_for_a_fresh_answer(self) -> None:
        async with self.harness(answer=make_answer(200, b"fresh", MINUTE)) as harness:
            await harness.send(make_exchange())
            exchange = await harness.send(make_exchange(headers={"cache-control": "no-cache"}))
            assert not exchange.from_cache

    async def test_what_is_too_large_is_not_kept(self) -> None:
        answer = make_answer(200, b"x" * (256 * 1024 + 1), MINUTE)
        async with self.harness(answer=answer) as harness:
            for _ in range(2):
                exchange = await harness.send(make_exchange())
                assert not exchange.from_cache
