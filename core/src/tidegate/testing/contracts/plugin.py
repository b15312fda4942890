"""What every plugin keeps."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest
from pydantic import ValidationError

from tidegate.api import AddonContext, Plugin
from tidegate.api.hookspecs import HOOKS
from tidegate.runtime import settings
from tidegate.runtime.lifecycle import Host, Runtime
from tidegate.runtime.registry import available, check_class

from .base import Contract

API: Final = "tidegate.api"
_TOML: Final = re.compile(r"^```toml\n(.*?)^```", re.MULTILINE | re.DOTALL)


class PluginContract(Contract):
    """Loads, is documented, starts and stops cleanly, keeps to the contract's imports."""

    def readme(self) -> str:
        """The plugin's README; by default the file beside its `src`, or its package's text."""
        package = self.plugin().__module__.partition(".")[0]
        file = importlib.import_module(package).__file__
        for folder in Path(file or ".").resolve().parents[:3]:
            if (folder / "README.md").is_file():
                return (folder / "README.md").read_text(encoding="utf-8")
        try:
            text = metadata(package.replace("_", "-")).json.get("description", "")
        except PackageNotFoundError:
            return ""
        return str(text)

    def readme_env(self) -> Mapping[str, str]:
        """Values for the `${VARIABLES}` of the README's example."""
        return {}

    async def test_it_is_installed_under_its_name(self) -> None:
        assert self.name in available(), f"no entry point {self.name!r} in tidegate.plugins"
        assert available()[self.name].load() is self.plugin()

    async def test_its_class_is_a_plugin_with_well_formed_hooks(self) -> None:
        assert check_class(self.plugin(), self.name) == []
        marked = [n for n in HOOKS if hasattr(getattr(self.plugin(), n, None), "tidegate_hook")]
        assert marked, "a plugin without hooks does nothing"

    async def test_unknown_options_are_refused(self) -> None:
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            self.plugin().Config.model_validate({**self.options(), "no_such_option": 1})

    async def test_the_example_of_its_readme_loads(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        blocks = [b for b in _TOML.findall(self.readme()) if f'use = "{self.name}"' in _flat(b)]
        assert blocks, f'no ```toml example with `use = "{self.name}"` in the README'
        for variable, value in self.readme_env().items():
            monkeypatch.setenv(variable, value)
        for block in blocks:
            runtime = Runtime(Host(tmp_path / "state"))
            runtime.commit(await runtime.prepare(settings.parse(block, base=tmp_path)))
            await runtime.close()

    async def test_it_starts_and_stops_again_and_again(self) -> None:
        for _ in range(2):
            async with self.harness() as harness:
                plugin = harness.plugin(self.name)
                await harness.send(self.good_exchange())
            await _call(plugin, "shutdown")

    async def test_a_reload_keeps_it_where_its_options_are_the_same(self) -> None:
        async with self.harness() as harness:
            before = harness.plugin(self.name)
            await harness.reload(*self.others(), self.use("shadow"))
            assert harness.plugin(self.name) is before
            await harness.reload(*self.others(), self.use())
            first = await harness.send(self.good_exchange())
            assert first.failed_addon == ""

    async def test_it_takes_over_from_the_instance_before_it(self) -> None:
        with TemporaryDirectory() as folder:
            plugins = [self._instance(Path(folder)) for _ in range(2)]
            old, new = plugins
            await _call(old, "startup", None)
            await _call(new, "startup", old)
            await _call(old, "shutdown")
            await _call(new, "shutdown")

    async def test_it_imports_nothing_of_ours_but_the_api(self) -> None:
        package = self.plugin().__module__.partition(".")[0]
        wrong = [
            f"{file.name}:{line} imports {name}"
            for file in _sources(self.plugin(), package)
            for line, name in _imports(ast.parse(file.read_text(encoding="utf-8")))
            if _ours(name) and not (_within(name, API) or _within(name, package))
        ]
        assert wrong == []

    def _instance(self, state: Path) -> Plugin[Any]:
        cls = self.plugin()
        config = cls.Config.model_validate(self.options())
        return cls(config, AddonContext(self.name, state / self.name, base=state))


async def _call(plugin: Plugin[Any], hook: str, *args: object) -> None:
    result = getattr(plugin, hook, lambda *_: None)(*args)
    if inspect.isawaitable(result):
        await result


def _flat(block: str) -> str:
    return re.sub(r"[ \t]+", " ", block)


def _sources(cls: type, package: str) -> Iterator[Path]:
    """The Python files of a package; of a plugin inside a module of tests, that module."""
    folder = Path(importlib.import_module(package).__file__ or "")
    if folder.name == "__init__.py":
        yield from sorted(folder.parent.rglob("*.py"))
    else:
        yield Path(inspect.getfile(cls))


def _imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full name of each absolute import, those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            for alias in node.names:
                bare = node.module == "tidegate"
                yield node.lineno, f"{node.module}.{alias.name}" if bare else node.module


def _ours(name: str) -> bool:
    return name.partition(".")[0] == "tidegate" or name.startswith("tidegate_")


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")
