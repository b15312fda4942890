"""Loading, reloading, rolling back, shutting down; the log queue."""

from __future__ import annotations

import asyncio

import pytest

from tidegate.api import AddonConfig, Plugin, hook
from tidegate.runtime.problems import ConfigError
from tidegate.testing import Harness, Use, make_exchange
from tidegate.testing.faults import crash_plugin, hang_plugin, pass_plugin, plugin_with


class LifeConfig(AddonConfig):
    label: str = ""
    fail: str = ""


class Life(Plugin[LifeConfig]):
    Config = LifeConfig

    def __init__(self, config, context):
        super().__init__(config, context)
        if config.fail == "init":
            raise ValueError("no such thing")
        self.told: list[object] = []

    @hook
    async def startup(self, previous):
        self.told.append(("startup", previous))
        if self.config.fail == "startup":
            raise OSError("port taken")
        if self.config.fail == "exit":
            raise SystemExit(1)

    @hook
    def shutdown(self):
        self.told.append("shutdown")

    @hook
    def transform_response(self, exchange):
        exchange.response.headers["x-label"] = self.config.label


def life(label: str = "", fail: str = "", name: str = "life", **more) -> Use:
    return Use(Life, {"label": label, "fail": fail}, name=name, **more)


async def test_an_addon_with_equal_options_keeps_its_instance_over_a_reload():
    async with Harness(life("a"), life("b", name="other")) as harness:
        kept, changed = harness.plugin("life"), harness.plugin("other")
        await harness.reload(life("a"), life("c", name="other"))
        assert harness.plugin("life") is kept
        assert kept.told == [("startup", None)]
        assert harness.plugin("other") is not changed
        assert harness.plugin("other").told == [("startup", changed)]
        await asyncio.sleep(0)
        assert changed.told[-1] == "shutdown"
    assert kept.told == [("startup", None), "shutdown"]


async def test_an_addon_that_is_taken_out_is_shut_down():
    async with Harness(life()) as harness:
        plugin = harness.plugin()
        await harness.reload(pass_plugin("authorize"))
        await asyncio.sleep(0)
        assert plugin.told[-1] == "shutdown"


async def test_a_mode_or_scope_change_keeps_the_instance():
    async with Harness(life()) as harness:
        plugin = harness.plugin()
        await harness.reload(life(mode="shadow", scope={"paths": ["/x"]}))
        assert harness.plugin() is plugin
        assert plugin.told == [("startup", None)]


async def test_an_exchange_keeps_the_pipeline_that_it_started_with():
    async with Harness(life("old")) as harness:
        exchange = make_exchange()
        pipeline = harness.runtime.begin("gateway", "api.test", "/", "GET")
        old = harness.plugin()
        await harness.reload(life("new"))
        await asyncio.sleep(0.01)
        assert "shutdown" not in old.told, "an exchange still holds it"
        from tidegate.testing import make_answer

        exchange.response = make_answer()
        await pipeline.response(exchange)
        assert exchange.response.headers["x-label"] == "old"
        pipeline.finish(exchange)
        await asyncio.sleep(0.01)
        assert old.told.count("shutdown") == 1
        fresh = await harness.send(make_exchange())
        assert fresh.response.headers["x-label"] == "new"


async def test_an_exchange_in_the_log_queue_still_holds_its_addons():
    release = asyncio.Event()

    async def act(*_):
        await release.wait()

    logs = Use(plugin_with("log", act, is_async=True), name="logs")
    async with Harness(life(), logs) as harness:
        old = harness.plugin("life")
        await harness.start(make_exchange())
        await harness.reload(life("new"))
        await asyncio.sleep(0.01)
        assert "shutdown" not in old.told
        release.set()
        await harness.runtime.flush()
        await asyncio.sleep(0.01)
        assert old.told[-1] == "shutdown"


