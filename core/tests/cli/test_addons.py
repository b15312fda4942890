"""`tidegate addons`, and policies of one file on the command line and in running nodes."""

import difflib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Node, eventually

Run = Callable[..., subprocess.CompletedProcess[str]]
Up = Callable[..., Node]

CONFIG = """\
# What runs here.
[gateway]
listen   = ["127.0.0.1:0"]   # a free one
workers  = 2

# The answer.
[[addon]]
use = "answer"      # ours
text = "one"

# Another one, resting.
[[addon]]
use = "answer"
name = "second"
mode = "off"  # until it is ready

# Here we test.
[deployments.staging]
gateway = { environment = "staging" }
addons = { second = { mode = "shadow" } } # carefully

# Here we earn money.
[deployments.production.gateway]
environment = "production"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "addons.toml"
    file.write_text(CONFIG)
    return file


def changed(config: Path) -> list[str]:
    """The lines that went (-) and came (+)."""
    lines = difflib.ndiff(CONFIG.splitlines(), config.read_text().splitlines())
    return [line for line in lines if line[0] in "-+"]


def test_list_shows_mode_rollout_and_scope(tidegate: Run, config: Path) -> None:
    more = (
        '\n[[addon]]\nuse = "answer"\nname = "third"\npercent = 12.5\nscope = { paths = ["/a"] }\n'
    )
    config.write_text(CONFIG.replace("\n# Here we test", more + "\n# Here we test"))
    done = tidegate("addons", "list")
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines()[1:]] == [
        ["answer", "answer", "enforce", "everything"],
        ["second", "answer", "off", "everything"],
        ["third", "answer", "enforce", "for", "12.5", "%,", "else", "shadow", "paths=/a"],
    ]
    rows = json.loads(tidegate("addons", "list", "--json", "--deployment", "staging").stdout)
    assert [(r["name"], r["mode"], r["percent"]) for r in rows] == [
        ("answer", "enforce", None),
        ("second", "shadow", None),
        ("third", "enforce", 12.5),
    ]


def test_check_shows_a_rollout(tidegate: Run, config: Path) -> None:
    config.write_text(CONFIG.replace('text = "one"', 'text = "one"\npercent = 25\nrest = "off"'))
    assert "answer (enforce for 25 %, else off)" in tidegate("check").stdout
    body = json.loads(tidegate("check", "--json").stdout)
    assert body["pipelines"][0]["phases"]["route"] == [
        {"addon": "answer", "mode": "enforce", "rollout": "enforce for 25 %, else off"}
    ]


def test_a_value_is_changed_where_it_stands(tidegate: Run, config: Path) -> None:
    config.chmod(0o640)
    done = tidegate("addons", "set", "second", "--mode", "enforce")
    assert done.returncode == 0, done.stderr
    assert changed(config) == [
        '- mode = "off"  # until it is ready',
        '+ mode = "enforce"  # until it is ready',
    ]
    assert '-mode = "off"  # until it is ready' in done.stdout
    assert config.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in config.parent.iterdir() if p.name.startswith(".addons")] == []


def test_a_new_key_comes_after_the_name_and_not_under_the_next_comment(
    tidegate: Run, config: Path
) -> None:
    done = tidegate("addons", "set", "answer", "--mode", "enforce", "--percent", "25")
    assert done.returncode == 0, done.stderr
    assert changed(config) == ['+ mode = "enforce"', "+ percent = 25"]
    assert 'use = "answer"      # ours\nmode = "enforce"\npercent = 25\ntext' in config.read_text()


@pytest.mark.parametrize(
    ("name", "deployment", "lines"),
    [
        (
            "second",
            "staging",
            [
                '- addons = { second = { mode = "shadow" } } # carefully',
                '+ addons = { second = { mode = "enforce" } } # carefully',
            ],
        ),
        (
            "answer",
            "staging",
            [
                '- addons = { second = { mode = "shadow" } } # carefully',
                '+ addons = { second = { mode = "shadow" }, answer = { mode = "enforce" } }'
                " # carefully",
            ],
        ),
        (
            "second",
            "production",
            ["+ ", "+ [deployments.production.addons.second]", '+ mode = "enforce"'],
        ),
    ],
)
def test_with_a_deployment_its_overlay_is_changed(
    tidegate: Run, config: Path, name: str, deployment: str, lines: list[str]
) -> None:
    done = tidegate("addons", "set", name, "--mode", "enforce", "--deployment", deployment)
    assert done.returncode == 0, done.stderr
    assert changed(config) == lines


def test_an_addon_that_only_the_overlay_has_is_changed_there(tidegate: Run, config: Path) -> None:
    config.write_text(CONFIG + '\n[[deployments.production.addon]]\nuse = "answer"\nname = "own"\n')
    done = tidegate("addons", "set", "own", "--mode", "off", "--deployment", "production")
    assert done.returncode == 0, done.stderr
    assert config.read_text().endswith('name = "own"\nmode = "off"\n')
    assert tidegate("addons", "set", "own", "--mode", "off").returncode == 2


def test_a_dry_run_shows_the_change_and_writes_nothing(tidegate: Run, config: Path) -> None:
    done = tidegate("addons", "set", "second", "--mode", "shadow", "--dry-run", "--json")
    body = json.loads(done.stdout)
    assert body["ok"]
    assert not body["written"]
    assert '+mode = "shadow"  # until it is ready' in body["diff"]
    assert config.read_text() == CONFIG


def test_what_is_so_already_is_left_alone(tidegate: Run, config: Path) -> None:
    done = tidegate("addons", "set", "second", "--mode", "off")
    assert done.returncode == 0
    assert "is so already" in done.stdout
    assert config.read_text() == CONFIG


def test_a_result_that_would_not_run_is_refused(tidegate: Run, config: Path) -> None:
    text = CONFIG.replace('name = "second"\n', 'name = "second"\ntxet = "x"\n')
    config.write_text(text)
    done = tidegate("addons", "set", "second", "--mode", "enforce")
    assert done.returncode == 2
    assert "unknown key `txet`" in done.stderr
    assert config.read_text() == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("secnd", "--mode", "off"), 'did you mean "second"?'),
        (("second", "--mode", "of"), "'of' is not one of"),
        (("second",), "say --mode, --percent or --rest"),
        (("second", "--percent", "101"), "less than or equal to 100"),
        (("second", "--mode", "off", "--deployment", "stagin"), 'did you mean "staging"?'),
    ],
)
def test_what_makes_no_sense_is_refused(
    tidegate: Run, config: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = tidegate("addons", "set", *arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert config.read_text() == CONFIG


def test_the_built_in_configuration_is_not_changed(tidegate: Run) -> None:
    done = tidegate("addons", "set", "auth-key", "--mode", "off")
    assert done.returncode == 2
    assert "config_built_in" in done.stderr


def test_line_ends_of_a_file_from_elsewhere_survive(tidegate: Run, config: Path) -> None:
    config.write_bytes(CONFIG.replace("\n", "\r\n").encode())
    done = tidegate("addons", "set", "second", "--mode", "shadow", "--deployment", "production")
    assert done.returncode == 0, done.stderr
    assert config.read_bytes().count(b"\n") == config.read_bytes().count(b"\r\n")


# -- policies of one file ---------------------------------------------------------------------

POLICY = """\
from mitmproxy import http
from tidegate.api import Plugin, hook

