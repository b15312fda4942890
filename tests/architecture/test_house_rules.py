"""The house rules that a machine can check."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRIB = ("limit-redis", "mitmproxy-script")
"""The packages in contrib/ that are members of the workspace."""
BACKENDS = ("limit-redis",)
"""Those of them that are no plugins, but what a plugin finds by an entry point of its own."""
PLUGINS = sorted(
    [
        *(p.parent for p in ROOT.glob("plugins/*/pyproject.toml")),
        *(ROOT / "contrib" / name for name in CONTRIB),
    ]
)
SOURCES = sorted(
    [*ROOT.glob("core/src/**/*.py"), *(f for p in PLUGINS for f in p.glob("src/**/*.py"))]
)
INTERNALS = {
    "/tidegate/engine/": "it is what they are wrapped in",
    "/tidegate_mitmproxy_script/": "it shows scripts the mitmproxy that they were written for",
}
"""Who may import the internals of mitmproxy, and why."""


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports_of(path: Path) -> Iterator[tuple[str, int]]:
    """Absolute names of the modules that a file imports, with their lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def offending(path: Path, pattern: str) -> list[str]:
    found = re.compile(pattern)
    return [
        f"{relative(path)}:{line} {name}" for name, line in imports_of(path) if found.match(name)
    ]


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda p: p.name)
def test_one_name_gives_folder_distribution_import_and_entry_point(folder: Path) -> None:
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    module = "tidegate_" + folder.name.replace("-", "_")
    assert project["name"] == f"tidegate-{folder.name}"
    assert (folder / "src" / module / "py.typed").exists()
    groups = project["entry-points"]
    points = groups.get("tidegate.plugins", {})
    named = [(name, value.partition(":")[0]) for name, value in points.items()]
    expected = [] if folder.name in BACKENDS else [(folder.name, module)]
    assert named == expected
    assert {v.partition(":")[0].partition(".")[0] for g in groups.values() for v in g.values()} == {
        module
    }


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda p: p.name)
def test_a_plugin_imports_the_contract_and_nothing_else_of_ours(folder: Path) -> None:
    own = "tidegate_" + folder.name.replace("-", "_")
    allowed = rf"(?!tidegate\.api\b|{own}\b)tidegate(\.|_)"
    assert [o for p in folder.glob("src/**/*.py") for o in offending(p, allowed)] == []


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda p: p.name)
def test_a_plugin_has_a_readme_with_an_example_and_tests(folder: Path) -> None:
    assert "```toml" in (folder / "README.md").read_text()
    assert list(folder.glob("tests/test_*.py"))


def test_only_those_who_wrap_mitmproxy_import_its_internals_and_uvloop() -> None:
    internals = (
        r"mitmproxy\.(proxy|addons|master|addonmanager|eventsequence|options|tls|ctx)\b|uvloop\b"
    )
    outside = [p for p in SOURCES if not any(part in p.as_posix() for part in INTERNALS)]
    assert [o for p in outside for o in offending(p, internals)] == []


def test_the_contract_does_no_io() -> None:
    io = r"(asyncio|socket|ssl|selectors|threading|subprocess|http\.client|urllib\.request)\b"
    api = [p for p in SOURCES if "/tidegate/api/" in p.as_posix()]
    assert [o for p in api for o in offending(p, io)] == []


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    lines = len(text.splitlines())
    if path.name != "hookspecs.py":  # one file for all hooks, most of it docstrings
        assert lines <= 400, f"{lines} lines"
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > 50
        and node.name != "__init__"
    ]
    assert long == []


def test_dev_tool_settings_stand_only_in_the_root() -> None:
    members = [ROOT / "core/pyproject.toml", *(p / "pyproject.toml" for p in PLUGINS)]
    for member in members:
        tool = tomllib.loads(member.read_text()).get("tool", {})
        assert set(tool) <= {"hatch", "uv"}, member


def test_no_file_of_the_project_is_forgotten_by_git() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard", "core", "plugins", "tests"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("not a git checkout")
    assert [f for f in listed.stdout.split() if f.endswith(".py")] == []
