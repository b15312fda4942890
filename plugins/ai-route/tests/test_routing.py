"""Which model is asked: by strategy, by what it can do, by share."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import openai
import pytest
from tidegate_ai_route.demand import demand_of
from tidegate_ai_route.options import VirtualModel
from tidegate_ai_route.plugin import Route, known
from tidegate_ai_route.targets import FAILURES

from tidegate.api.formats import ai_call
from tidegate.api.models import Model
from tidegate.testing import ScriptedUpstream, make_exchange
from tidegate.testing import script as scripts


def answer(text="Hello", tokens=5):
    """A whole answer in OpenAI's shape."""
    return scripts.json(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 3, "completion_tokens": tokens, "total_tokens": 3 + tokens},
        }
    )


@pytest.fixture
async def three():
    """Three upstreams, each of which says its number."""
    async with AsyncExitStack() as stack:
        upstreams = []
        for number in ("one", "two", "three"):
            upstream = await stack.enter_async_context(ScriptedUpstream())
            upstream.answer(*answer(number))
            upstreams.append(upstream)
        yield upstreams


async def shares(running, calls):
    """How often each model answered."""
    found = Counter()
    for number in range(calls):
        raw = await running.sdk.chat.completions.with_raw_response.create(
            model="smart",
            messages=[{"role": "user", "content": f"Hi {number}"}],
        )
        found[raw.headers["x-tidegate-model"]] += 1
    return found


async def test_the_first_one_listed_is_asked_and_told_its_own_name(setup, three):
    models = [{"name": "smart", "targets": ["a/one", "b/two"]}]
    async with setup.running(models, {"a/one": three[0].url, "b/two": three[1].url}) as running:
        done = await running.ask()
    assert done.choices[0].message.content == "one"
    assert three[0].requests[0].json()["model"] == "one"
    assert three[1].requests == []


async def test_weights_share_the_calls(setup, three):
    targets = [{"model": "a/one", "weight": 3}, "b/two"]
    models = [{"name": "smart", "strategy": "weighted", "targets": targets}]
    async with setup.running(models, {"a/one": three[0].url, "b/two": three[1].url}) as running:
        found = await shares(running, 120)
    assert found["a/one"] > found["b/two"] > 0


async def test_the_quicker_one_is_asked_more_often(setup, three):
    three[0].answer(scripts.sleep(0.08), *answer("slow"))
    models = [{"name": "smart", "strategy": "latency", "targets": ["a/one", "b/two"]}]
    async with setup.running(models, {"a/one": three[0].url, "b/two": three[1].url}) as running:
        found = await shares(running, 40)
    assert found["b/two"] > 30
    assert found["a/one"] >= 1, "it was measured"


async def test_the_cheaper_one_is_asked_by_the_price_list_and_by_ones_own(setup, three):
    known = {"openai/gpt-4o": three[0].url, "openai/gpt-4o-mini": three[1].url}
    models = [{"name": "smart", "strategy": "cost", "targets": list(known)}]
    async with setup.running(models, known) as running:
        assert (await shares(running, 3)) == {"openai/gpt-4o-mini": 3}
    own = {"model": "openai/gpt-4o", "price": {"input": 0.01, "output": 0.01}}
    models = [{"name": "smart", "strategy": "cost", "targets": ["openai/gpt-4o-mini", own]}]
    async with setup.running(models, known) as running:
        assert (await shares(running, 3)) == {"openai/gpt-4o": 3}


async def test_calls_that_begin_alike_go_to_one_model(setup, three):
    known = dict(zip(("a/one", "b/two", "c/three"), (u.url for u in three), strict=True))
    models = [{"name": "smart", "strategy": "sticky", "targets": list(known)}]
    async with setup.running(models, known) as running:
        for system in ("be brief", "be kind", "be quick", "be exact", "be calm", "be bold"):
            found = set()
            for turn in range(3):
                raw = await running.sdk.chat.completions.with_raw_response.create(
                    model="smart",
                    messages=[
                        {"role": "system", "content": system},
                        {"role": "user", "content": f"turn {turn}"},
                    ],
                )
                found.add(raw.headers["x-tidegate-model"])
            assert len(found) == 1
        assert len(await shares(running, 30)) == 3, "other conversations go elsewhere"


async def test_the_least_busy_one_is_asked(setup, three):
    three[0].answer(scripts.sleep(0.5), *answer("one"))
    three[1].answer(scripts.sleep(0.5), *answer("two"))
    models = [{"name": "smart", "strategy": "least-busy", "targets": ["a/one", "b/two"]}]
    async with setup.running(models, {"a/one": three[0].url, "b/two": three[1].url}) as running:
        await asyncio.gather(*(running.ask() for _ in range(8)))
    assert len(three[0].requests) == len(three[1].requests) == 4


