"""The addon, without the model: readiness, routing, what it asks the node to run."""

import asyncio
import sys

import pytest
from tidegate_local_model import LocalModel, LocalModelConfig
from tidegate_local_model.install import MODEL
from tidegate_local_model.plugin import SITE, free_port

from tidegate.api import AddonContext, Denial, Node
from tidegate.testing import make_exchange
from tidegate.testing.contracts import PluginContract, RouteContract


class Health:
    """Answers like llama.cpp's server while it loads, and when it has."""

    def __init__(self) -> None:
        self.status = b"503 Service Unavailable"
        self.port = free_port()

    async def __aenter__(self) -> "Health":
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _answer(self, reader, writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % self.status)
        writer.close()


def make(tmp_path, shared=None, **options):
    config = LocalModelConfig.model_validate(options)
    context = AddonContext("local-model", tmp_path / "state", base=tmp_path, shared=shared or {})
    return LocalModel(config, context)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder that looks like the installed packages."""
    folder = tmp_path / "given"
    (folder / MODEL).parent.mkdir(parents=True)
    (folder / MODEL).touch()
    monkeypatch.setenv(SITE, str(folder))
    return folder


def test_bootstrap_asks_for_one_server_on_a_free_port_with_a_key_of_its_own(tmp_path, site):
    node = Node(tmp_path, tmp_path, "development")
    make(tmp_path, threads=3).bootstrap(node)
    ((name, argv, env),) = node.processes
    assert name == "server"
    assert argv[0] == sys.executable
    assert argv[argv.index("--port") + 1] == str(node.shared["port"])
    assert argv[argv.index("--threads") + 1] == "3"
    assert argv[argv.index("--model") + 1] == str(site / MODEL)
    assert env["PYTHONPATH"] == str(site)
    key = node.shared["key"]
    assert key in env.values()
    assert not [argument for argument in argv if key in argument]
    worker = make(tmp_path, node.shared)
    assert worker.upstream.port == node.shared["port"]
    assert worker.upstream.headers == ((b"authorization", f"Bearer {key}".encode()),)


def test_a_model_of_ones_own_is_used_with_its_own_template(tmp_path, site):
    node = Node(tmp_path, tmp_path, "development")
    (tmp_path / "own.gguf").touch()
    make(tmp_path, model="own.gguf").bootstrap(node)
    argv = node.processes[0][1]
    assert argv[argv.index("--model") + 1] == str(tmp_path / "own.gguf")
    assert "--template" not in argv


def test_a_model_that_is_not_there_is_told(tmp_path, site):
    with pytest.raises(FileNotFoundError, match=r"no\.gguf"):
        make(tmp_path, model="no.gguf").bootstrap(Node(tmp_path, tmp_path, "development"))


async def test_a_worker_waits_for_the_model_and_then_routes(tmp_path):
    async with Health() as health:
        addon = make(tmp_path, {"port": health.port, "key": "k"})
        starting = asyncio.create_task(addon.startup(None))
        await asyncio.sleep(0.1)
        assert not starting.done()
        health.status = b"200 OK"
        async with asyncio.timeout(10):
            await starting
        assert addon.route(make_exchange("GET", "http://x/v1/models")) is addon.upstream
        assert addon.route(make_exchange("GET", "http://x/other")) is None
        await addon.shutdown()


async def test_while_the_model_loads_callers_are_told_to_come_again(tmp_path, caplog):
    async with Health() as health:
        addon = make(tmp_path, {"port": health.port}, wait=0)
        await addon.startup(None)
        denial = addon.route(make_exchange("GET", "http://x/v1/models"))
        assert isinstance(denial, Denial)
        assert (denial.status, denial.code, denial.retry_after) == (503, "model_loading", 2.0)
        assert "not ready yet" in caplog.text
        health.status = b"200 OK"
        async with asyncio.timeout(10):
            await addon._waiting
        assert addon.route(make_exchange("GET", "http://x/v1/models")) is addon.upstream
        await addon.shutdown()


async def test_a_server_that_never_comes_does_not_hold_the_worker_up(tmp_path):
    addon = make(tmp_path, {"port": free_port()}, wait="200ms")
    async with asyncio.timeout(10):
        await addon.startup(None)
        await addon.shutdown()
    assert not addon.ready


async def test_without_a_server_of_its_own_it_probes_no_port_and_says_so(tmp_path, caplog):
    addon = make(tmp_path)
    async with asyncio.timeout(5):
        await addon.startup(None)
    assert addon.route(make_exchange("GET", "http://x/v1/models")).code == "model_loading"
    assert "not ready" in caplog.text
    await addon.shutdown()


class TestPlugin(PluginContract):
    name = "local-model"


class TestRoute(RouteContract):
    name = "local-model"

    @pytest.fixture(autouse=True)
    async def _health(self):
        async with Health() as health:
            health.status = b"200 OK"
            self.port = health.port
            yield

    def options(self):
        return {"port": self.port}

    def good_exchange(self):
        return make_exchange("GET", "http://api.test/v1/models")

    def unrouted_exchange(self):
        return make_exchange("GET", "http://api.test/elsewhere")