@pytest.mark.parametrize("fail", ["init", "startup", "exit"])
async def test_a_reload_that_fails_half_way_leaves_the_old_one_serving(fail):
    async with Harness(life("old")) as harness:
        old = harness.plugin()
        generation = harness.runtime.current
        fresh = life("good", name="fresh")
        with pytest.raises(ConfigError) as refused:
            await harness.reload(life("changed"), fresh, life(fail=fail, name="bad"))
        assert 'addon "bad"' in str(refused.value)
        assert harness.runtime.current is generation
        assert old.told == [("startup", None)]
        exchange = await harness.send(make_exchange())
        assert exchange.response.headers["x-label"] == "old"


async def test_what_had_started_before_the_failure_is_shut_down_again(monkeypatch):
    made: list[Life] = []
    original = Life.__init__

    def remember(self, config, context):
        made.append(self)
        original(self, config, context)

    monkeypatch.setattr(Life, "__init__", remember)
    async with Harness(pass_plugin("authorize")) as harness:
        with pytest.raises(ConfigError):
            await harness.reload(life(name="one"), life(name="two", fail="startup"))
    assert [plugin.told[-1] for plugin in made] == ["shutdown", "shutdown"]


async def test_every_problem_of_a_reload_is_told_at_once():
    async with Harness(life()) as harness:
        with pytest.raises(ConfigError) as refused:
            await harness.reload(
                life(fail="init", name="one"), Use(Life, {"labl": "x"}, name="two")
            )
        codes = [p.code for p in refused.value.problems]
        assert codes == ["plugin_invalid", "unknown_key"]
        assert refused.value.problems[1].hint == 'did you mean "label"?'


async def test_a_startup_that_hangs_is_refused(monkeypatch):
    monkeypatch.setattr("tidegate.runtime.lifecycle.STARTUP", 0.05)
    with pytest.raises(ConfigError, match="TimeoutError"):
        async with Harness(hang_plugin("startup")):
            pass


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, asyncio.CancelledError])
async def test_a_shutdown_that_raises_keeps_no_one_from_stopping(error, caplog):
    crash = Use(crash_plugin("shutdown", error), name="crash")
    async with Harness(crash, life()) as harness:
        other = harness.plugin("life")
    assert other.told[-1] == "shutdown"
    assert "crash failed in shutdown" in caplog.text


async def test_an_addon_that_is_off_is_not_made():
    async with Harness(life(fail="init", mode="off")) as harness:
        assert harness.plugin("life") is None


# -- the log queue ----------------------------------------------------------------------------


async def test_the_log_queue_is_bounded_and_what_it_drops_is_counted():
    logged = []
    plugin = plugin_with("log", lambda _, e: logged.append(e.id))
    async with Harness(plugin, gateway={"limits": {"log_queue": 3}}) as harness:
        for _ in range(10):
            exchange = make_exchange()
            pipeline = harness.runtime.begin("gateway", "api.test", "/", "GET")
            pipeline.finish(exchange)
        await harness.runtime.flush()
        assert len(logged) == 3
        assert harness.runtime.counters.values["log_dropped_total"] == 7
        assert harness.runtime.active == 0


async def test_a_slow_log_hook_does_not_hold_back_answers():
    release = asyncio.Event()

    async def act(*_):
        await release.wait()

    async with Harness(plugin_with("log", act, is_async=True)) as harness:
        for _ in range(5):
            assert (await harness.start(make_exchange())).outcome == "answered"
        release.set()


async def test_a_log_hook_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr("tidegate.runtime.logqueue.BOUND", 0.05)
    async with Harness(hang_plugin("log")) as harness:
        await harness.send(make_exchange())
        assert harness.counters()["hook_timeouts_total"] == 1


async def test_what_is_queued_is_logged_before_the_shutdown():
    order = []

    class Logs(Plugin):
        @hook
        async def log(self, exchange):
            await asyncio.sleep(0)
            order.append("log")

        @hook
        def shutdown(self):
            order.append("shutdown")

    async with Harness(Logs) as harness:
        for _ in range(200):
            await harness.start(make_exchange())
    assert order == ["log"] * 200 + ["shutdown"]
