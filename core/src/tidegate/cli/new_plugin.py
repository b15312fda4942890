"""`tidegate new-plugin`: a package of one's own, from the template, ready to be built.

The template's files are valid as they stand; a copy has another name in place of `my-policy`.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import orjson

from tidegate.runtime.problems import ConfigError, Problem, nearest
from tidegate.runtime.registry import available

TEMPLATE: Final = Path(__file__).parent / "template"
KINDS: Final = ("auth", "authorize", "cache", "event", "log", "route", "transform")
ALIASES: Final = {"limit": "authorize", "mask": "transform"}
"""First words of names that say what a plugin does, and so of which kind it is."""
LONGEST: Final = 40

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)+")
_DIST: Final = re.compile(r"[a-z](?:[a-z0-9]|[-_.](?=[a-z0-9]))*", re.IGNORECASE)  # PEP 508, 503


@dataclass(frozen=True, slots=True)
class Package:
    """What is to be made, and where."""

    name: str
    """Of the entry point, such as `auth-corp`."""
    kind: str
    dist: str
    folder: Path
    workspace: Path | None
    """The root of Tidegate's own repository, where it is to be a member of that."""

    @property
    def module(self) -> str:
        """The name it is imported by."""
        return re.sub(r"[-.]+", "_", self.dist).lower()

    @property
    def plugin(self) -> str:
        """The name of its class."""
        return "".join(word.capitalize() for word in self.name.split("-"))

    def rename(self, text: str) -> str:
        """A text of the template, with this package's names."""
        for old, new in (
            ("tidegate-my-policy", self.dist),
            ("tidegate_my_policy", self.module),
            ("my-policy", self.name),
            ("my_policy", self.name.replace("-", "_")),
            ("MyPolicy", self.plugin),
        ):
            text = text.replace(old, new)
        return text


def new_plugin(name: str, kind: str, directory: Path | None, dist: str, *, as_json: bool) -> None:
    """Make the package, say what is next. Raises ConfigError."""
    package = plan(name, kind, directory, dist)
    try:
        files = sorted(write(package))
    except OSError as error:
        raise refused("plugin_folder", f"{package.folder}: {error.strerror}") from None
    if as_json:
        found = {
            "name": package.name,
            "kind": package.kind,
            "distribution": package.dist,
            "module": package.module,
            "folder": str(package.folder),
            "files": files,
        }
        print(orjson.dumps(found).decode())
        return
    print(f"Made {package.folder}:")
    for file in files:
        print(f"  {file}")
    print("\nNext:")
    for step in next_steps(package):
        print(f"  {step}")


def plan(name: str, kind: str, directory: Path | None, dist: str) -> Package:
    """Names and places, checked. Raises ConfigError; nothing is written."""
    if not _NAME.fullmatch(name) or len(name) > LONGEST:
        likely = "-".join(re.findall(r"[a-z0-9]+", name.lower()))
        hint = f'did you mean "{likely}"?' if _NAME.fullmatch(likely) else "such as auth-corp"
        text = f"{name!r} is not a plugin's name: lower-case words with dashes, at most {LONGEST}"
        raise refused("plugin_name", text, hint)
    taken = available().get(name)
    if taken is not None:
        owner = taken.dist.name if taken.dist else taken.value
        raise refused("plugin_exists", f'a plugin "{name}" is installed: it comes with {owner}')
    workspace = workspace_above(directory or Path.cwd())
    if dist and workspace:
        raise refused("plugin_dist", f"in this repository it is called tidegate-{name}: no --dist")
    if dist and not _DIST.fullmatch(dist):
        raise refused("plugin_dist", f"{dist!r} is not the name of a distribution")
    parent = directory or (workspace / "plugins" if workspace else Path.cwd())
    folder = parent.resolve() / (name if workspace else dist or f"tidegate-{name}")
    if folder.exists():
        raise refused("plugin_exists", f"{folder} exists: nothing was written")
    return Package(name, kind_of(name, kind), dist or f"tidegate-{name}", folder, workspace)


