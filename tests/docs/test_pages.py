"""The documentation says what the code does."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tidegate.api.hookspecs import HOOKS
from tidegate.runtime.settings import Deadlines, Limits, parse

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = sorted(
    [
        ROOT / "README.md",
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("plugins/*/README.md"),
        *ROOT.glob("contrib/*/README.md"),
    ]
)


class AnyPolicy(dict[str, str | None]):
    """Stands for the policy files that examples name: each is there."""

    def get(self, _file: str, _default: object = None) -> str:  # type: ignore[override]
        return "x = 1"


def test_made_pages_are_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("build", ROOT / "docs/build.py")
    assert spec is not None
    assert spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    for name, page in build.PAGES.items():
        assert (ROOT / "docs" / name).read_text() == page(), "run: uv run python docs/build.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.S)
    targets = re.findall(r"\]\(([^)#]+)\)", text)
    broken = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_toml_examples_are_valid(page: Path) -> None:
    for block in re.findall(r"```toml\n(.*?)```", page.read_text(), re.S):
        document = tomllib.loads(block)
        if "project" not in document:
            variables = dict.fromkeys(re.findall(r"\$\{(\w+)", block), "x")
            parse(block, env=variables, texts=AnyPolicy())


def test_the_guide_names_every_hook() -> None:
    guide = (ROOT / "docs/plugins.md").read_text()
    assert [h for h in HOOKS if f"`{h}(" not in guide] == []


def test_the_readme_policy_works_as_printed(tmp_path: Path) -> None:
    policy = re.search(r"```python\n# tidegate_opening_hours.py\n(.*?)```", README, re.S)
    guide = (ROOT / "docs/plugins.md").read_text()
    tests = re.search(r"```python\n(from tidegate.testing.*?)```", guide, re.S)
    assert policy is not None
    assert tests is not None
    (tmp_path / "tidegate_opening_hours.py").write_text(policy[1])
    (tmp_path / "test_opening_hours.py").write_text(tests[1])
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\npythonpath = .\n")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout
    assert "2 passed" in run.stdout


def test_the_numbers_of_the_operations_page_are_the_defaults() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    for section, model in (("limits", Limits()), ("deadlines", Deadlines())):
        table = page.partition(f"`[gateway.{section}]`:")[2].partition("\n\n`[")[0]
        for name in type(model).model_fields:
            row = re.search(rf"^\| `{name}` \| ([^|]+) \|", table, re.M)
            assert row is not None, name
            value = type(model).model_validate({name: plain(row[1])})
            assert getattr(value, name) == getattr(model, name), name


def plain(text: str) -> str | int:
    text = text.strip().replace(" ", "")
    return int(text.replace(",", "")) if text.replace(",", "").isdigit() else text