async def test_a_call_with_tools_or_images_goes_to_a_model_that_has_them(setup, three):
    known = {
        "a/one": {"url": three[0].url, "capabilities": ["stream"]},
        "b/two": {"url": three[1].url, "capabilities": ["tools", "images"]},
    }
    models = [{"name": "smart", "targets": list(known)}]
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    schema = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}
    async with setup.running(models, known) as running:
        assert (await running.ask()).choices[0].message.content == "one"
        assert (await running.ask(tools=[tool])).choices[0].message.content == "two"
        assert (await running.ask([image])).choices[0].message.content == "two"
        with pytest.raises(openai.BadRequestError, match="json-schema"):
            await running.ask(response_format=schema)


async def test_a_long_prompt_goes_to_the_model_with_room_for_it(setup, three):
    known = {
        "a/one": {"url": three[0].url, "context": 1000},
        "b/two": {"url": three[1].url, "context": 100_000},
    }
    models = [{"name": "smart", "targets": list(known)}]
    async with setup.running(models, known) as running:
        assert (await running.ask("short")).choices[0].message.content == "one"
        assert (await running.ask("word " * 2000)).choices[0].message.content == "two"


async def test_a_canary_gets_its_part_and_falls_back_to_the_targets(setup, three):
    canary = {"model": "b/two", "percent": 30}
    models = [{"name": "smart", "targets": ["a/one"], "canary": canary}]
    async with setup.running(models, {"a/one": three[0].url, "b/two": three[1].url}) as running:
        found = await shares(running, 60)
        assert found["a/one"] > found["b/two"] > 0
        three[1].answer(*scripts.json({"error": {"message": "down"}}, 500))
        assert set(await shares(running, 30)) == {"a/one"}


async def test_a_mirror_gets_a_copy_and_its_answer_is_dropped(setup, three):
    three[1].answer(scripts.sleep(0.2), *scripts.json({"error": {"message": "no"}}, 500))
    mirror = {"model": "b/two", "percent": 100}
    models = [{"name": "smart", "targets": ["a/one"], "mirror": mirror}]
    async with setup.running(models, {"a/one": three[0].url, "b/two": three[1].url}) as running:
        done = await running.ask("Is this copied?")
        assert done.choices[0].message.content == "one"
        await three[1].until(lambda: three[1].open == 1 and len(three[1].requests) == 1)
        copied = three[1].requests[0]
        assert copied.json()["messages"][0]["content"] == "Is this copied?"
        assert copied.json()["model"] == "two"
        for _ in range(100):
            if running.counters().get("mirrors_failed_total"):
                break
            await asyncio.sleep(0.05)
        assert running.counters()["mirrors_sent_total"] == 1
        assert running.counters()["mirrors_failed_total"] == 1


async def test_other_models_and_other_paths_are_left_to_others(setup, three):
    models = [{"name": "smart", "targets": ["a/one"]}]
    async with setup.running(models, {"a/one": three[0].url}) as running:
        with pytest.raises(openai.NotFoundError):
            await running.ask(model="another")
        with pytest.raises(openai.NotFoundError):
            await running.sdk.models.list()


async def test_where_no_provider_has_the_model_the_caller_is_told(setup, three):
    models = [{"name": "smart", "targets": ["x/none"]}]
    async with setup.running(models, {"a/one": three[0].url}) as running:
        with pytest.raises(openai.InternalServerError) as caught:
            await running.ask()
    assert caught.value.status_code == 503


class Teams:
    """Models of two teams, under one name."""

    def __init__(self, team: str) -> None:
        self.team = team

    def find(self, name: str, kind: str = "chat") -> Model | None:
        return Model("a", "one", "openai-chat", team=self.team)


@pytest.mark.parametrize("strategy", ["priority", "sticky", "latency", "least-busy"])
def test_what_a_teams_own_model_does_changes_nothing_for_others(strategy):
    option = VirtualModel.model_validate(
        {"name": "smart", "strategy": strategy, "targets": ["a/one", "b/two"]}
    )
    route = Route(option)
    for _ in range(FAILURES):
        (red, _) = known(route.targets, Teams("red"))
        red.target.failed(1000.0)
        red.target.active += 1
    seen = {team: known(route.targets, Teams(team))[0].target for team in ("red", "blue", "")}
    assert [target.is_out(1001.0) for target in seen.values()] == [True, False, False]
    assert [target.active for target in seen.values()] == [FAILURES, 0, 0]
    assert len(route.order.sort(known(route.targets, Teams("red")), *asked())) == 2


def asked():
    """An exchange, its call, and what it demands."""
    body = {"model": "smart", "messages": [{"role": "user", "content": "Hi"}]}
    exchange = make_exchange("POST", "http://api.test/v1/chat/completions", body=body)
    call = ai_call(exchange)
    assert call is not None
    return exchange, call, demand_of(call, 100)
