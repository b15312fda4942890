"""Finding plugins and refusing what can't be one."""

from __future__ import annotations

import sys

import pytest

from tidegate.api import Plugin, hook
from tidegate.runtime import settings
from tidegate.runtime.lifecycle import Host, Runtime
from tidegate.runtime.problems import ConfigError
from tidegate.runtime.registry import available, check_class
from tidegate.testing import install_plugin


class Unmarked(Plugin):
    def authenticate(self, exchange):
        return None


class Misspelt(Plugin):
    @hook
    def authentikate(self, exchange):
        return None


class NoExchange(Plugin):
    @hook
    def authorize(self):
        return None


class OtherName(Plugin):
    @hook
    def authorize(self, flow):
        return None


class AsyncEvent(Plugin):
    @hook
    async def transform_event(self, exchange, event):
        return None


class Fine(Plugin):
    @hook
    async def authorize(self, exchange):
        return None

    def helper(self, anything):
        return anything


@pytest.mark.parametrize(
    ("cls", "code", "text"),
    [
        (Unmarked, "hook_unmarked", "Unmarked.authenticate"),
        (Misspelt, "hook_unknown", "Misspelt.authentikate"),
        (NoExchange, "hook_signature", "(self, exchange)"),
        (OtherName, "hook_signature", "(self, exchange)"),
        (AsyncEvent, "hook_signature", "plain def"),
        (object, "plugin_invalid", "not a Plugin subclass"),
        ("text", "plugin_invalid", "not a Plugin subclass"),
    ],
)
def test_a_class_that_is_wrong_is_refused(cls, code, text):
    (problem,) = check_class(cls, "test")
    assert problem.code == code
    assert text in problem.message
    assert 'plugin "test"' in problem.message


def test_a_misspelt_hook_is_told_with_the_nearest():
    (problem,) = check_class(Misspelt, "test")
    assert problem.hint == 'did you mean "authenticate"?'


def test_a_hook_that_a_base_class_has_unmarked_is_refused_too():
    class Child(Unmarked):
        pass

    assert [p.code for p in check_class(Child, "test")] == ["hook_unmarked"]


def test_a_class_that_is_right_passes():
    assert check_class(Fine, "test") == []


# -- installed plugins ------------------------------------------------------------------------

GOOD = """
from tidegate.api import *

class Good(Plugin):
    @hook
    def log(self, exchange): ...
"""


async def loaded(text: str, tmp_path) -> Runtime:
    runtime = Runtime(Host(tmp_path / "state"))
    runtime.commit(await runtime.prepare(settings.parse(text, file="addons.toml")))
    await runtime.close()
    return runtime


@pytest.fixture
def installed(tmp_path, monkeypatch):
    folder = tmp_path / "plugins"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def install(name: str, source: str) -> None:
        install_plugin(folder, name, source)

    yield install
    for module in [m for m in sys.modules if m.startswith("tgtest_")]:
        del sys.modules[module]


async def test_what_is_not_on_is_not_imported(installed, tmp_path):
    installed("tgtest-on", GOOD)
    installed("tgtest-off", GOOD)
    installed("tgtest-unnamed", GOOD)
    assert {"tgtest-on", "tgtest-off", "tgtest-unnamed"} <= set(available())
    text = '[[addon]]\nuse = "tgtest-on"\n[[addon]]\nuse = "tgtest-off"\nmode = "off"\n'
    await loaded(text, tmp_path)
    assert "tgtest_on_plugin" in sys.modules
    assert "tgtest_off_plugin" not in sys.modules
    assert "tgtest_unnamed_plugin" not in sys.modules


async def test_an_unknown_plugin_is_told_with_line_and_nearest(installed, tmp_path):
    installed("tgtest-on", GOOD)
    with pytest.raises(ConfigError) as refused:
        await loaded('\n[[addon]]\nname = "x"\nuse = "tgtest-onn"\n', tmp_path)
    (problem,) = refused.value.problems
    assert (problem.code, problem.line) == ("unknown_plugin", 4)
    assert problem.hint == 'did you mean "tgtest-on"?'


@pytest.mark.parametrize("source", ["import no_such_module\n\nclass A: ...\n",
                                    "raise SystemExit(3)\n\nclass A: ...\n"])  # fmt: skip
async def test_a_plugin_that_can_not_be_imported_is_a_problem(source, installed, tmp_path):
    installed("tgtest-broken", source)
    with pytest.raises(ConfigError) as refused:
        await loaded('[[addon]]\nuse = "tgtest-broken"\n', tmp_path)
    (problem,) = refused.value.problems
    assert (problem.code, problem.line) == ("plugin_import_failed", 2)


async def test_a_misspelt_hook_refuses_to_load_with_its_own_line(installed, tmp_path):
    installed("tgtest-misspelt", GOOD.replace("def log(", "def logg("))
    with pytest.raises(ConfigError) as refused:
        await loaded('# why\n\n[[addon]]\nuse = "tgtest-misspelt"\n', tmp_path)
    (problem,) = refused.value.problems
    assert (problem.code, problem.line) == ("hook_unknown", 6)
    assert problem.file.startswith(str(tmp_path / "plugins"))


async def test_an_unknown_option_is_told_with_its_line(installed, tmp_path):
    installed("tgtest-on", GOOD)
    with pytest.raises(ConfigError) as refused:
        await loaded('[[addon]]\nuse = "tgtest-on"\n\ncolour = "red"\n', tmp_path)
    (problem,) = refused.value.problems
    assert (problem.code, problem.line) == ("unknown_key", 4)
    assert 'addon "tgtest-on"' in problem.message
