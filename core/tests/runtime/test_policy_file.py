"""Policies of one file: found, loaded, refused with the line, replaced with their state."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tidegate.runtime import policy_file, settings
from tidegate.runtime.entry import AddonEntry
from tidegate.runtime.lifecycle import Generation, Host, Runtime
from tidegate.runtime.problems import ConfigError, Problem
from tidegate.runtime.registry import digest

HEADER = "from tidegate.api import AddonConfig, Plugin, hook\n"
COUNTER = (
    HEADER
    + """
class Config(AddonConfig):
    by: int = 1

class Count(Plugin[Config]):
    Config = Config
    seen = 0

    @hook
    def startup(self, previous):
        self.seen = previous.seen if previous is not None else 0

    @hook
    def transform_request(self, exchange):
        self.seen += self.config.by
"""
)
CONFIG = '[[addon]]\nfile = "policies/count_calls.py"\n'


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """`policies/count_calls.py` beside a configuration."""
    file = tmp_path / "policies" / "count_calls.py"
    file.parent.mkdir()
    file.write_text(COUNTER)
    return file


def parse(policy: Path, config: str = CONFIG, deployment: str = "") -> settings.Settings:
    base = policy.parents[1]
    return settings.parse(config, file="addons.toml", base=base, deployment=deployment)


def entry(policy: Path, config: str = CONFIG) -> AddonEntry:
    return parse(policy, config).addons[0]


def load(policy: Path, config: str = CONFIG) -> Generation:
    generation, _ = Runtime(Host(policy.parent / "state")).load(parse(policy, config))
    return generation


def refused(policy: Path, text: str, config: str = CONFIG) -> Problem:
    """The one problem of a policy with this text."""
    policy.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(policy, config)
    (problem,) = caught.value.problems
    return problem


def test_an_addon_of_a_file_is_named_after_it(policy: Path) -> None:
    found = entry(policy)
    assert (found.name, found.use, found.file) == ("count-calls", "count-calls", str(policy))
    assert entry(policy, CONFIG + 'name = "mine"').name == "mine"


def test_its_other_keys_are_the_plugins_options(policy: Path) -> None:
    generation = load(policy, CONFIG + "by = 3\n")
    assert generation.addons[0].instance is not None
    assert generation.addons[0].instance.config.by == 3
    problem = refused(policy, COUNTER, CONFIG + "bye = 3\n")
    assert str(problem) == (
        'addons.toml:3: addon "count-calls": unknown key `bye` (did you mean "by"?) [unknown_key]'
    )


def test_beside_use_a_file_is_an_option_of_the_plugin(policy: Path) -> None:
    found = entry(policy, '[[addon]]\nuse = "auth-key"\nfile = "keys.json"\n')
    assert found.file is None
    assert found.options == {"file": "keys.json"}


def test_an_overlay_addresses_it_by_that_name(policy: Path) -> None:
    text = CONFIG + '[deployments.staging.addons.count-calls]\nmode = "shadow"\n'
    assert parse(policy, text, "staging").addons[0].mode == "shadow"


def test_a_syntax_error_is_told_at_its_line(policy: Path) -> None:
    problem = refused(policy, HEADER + "\nclass Broken(Plugin)\n    pass\n")
    assert str(problem) == (f"{policy}:3: `class Broken(Plugin)`: expected ':' [policy_syntax]")


def test_what_fails_while_the_file_runs_is_told_at_the_statement(policy: Path) -> None:
    text = HEADER + "def limits():\n    return {}['a']\n\nLIMIT = limits()\n"
    problem = refused(policy, text)
    assert str(problem) == f"{policy}:3: `return {{}}['a']`: KeyError: 'a' [policy_failed]"


@pytest.mark.parametrize(
    ("source", "line", "code"),
    [
        (
            "class A(Plugin):\n    @hook\n    def authorise(self, exchange): ...\n",
            4,
            "hook_unknown",
        ),
        ("class A(Plugin):\n    def authorize(self, exchange): ...\n", 3, "hook_unmarked"),
        ("class A(Plugin):\n    x = 1\n    @hook\n    def log(self): ...\n", 5, "hook_signature"),
    ],
)
def test_a_hook_that_is_wrong_is_told_at_its_line(
    policy: Path, source: str, line: int, code: str
) -> None:
    problem = refused(policy, HEADER + source)
    assert (problem.file, problem.line, problem.code) == (str(policy), line, code)


def test_a_file_without_a_plugin_says_how_to_write_one(policy: Path) -> None:
    problem = refused(policy, HEADER + "x = 1\n")
    assert problem.code == "policy_invalid"
    assert "class X(Plugin)" in problem.hint


def test_of_several_plugins_one_is_chosen_by_name(policy: Path) -> None:
    two = COUNTER + "\nclass Second(Plugin):\n    pass\n"
    assert "Count, Second" in refused(policy, two).message
    generation = load(policy, CONFIG + 'plugin = "Second"\n')
    assert type(generation.addons[0].instance).__name__ == "Second"
    problem = refused(policy, two, CONFIG + 'plugin = "Secnd"\n')
    assert problem.hint == 'did you mean "Second"?'


def test_a_file_that_is_not_there_is_told_at_the_line_of_the_configuration(policy: Path) -> None:
    policy.unlink()
    with pytest.raises(ConfigError, match=r"addons.toml:2: .*No such file.*policy_unreadable"):
        parse(policy)


def test_one_that_is_off_is_not_even_read(policy: Path) -> None:
    policy.unlink()
    assert entry(policy, CONFIG + 'mode = "off"\n').code == ""
    assert entry(policy, CONFIG + 'if_env = "TIDEGATE_TEST_NOT_SET"\n').code == ""
    text = CONFIG + 'mode = "off"\n[[addon]]\nfile = "other.py"\n'
    base = policy.parents[1]
    assert policy_file.named(text, base, "", {}) == [base / "other.py"]


def test_its_neighbours_are_not_imported_and_the_path_is_left_alone(policy: Path) -> None:
    policy.with_name("neighbour.py").write_text("x = 1\n")
    before = list(sys.path)
    problem = refused(policy, HEADER + "import neighbour\n")
    assert problem.line == 2
    assert "a policy is one file" in problem.hint
    assert sys.path == before


def test_a_changed_text_is_another_configuration_with_another_class(policy: Path) -> None:
    first = entry(policy)
    policy.write_text(COUNTER + "\n# edited\n")
    second = entry(policy)
    assert digest(first) != digest(second)
    modules = [policy_file.load(str(policy), e.code) for e in (first, second, first)]
    assert modules[0] is modules[2]
    assert modules[0] is not modules[1]
    assert {m.__file__ for m in modules} == {str(policy)}


async def test_a_new_text_takes_over_from_the_old_instance(policy: Path) -> None:
    runtime = Runtime(Host(policy.parent / "state"))
    runtime.commit(await runtime.prepare(parse(policy)))
    old = runtime.current.addons[0].instance
    old.seen = 7  # type: ignore[union-attr]
    policy.write_text(COUNTER + "\n# edited\n")
    runtime.commit(await runtime.prepare(parse(policy)))
    new = runtime.current.addons[0].instance
    assert new.seen == 7  # type: ignore[union-attr]
    assert type(new) is not type(old)
    await runtime.close()


async def test_an_unchanged_text_keeps_the_instance(policy: Path) -> None:
    runtime = Runtime(Host(policy.parent / "state"))
    runtime.commit(await runtime.prepare(parse(policy)))
    old = runtime.current.addons[0].instance
    runtime.commit(await runtime.prepare(parse(policy, "[gateway]\nanonymous = true\n" + CONFIG)))
    assert runtime.current.addons[0].instance is old
    await runtime.close()


def test_a_dataclass_of_a_policy_finds_its_annotations(policy: Path) -> None:
    policy.write_text(
        "from __future__ import annotations\n" + HEADER + "from dataclasses import dataclass\n"
        "@dataclass\nclass Rule:\n    limit: int = 1\n"
        "class Config(AddonConfig):\n    names: tuple[str, ...] = ()\n"
        "class A(Plugin[Config]):\n    Config = Config\n"
    )
    assert load(policy, CONFIG + 'names = ["x"]\n').addons[0].instance is not None
