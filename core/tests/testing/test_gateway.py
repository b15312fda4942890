"""A running gateway: the real command, a real upstream, a plugin installed for the test."""

from __future__ import annotations

import asyncio
import os

import httpx
import pytest

from tidegate.testing import GatewayError, ReloadRefused, install_plugin
from tidegate.testing.gateway import with_carrier

ROUTE = """
import os

from tidegate.api import *

class Route(Plugin):
    @hook
    def route(self, exchange):
        return upstream_from_url(os.environ["TG_TEST_UPSTREAM"])
"""
STAMP = """
from tidegate.api import *

class StampConfig(AddonConfig):
    value: str

class Stamp(Plugin[StampConfig]):
    Config = StampConfig

    @hook
    def transform_response(self, exchange):
        exchange.response.headers["x-stamp"] = self.config.value
        self.context.counters.add("stamps_total")
"""


def config(value: str) -> str:
    stamp = f'[[addon]]\nuse = "tgtest-stamp"\nvalue = "{value}"\n'
    return f'[gateway]\nworkers = 1\n\n{stamp}\n[[addon]]\nuse = "tgtest-route"\n'


@pytest.fixture
def env(tmp_path, upstream) -> dict[str, str]:
    install_plugin(tmp_path / "plugins", "tgtest-stamp", STAMP)
    found = install_plugin(tmp_path / "plugins", "tgtest-route", ROUTE)
    return {**found, "TG_TEST_UPSTREAM": upstream.url}


@pytest.mark.parametrize("carrier", ["lane", "engine"])
async def test_it_serves_reloads_and_stops(gateway, env, carrier):
    running = await gateway(config("one"), carrier=carrier, env=env)
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{running.url}/x")
        assert (answer.status_code, answer.text, answer.headers["x-stamp"]) == (200, "ok", "one")
        status = await running.reload(with_carrier(config("two"), carrier))
        assert status["last_reload"]["ok"]
        answer = await client.get(f"{running.url}/x")
        assert answer.headers["x-stamp"] == "two"
        with pytest.raises(ReloadRefused, match="unknown key"):
            await running.reload(with_carrier(config("x").replace("value", "valeu"), carrier))
        answer = await client.get(f"{running.url}/x")
        assert answer.headers["x-stamp"] == "two"
        assert (await running.counters("tgtest-stamp"))["stamps_total"] >= 1
    assert await running.stop() == 0


async def test_a_start_that_fails_says_why_and_leaves_no_process(gateway, env):
    with pytest.raises(GatewayError, match="no plugin"):
        await gateway('[[addon]]\nuse = "tgtest-none"\n', env=env)


async def test_its_processes_are_gone_at_the_end(gateway, env):
    running = await gateway(config("one"), env=env)
    group = running.pid
    await running.kill()
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            break
        await asyncio.sleep(0.05)
    else:
        pytest.fail("a process of the group is still there")


@pytest.mark.parametrize("text", ["", "[gateway]\nworkers = 1\n", "# note\n[gateway]\n[[addon]]\n"])
def test_the_carrier_is_put_into_a_configuration(text):
    import tomllib

    assert tomllib.loads(with_carrier(text, "lane"))["gateway"]["carrier"] == "lane"
