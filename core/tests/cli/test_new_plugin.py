"""`tidegate new-plugin`: names, places, what is refused, and what is in a package."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

from tidegate.api.hookspecs import HOOKS
from tidegate.cli.new_plugin import ALIASES, KINDS, TEMPLATE

COLD = {"startup", "shutdown", "bootstrap", "cli_commands", "console_routes"}

type Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def tidegate(tmp_path: Path) -> Run:
    """Runs the command in an empty folder."""

    def run(*arguments: str, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tidegate.cli.main", *arguments],
            cwd=cwd, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    return run


def files_of(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def project_of(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text())


def test_a_package_has_code_tests_and_a_readme_under_one_name(tidegate, tmp_path):
    made = tidegate("new-plugin", "auth-corp-ldap", "--json")
    assert made.returncode == 0, made.stderr
    told = json.loads(made.stdout)
    folder = tmp_path / "tidegate-auth-corp-ldap"
    assert told["folder"] == str(folder)
    assert told["kind"] == "auth"
    assert told["files"] == files_of(folder) == [
        "README.md",
        "pyproject.toml",
        "src/tidegate_auth_corp_ldap/__init__.py",
        "src/tidegate_auth_corp_ldap/plugin.py",
        "src/tidegate_auth_corp_ldap/py.typed",
        "tests/test_auth_corp_ldap.py",
    ]  # fmt: skip
    project = project_of(folder)["project"]
    assert project["name"] == "tidegate-auth-corp-ldap"
    assert project["entry-points"]["tidegate.plugins"] == {
        "auth-corp-ldap": "tidegate_auth_corp_ldap:AuthCorpLdap"
    }
    text = "".join((folder / file).read_text() for file in told["files"])
    assert not [n for n in ("my-policy", "my_policy", "MyPolicy", "CORE_VERSION") if n in text]
    assert 'use     = "auth-corp-ldap"' in text


def test_it_says_what_is_next(tidegate, tmp_path):
    made = tidegate("new-plugin", "log-calls")
    for word in (f"cd {tmp_path}/tidegate-log-calls", "uv run pytest", "uv build", "addons.toml"):
        assert word in made.stdout


@pytest.mark.parametrize("first", [*KINDS, *ALIASES])
def test_the_first_word_of_a_name_says_the_kind(tidegate, first):
    made = tidegate("new-plugin", f"{first}-x1", "--json")
    assert json.loads(made.stdout)["kind"] == ALIASES.get(first, first)


def test_any_name_is_good_where_the_kind_is_given(tidegate, tmp_path):
    arguments = ("opening-hours", "--kind", "authorize", "--dist", "Acme.Hours", "--dir", "a/b")
    made = tidegate("new-plugin", *arguments)
    assert made.returncode == 0, made.stderr
    folder = tmp_path / "a/b/Acme.Hours"
    assert "src/acme_hours/plugin.py" in files_of(folder)
    points = project_of(folder)["project"]["entry-points"]["tidegate.plugins"]
    assert points == {"opening-hours": "acme_hours:OpeningHours"}


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["Auth_Corp"], "plugin_name", 'did you mean "auth-corp"?'),
        (["auth"], "plugin_name", "such as auth-corp"),
        (["auth-" + "x" * 40], "plugin_name", "at most 40"),
        (["auth-../x"], "plugin_name", 'did you mean "auth-x"?'),
        (["opening-hours"], "plugin_kind", "add --kind"),
        (["opening-hours", "--kind", "autorize"], "plugin_kind", 'did you mean "authorize"?'),
        (["auth-key"], "plugin_exists", "tidegate-auth-key"),
        (["auth-corp", "--dist", "../x"], "plugin_dist", "not the name of a distribution"),
    ],
)
def test_a_wrong_name_is_refused_with_a_better_one(tidegate, tmp_path, arguments, code, told):
    made = tidegate("new-plugin", *arguments)
    assert made.returncode == 2
    assert made.stderr.count("\n") == 1
    assert told in made.stderr
    assert f"[{code}]" in made.stderr
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_ever_overwritten(tidegate, tmp_path):
    (tmp_path / "tidegate-auth-corp").mkdir()
    made = tidegate("new-plugin", "auth-corp")
    assert made.returncode == 2
    assert "exists: nothing was written" in made.stderr
    assert files_of(tmp_path) == []


def test_a_folder_that_can_not_be_written_is_told_in_a_line(tidegate, tmp_path):
    (tmp_path / "file").write_text("")
    made = tidegate("new-plugin", "auth-corp", "--dir", "file")
    assert made.returncode == 2
    assert made.stderr.endswith("[plugin_folder]\n")


def test_an_ill_configuration_beside_it_does_not_matter(tidegate, tmp_path):
    (tmp_path / "addons.toml").write_text("not toml")
    assert tidegate("new-plugin", "auth-corp").returncode == 0


def test_outside_uv_finds_the_core_that_made_it(tidegate, tmp_path):
    """`uv run pytest` in the new folder needs it, and no package index may have it."""
    direct = distribution("tidegate-core").read_text("direct_url.json")
    if direct is None:
        pytest.skip("tidegate-core is installed from a package index: uv finds it there")
    assert tidegate("new-plugin", "auth-corp").returncode == 0
    source = project_of(tmp_path / "tidegate-auth-corp")["tool"]["uv"]["sources"]["tidegate-core"]
    assert Path(source["path"]).as_uri() == json.loads(direct)["url"]


def test_in_the_repository_it_is_a_member_without_tool_settings(tidegate, tmp_path):
    root = '[project]\nname = "tidegate"\n[tool.uv.workspace]\nmembers = ["plugins/*"]\n'
    (tmp_path / "pyproject.toml").write_text(root)
    (tmp_path / "docs").mkdir()
    made = tidegate("new-plugin", "cache-tiny", cwd=tmp_path / "docs")
    assert made.returncode == 0, made.stderr
    folder = tmp_path / "plugins/cache-tiny"
    project = project_of(folder)
    assert project["project"]["name"] == "tidegate-cache-tiny"
    assert set(project["tool"]) == {"hatch", "uv"}
    assert project["tool"]["uv"]["sources"] == {"tidegate-core": {"workspace": True}}
    assert "uv run pytest plugins/cache-tiny" in made.stdout
    refused = tidegate("new-plugin", "cache-small", "--dist", "x", cwd=tmp_path / "docs")
    assert "[plugin_dist]" in refused.stderr


def test_every_hook_of_the_request_path_is_in_a_kind():
    text = "".join(p.read_text() for p in TEMPLATE.glob("*/src/*/plugin.py"))
    assert [h for h in HOOKS if h not in COLD and f"def {h}(" not in text] == []


@pytest.fixture
def ruff() -> str:
    found = shutil.which("ruff") or shutil.which("ruff", path=Path(sys.executable).parent)
    if found is None:
        pytest.skip("ruff is missing: pip install ruff")
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_passes_its_own_lint(tidegate, tmp_path, kind, ruff):
    assert tidegate("new-plugin", f"{kind}-a").returncode == 0
    folder = tmp_path / f"tidegate-{kind}-a"
    for arguments in (["check"], ["format", "--check"]):
        run = subprocess.run(
            [ruff, *arguments, "--no-cache"], cwd=folder, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("import time; time.time()", "exchange.now"),
        ("from datetime import datetime; datetime.now(None)", "exchange.now"),
        ("import datetime as d; d.date.today()", "exchange.now"),
        ("import random", "exchange.random"),
        ("from random import choice", "exchange.random"),
    ],
)
def test_its_lint_bans_time_and_chance_that_can_not_be_replayed(
    tidegate, tmp_path, line, instead, ruff
):
    assert tidegate("new-plugin", "auth-a").returncode == 0
    folder = tmp_path / "tidegate-auth-a"
    (folder / "src/tidegate_auth_a/more.py").write_text(line)
    run = subprocess.run(
        [ruff, "check", "--no-cache", "--select", "TID251"], cwd=folder, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert run.returncode == 1
    assert "TID251" in run.stdout
    assert instead in run.stdout
