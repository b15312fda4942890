"""`tidegate providers …`, as a command line; the provider it asks is llmock."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import typer
from tidegate_ai_providers import AiProviders, AiProvidersConfig
from typer.testing import CliRunner

from tidegate.api import AddonContext
from tidegate.runtime.settings import parse

FILE = """\
# mine
[[addon]]
use = "ai-providers"
# the providers
providers = [
  "openai",  # off without a key
]

# next
[[addon]]
use = "demo-upstream"
"""


class Shell:
    """The verbs of an addon, in a folder with a configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "addons.toml"
        self.file.write_text(FILE)

    def __call__(self, *arguments: str, stdin: str = ""):
        (table,) = parse(self.file.read_text()).addons[:1]
        config = AiProvidersConfig.model_validate(table.options)
        addon = AiProviders(config, AddonContext("ai-providers", self.folder / "state",
                                                 base=self.folder))  # fmt: skip
        app = typer.Typer()
        addon.cli_commands(app)
        env = {"TIDEGATE_CONFIG": str(self.file)}
        return CliRunner().invoke(app, ["providers", *arguments], input=stdin, env=env)


@pytest.fixture
def run(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_a_provider_is_added_and_asked(run, llmock, monkeypatch):
    monkeypatch.setenv("MISTRAL_API_KEY", "sk-canary")
    llmock.reply("Hello!", times=None)
    result = run("add", "mistral", "--url", llmock.base_url("mistral"),
                 "--key-env", "MISTRAL_API_KEY")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "ok in" in result.stdout
    assert "mistral/mistral-small-latest" in result.stdout
    assert "sk-canary" not in result.output
    assert llmock.requests[0].model == "mistral-small-latest"
    entry = f'{{ name = "mistral", url = "{llmock.base_url("mistral")}", '
    entry += 'if_env = "MISTRAL_API_KEY", keys = ["${MISTRAL_API_KEY}"] }'
    key = '  "openai",  # off without a key\n'
    assert run.file.read_text() == FILE.replace(key, f"{key}  {entry},\n")


def test_a_provider_that_is_there_is_changed_in_its_place(run):
    result = run("add", "openai", "--key-env", "MINE", "--no-test")
    assert result.exit_code == 0, result.output
    wanted = '{ name = "openai", if_env = "MINE", keys = ["${MINE}"] },  # off without a key'
    assert wanted in run.file.read_text()
    before = run.file.read_text()
    assert run("add", "openai", "--key-env", "MINE", "--no-test").exit_code == 0
    assert run.file.read_text() == before


def test_a_key_from_standard_input_is_kept_where_only_its_user_reads_it(run):
    result = run("add", "openai", "--key-stdin", "--no-test", stdin="sk-canary\n")
    assert result.exit_code == 0, result.output
    file = run.folder / "state/openai.key"
    assert file.read_text() == "sk-canary\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "sk-canary" not in run.file.read_text() + result.output
    (listed,) = json.loads(run("list", "--json").stdout)
    assert (listed["name"], listed["state"], listed["keys"]) == ("openai", "on", ["key 1"])


def test_a_test_call_that_fails_says_why_without_the_key(run, llmock, monkeypatch):
    monkeypatch.setenv("MINE", "sk-canary")
    llmock.fail(401, message="Incorrect API key provided: sk-c***")
    result = run("add", "groq", "--url", llmock.base_url("groq"), "--key-env", "MINE")
    assert result.exit_code == 1
    assert "failed: HTTP 401: Incorrect API key" in " ".join(result.stdout.split())
    assert "sk-canary" not in result.output


def test_a_provider_that_can_not_be_reached_is_told(run):
    gone = ("add", "work", "--url", "http://127.0.0.1:1/v1", "--model", "m", "--json")
    result = run(*gone)
    assert result.exit_code == 1
    test = json.loads(result.stdout)["test"]
    assert (test["ok"], test["status"]) == (False, None)
    assert "can't be reached" in test["text"]


def test_a_provider_of_which_nothing_is_known_is_asked_what_it_has(run, llmock):
    llmock.reply("Hello!", times=None)
    result = run("add", "work", "--url", llmock.base_url("openai"), "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["test"]["model"].startswith("work/")


def test_a_dry_run_shows_the_change_and_makes_none(run):
    result = run("add", "groq", "--dry-run")
    assert '+  { name = "groq", if_env = "GROQ_API_KEY"' in result.stdout
    assert run.file.read_text() == FILE


def test_a_provider_is_taken_out(run):
    assert run("add", "groq", "--no-test").exit_code == 0
    assert run("remove", "groq").exit_code == 0
    assert run.file.read_text() == FILE
    gone = run("remove", "groq")
    assert (gone.exit_code, "no provider named 'groq'" in gone.stderr) == (2, True)


def test_those_that_are_off_are_listed_with_the_reason(run):
    (row,) = json.loads(run("list", "--json").stdout)
    assert row == {"name": "openai", "team": "", "state": "off: OPENAI_API_KEY is not set"}
    assert "OPENAI_API_KEY is not set" in " ".join(run("list").stdout.split())
    result = run("test", "openai")
    assert (result.exit_code, "OPENAI_API_KEY is not set" in result.stderr) == (2, True)


def test_known_providers_can_be_searched(run):
    names = [row["name"] for row in json.loads(run("known", "--json").stdout)]
    assert len(names) > 40
    assert [
        r["name"] for r in json.loads(run("known", "--filter", "MISTRAL", "--json").stdout)
    ] == ["mistral"]
    assert "api.mistral.ai" in run("known", "--filter", "mistral").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("add", "nobody"), "no provider is known as 'nobody'"),
        (("add", "x", "--url", "ftp://x"), "starts with http"),
        (("add", "x", "--url", "http://x", "--set", "oops"), "write --set NAME=VALUE"),
        (("test", "nobody"), "no provider is named 'nobody'"),
    ],
)
def test_a_mistake_is_one_line(run, arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert run.file.read_text() == FILE