class Greet(Plugin):
    @hook
    def authorize(self, exchange):
        return http.Response.make(200, "hello from a policy")
"""


def test_check_shows_a_policy_before_what_routes_and_its_errors(
    tidegate: Run, config: Path, tmp_path: Path
) -> None:
    file = tmp_path / "greet_all.py"
    file.write_text(POLICY)
    config.write_text(config.read_text() + '[[addon]]\nuse = "demo-upstream"\n')
    body = json.loads(tidegate("check", "--policy", "greet_all.py", "--json").stdout)
    phases = body["pipelines"][0]["phases"]
    assert phases["authorize"] == [{"addon": "greet-all", "mode": "enforce"}]
    rows = json.loads(tidegate("addons", "list", "--json").stdout)
    assert [r["name"] for r in rows] == ["answer", "second", "demo-upstream"]
    file.write_text(POLICY.replace("exchange):", "exchange)"))
    done = tidegate("check", "--policy", "greet_all.py")
    assert done.returncode == 2
    assert f"{file}:6: `def authorize(self, exchange)`: expected ':'" in done.stderr


def test_plugins_lists_policies_with_their_hooks(
    tidegate: Run, config: Path, tmp_path: Path
) -> None:
    (tmp_path / "greet.py").write_text(POLICY)
    config.write_text(config.read_text() + '[[addon]]\nfile = "greet.py"\n')
    rows = json.loads(tidegate("plugins", "--json", "--filter", "greet").stdout)
    assert [(r["name"], r["hooks"], r["addons"]) for r in rows] == [
        ("greet", ["authorize"], {"greet": "enforce"})
    ]
    assert rows[0]["origin"] == f"file {tmp_path / 'greet.py'}"


def test_a_policy_that_is_saved_takes_effect_and_one_that_is_broken_does_not(
    up: Up, tmp_path: Path
) -> None:
    file = tmp_path / "greet.py"
    file.write_text(POLICY)
    node = up("--policy", str(file), config=CONFIG.partition("# Another one")[0])
    assert node.get().text == "hello from a policy"
    file.write_text(POLICY.replace("hello from a policy", "hello again"))
    assert node.event("reload")["ok"]
    assert {node.get().text for _ in range(8)} == {"hello again"}
    file.write_text(POLICY.replace("http.Response", "htp.Response("))
    refused = node.event("reload")
    assert not refused["ok"]
    (problem,) = refused["problems"]
    assert (problem["file"], problem["line"], problem["code"]) == (str(file), 7, "policy_syntax")
    assert node.status().json()["last_reload"]["problems"] == [problem]
    assert f"{file}:7: " in node.log()
    assert {node.get().text for _ in range(8)} == {"hello again"}
    file.write_text(POLICY)
    assert node.event("reload")["ok"]
    assert {node.get().text for _ in range(8)} == {"hello from a policy"}


def test_a_worker_that_starts_while_a_policy_is_broken_serves_the_old_version(
    up: Up, tmp_path: Path
) -> None:
    file = tmp_path / "greet.py"
    file.write_text(POLICY.replace("return", "if exchange.path != '/die': return"))
    more = '\n[[addon]]\nfile = "greet.py"\n'
    node = up(config=CONFIG.partition("# Another one")[0].replace("workers  = 2", "") + more)
    file.write_text("nonsense(")
    assert not node.event("reload")["ok"]
    before = node.pids()
    with pytest.raises(Exception, match=r"disconnected|reset"):
        node.get("/die")
    eventually(lambda: len(node.pids()) == len(before) and node.pids() != before)
    assert node.get().text == "hello from a policy"


def test_a_policy_that_was_missing_counts_once_it_is_there(up: Up, tmp_path: Path) -> None:
    base = CONFIG.partition("# Another one")[0]
    node = up(config=base)
    (tmp_path / "addons.toml").write_text(base + '[[addon]]\nfile = "late.py"\n')
    assert not node.event("reload")["ok"]
    (tmp_path / "late.py").write_text(POLICY)
    assert node.event("reload")["ok"]
    assert node.get().text == "hello from a policy"
