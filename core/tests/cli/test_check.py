"""`tidegate check`, `plugins`, `version`, and the verbs of addons."""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from .conftest import CONFIG

Run = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parents[3]
SCOPED = """
[[addon]]
use = "answer"
name = "quiet"
mode = "shadow"
scope = { paths = ["/v1/*"], methods = ["POST"] }

[[addon]]
use = "answer"
name = "resting"
mode = "off"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "addons.toml"
    file.write_text(CONFIG.format(workers=1, text="x"))
    return file


def test_a_right_file_is_shown_as_pipelines(tidegate: Run, config: Path) -> None:
    config.write_text(config.read_text() + SCOPED)
    done = tidegate("check")
    assert done.returncode == 0, done.stderr
    assert "Scope: methods=POST paths=/v1/*" in done.stdout
    assert "Scope: everything else" in done.stdout
    assert "answer > quiet (shadow)" in done.stdout
    assert "Off: resting" in done.stdout
    assert "\x1b" not in done.stdout


def test_pipelines_are_told_as_json(tidegate: Run, config: Path) -> None:
    config.write_text(config.read_text() + SCOPED)
    body = json.loads(tidegate("check", "--json").stdout)
    assert body["ok"]
    assert body["off"] == ["resting"]
    scoped, rest = body["pipelines"]
    assert scoped["phases"] == {
        "route": [{"addon": "answer", "mode": "enforce"}, {"addon": "quiet", "mode": "shadow"}]
    }
    assert rest["phases"] == {"route": [{"addon": "answer", "mode": "enforce"}]}
    assert rest["anonymous"]
    assert rest["request_body"] is None


def test_every_problem_has_its_line_and_hint(tidegate: Run, config: Path) -> None:
    config.write_text(
        config.read_text().replace("[gateway]", "[gateway]\nworker = 1")
        + '\n[[addon]]\nuse = "answr"\n'
    )
    done = tidegate("check")
    assert done.returncode == 2
    assert 'addons.toml:2: unknown key `worker` (did you mean "workers"?) [unknown_key]' in (
        done.stderr
    )
    config.write_text(config.read_text().replace("worker = 1\n", "") + 'txt = "y"\n')
    problems = json.loads(tidegate("check", "--json").stdout)["problems"]
    assert [(p["code"], p["line"]) for p in problems] == [("unknown_plugin", 13)]
    assert problems[0]["hint"] == 'did you mean "answer"?'


def test_a_wrong_option_of_an_addon_is_named(tidegate: Run, config: Path) -> None:
    config.write_text(config.read_text() + "txet = 1\n")
    done = tidegate("check")
    assert done.returncode == 2
    assert done.stderr == (
        'error: addons.toml:11: addon "answer": unknown key `txet` '
        '(did you mean "text"?) [unknown_key]\n'
    )


def test_a_deployment_that_is_not_there_is_refused(tidegate: Run, config: Path) -> None:
    config.write_text(config.read_text() + "[deployments.staging]\ngateway = {workers = 2}\n")
    assert tidegate("check", "--deployment", "staging").returncode == 0
    done = tidegate("check", "--deployment", "stagin")
    assert done.returncode == 2
    assert 'did you mean "staging"?' in done.stderr


def test_interception_in_production_must_be_meant(tidegate: Run, config: Path) -> None:
    intercept = '[[intercept]]\nmode = "regular@127.0.0.1:0"\n'
    text = config.read_text().replace("[gateway]", '[gateway]\nenvironment = "production"')
    config.write_text(text + intercept)
    done = tidegate("check")
    assert done.returncode == 2
    assert "addons.toml:12: no interception in production" in done.stderr
    config.write_text(text + intercept + "force = true\n")
    assert tidegate("check").returncode == 0


def test_a_missing_file_is_one_line(tidegate: Run) -> None:
    done = tidegate("check", "nowhere.toml")
    assert done.returncode == 2
    assert done.stderr.startswith("error: nowhere.toml: No such file or directory")
    assert done.stderr.count("\n") == 1


def test_checking_leaves_no_trace(tidegate: Run, config: Path) -> None:
    assert tidegate("check").returncode == 0
    assert [path.name for path in config.parent.iterdir()] == ["addons.toml"]


def test_plugins_says_what_is_installed_and_on(tidegate: Run, config: Path) -> None:
    rows = json.loads(tidegate("plugins", "--json", "--filter", "answer").stdout)
    assert rows == [
        {
            "name": "answer",
            "version": "1.2.3",
            "distribution": "cli-test-answer",
            "origin": "package",
            "addons": {"answer": "enforce"},
            "hooks": ["route", "startup", "bootstrap", "cli_commands"],
            "problem": "",
        }
    ]
    assert "answer" in tidegate("plugins").stdout


def test_a_plugin_that_is_not_on_is_imported_only_when_asked(tidegate: Run, config: Path) -> None:
    config.write_text("")
    listed = ("plugins", "--json", "--filter", "answer")
    (row,) = json.loads(tidegate(*listed).stdout)
    assert row["hooks"] is None
    assert row["addons"] == {}
    (row,) = json.loads(tidegate(*listed, "--all").stdout)
    assert "route" in row["hooks"]


def test_an_addon_adds_a_verb(tidegate: Run, config: Path) -> None:
    done = tidegate("fortune")
    assert (done.returncode, done.stdout) == (0, "x\n")


def test_an_addon_that_is_ill_does_not_keep_a_verb_away(tidegate: Run, config: Path) -> None:
    config.write_text(config.read_text() + '\n[[addon]]\nuse = "answr"\n')
    assert tidegate("fortune").stdout == "x\n"
    assert "[unknown_plugin]" in tidegate("misfortune").stderr


def test_a_misspelt_verb_is_told_the_right_one(tidegate: Run, config: Path) -> None:
    config.write_text("nonsense")
    done = tidegate("chek")
    assert done.returncode == 2
    assert "Did you mean 'check'?" in done.stderr


def test_help_of_a_verb_imports_neither_a_carrier_nor_mitmproxy(env: dict[str, str]) -> None:
    code = (
        "import sys; sys.argv = ['tidegate', 'up', '--help']\n"
        "from tidegate.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('mitmproxy', 'uvloop')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert "--workers" in done.stdout
    assert done.stdout.endswith("[]\n")


def test_the_supervisor_does_without_uvloop_and_the_proxy(env: dict[str, str]) -> None:
    code = (
        "import sys, tidegate.cli.supervisor\n"
        "print([m for m in sys.modules if m.startswith(('uvloop', 'mitmproxy.proxy.layers', "
        "'mitmproxy.master', 'tidegate.engine', 'tidegate.lane'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_the_help_lists_the_verbs_of_addons_as_far_as_they_can_be_loaded(
    tidegate: Run, config: Path
) -> None:
    config.write_text(config.read_text() + '[[addon]]\nuse = "auth-key"\nform = 7\n')
    broken = tidegate("--help")
    assert (broken.returncode, broken.stderr) == (0, "")
    assert "API keys." not in broken.stdout
    config.write_text(config.read_text().replace("form = 7", ""))
    assert "API keys." in tidegate("--help").stdout


def test_the_version_is_printed(tidegate: Run) -> None:
    assert tidegate("version").stdout.startswith("tidegate 0.")
    assert tidegate("--version").stdout == tidegate("version").stdout


def test_the_packaged_configuration_is_that_of_the_repository() -> None:
    packaged = files("tidegate.cli").joinpath("default_addons.toml").read_text()
    assert packaged == (ROOT / "addons.toml").read_text()