def kind_of(name: str, kind: str) -> str:
    """The kind that was asked for, or that the first word of the name says. ConfigError."""
    if kind and kind not in KINDS:
        hint = nearest(kind, KINDS) or f"one of {', '.join(KINDS)}"
        raise refused("plugin_kind", f"there is no kind {kind!r}", hint)
    first = name.partition("-")[0]
    found = kind or ALIASES.get(first, first)
    if found not in KINDS:
        hint = f"add --kind, one of {', '.join(KINDS)}"
        raise refused("plugin_kind", f'the name "{name}" does not say of which kind it is', hint)
    return found


def workspace_above(folder: Path) -> Path | None:
    """The root of Tidegate's own repository, where `folder` is inside of it."""
    for parent in (folder.resolve(), *folder.resolve().parents):
        try:
            text = (parent / "pyproject.toml").read_text(encoding="utf-8")
            project = tomllib.loads(text)
        except (OSError, ValueError):
            continue
        tool = project.get("tool", {}).get("uv", {})
        if "workspace" in tool and project.get("project", {}).get("name") == "tidegate":
            return parent
    return None


def write(package: Package) -> Iterator[str]:
    """Write the package; the path of each file in it."""
    for path, text in contents(package):
        target = package.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        yield path


def contents(package: Package) -> Iterator[tuple[str, str]]:
    """Path and text of each file."""
    source = TEMPLATE / package.kind
    for file in source.rglob("*"):
        if file.is_file() and file.suffix in (".py", ".md", ".typed"):
            path = package.rename(file.relative_to(source).as_posix())
            yield path, package.rename(file.read_text(encoding="utf-8"))
    project = TEMPLATE / ("inside.toml" if package.workspace else "outside.toml")
    readme = (source / "README.md").read_text(encoding="utf-8")
    text = project.read_text(encoding="utf-8")
    text = text.replace("What my-policy does.", readme.split("\n\n")[1])
    if package.workspace is None:
        text += core_source()
    yield "pyproject.toml", package.rename(text.replace("CORE_VERSION", version("tidegate-core")))


def core_source() -> str:
    """Where uv finds the core that is installed here, if it did not come from a package index."""
    direct = distribution("tidegate-core").read_text("direct_url.json")  # PEP 610
    origin = orjson.loads(direct) if direct else {}
    url = urlsplit(origin.get("url", ""))
    if url.scheme != "file":
        return ""
    path = orjson.dumps(unquote(url.path)).decode()  # a TOML string as well
    where = f"path = {path}, editable = true" if "dir_info" in origin else f"path = {path}"
    return (
        "\n# The core that this package was made with. On a machine that has it from a package\n"
        f"# index, leave this out.\n[tool.uv.sources]\ntidegate-core = {{ {where} }}\n"
    )


def next_steps(package: Package) -> list[str]:
    """Commands for the author, in order."""
    if package.workspace is not None:
        return [
            f"add {package.dist} to dependencies and tool.uv.sources of the root pyproject.toml, "
            f"{package.module} to tool.mypy.packages",
            "uv sync",
            f"uv run pytest {package.folder.relative_to(package.workspace.resolve())}",
        ]
    return [
        f"cd {package.folder}",
        "uv run pytest                 # its contract suite and its own tests",
        "uv run ruff check             # also bans clocks and chance that can't be replayed",
        "uv build                      # a wheel, for `uv publish` or a package index of your own",
        "",
        "To switch it on, install it beside the Tidegate that is to run it, such as this one:",
        f"  uv pip install --python {sys.executable} -e {package.folder}",
        "and put the [[addon]] table of its README into addons.toml.",
    ]


def refused(code: str, message: str, hint: str = "") -> ConfigError:
    """A ConfigError of one problem."""
    return ConfigError(Problem(code, message, hint=hint))
