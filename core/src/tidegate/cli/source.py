"""Where a node's configuration comes from: a file, and the flags that go over it.

The supervisor and every worker make their settings from the same `Source`, so that they agree.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from tidegate.runtime import policy_file
from tidegate.runtime.document import policy_name
from tidegate.runtime.entry import AddonEntry, with_code
from tidegate.runtime.problems import ConfigError, Problem
from tidegate.runtime.settings import Gateway, Settings, parse

FILE: Final = "addons.toml"
STATE: Final = ".tidegate"
LOCAL_MODEL: Final = "local-model"
DEFAULT: Final = "(default addons.toml)"
"""What problems name as the file where the packaged default is used."""


@dataclass(frozen=True, slots=True)
class Source:
    """A configuration's text, and what the command line says over it."""

    text: str
    file: str
    """As problems name it; "" and the packaged default are not watched for edits."""
    base: str
    """Absolute folder where relative paths start."""
    deployment: str = ""
    listen: tuple[str, ...] = ()
    workers: int | None = None
    local_model: bool = False
    policies: tuple[str, ...] = ()
    """Absolute paths of the policy files that `--policy` names."""
    texts: tuple[tuple[str, str | None], ...] = ()
    """The text of each policy file that is on, by absolute path; None: it can't be read."""

    @property
    def digest(self) -> str:
        """Equal for equal configurations."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    @property
    def watched(self) -> Path | None:
        """The configuration file whose edits take effect, if there is one."""
        return None if self.file == DEFAULT else Path(self.file)

    @property
    def watched_files(self) -> tuple[Path, ...]:
        """All files whose edits take effect: the configuration, and the policies of one file."""
        own = () if self.watched is None else (self.watched,)
        return (*own, *(Path(file) for file, _ in self.texts))

    def settings(self) -> Settings:
        """The checked settings, flags applied. Raises ConfigError."""
        settings = parse(
            self.text,
            file=self.file,
            base=Path(self.base),
            deployment=self.deployment,
            texts=dict(self.texts),
        )
        changes: dict[str, Any] = {}
        if self.listen:
            changes["listen"] = listeners(self.listen)
        if self.workers is not None:
            changes["workers"] = self.workers
        if changes:
            settings = replace(settings, gateway=settings.gateway.model_copy(update=changes))
        if self.local_model:
            settings = with_local_model(settings)
        settings = with_policies(settings, self)
        problems = policy(settings)
        if problems:
            raise ConfigError(problems)
        return settings

    def reread(self) -> Source:
        """The same source with the file's present text. Raises ConfigError."""
        fresh = self if self.watched is None else replace(self, text=read(self.watched))
        return fresh.with_texts()

    def with_texts(self) -> Source:
        """The same source with the present text of each policy file."""
        try:
            named = policy_file.named(self.text, Path(self.base), self.deployment, os.environ)
        except ValueError:  # `settings` will say what is wrong: until then nothing is known
            return self
        files = dict.fromkeys([str(file) for file in named] + list(self.policies))
        return replace(self, texts=tuple((file, read_policy(file)) for file in files))

    def to_wire(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_wire(cls, message: dict[str, Any]) -> Source:
        """The reverse of `to_wire`."""
        texts = tuple((file, text) for file, text in message["texts"])
        lists = {name: tuple(message[name]) for name in ("listen", "policies")}
        return cls(**{**message, **lists, "texts": texts})


def find(file: Path | None, **flags: Any) -> Source:
    """The source: `file`, else ./addons.toml, else the packaged default. Raises ConfigError."""
    if file is None and Path(FILE).is_file():
        file = Path(FILE)
    if file is None:
        text = files("tidegate.cli").joinpath("default_addons.toml").read_text("utf-8")
        return Source(text, DEFAULT, str(Path.cwd()), **flags).with_texts()
    return Source(read(file), str(file), str(file.resolve().parent), **flags).with_texts()


def read(file: Path) -> str:
    """The text of a configuration file. Raises ConfigError."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        hint = "`tidegate up` without --config needs no file" if not file.exists() else ""
        raise ConfigError(Problem("config_unreadable", reason, str(file), hint=hint)) from None


def read_policy(file: str) -> str | None:
    """The text of a policy file, or None: `settings` will say why it can't be read."""
    try:
        return policy_file.read(Path(file))
    except (OSError, ValueError):
        return None


def listeners(addresses: tuple[str, ...]) -> Any:
    """The listeners that `--listen` asks for. Raises ConfigError."""
    try:
        return Gateway.model_validate({"listen": list(addresses)}).listen
    except ValueError as error:
        reason = str(error).partition("Value error, ")[2].partition(" [type=")[0]
        raise ConfigError(
            Problem("invalid_value", f"--listen: {reason or 'not an address'}")
        ) from None


def with_local_model(settings: Settings) -> Settings:
    """Settings in which the local model answers before any other route."""
    kept = [
        (entry, path)
        for entry, path in zip(settings.addons, settings.paths, strict=True)
        if entry.use != LOCAL_MODEL
    ]
    present = next((e for e in settings.addons if e.use == LOCAL_MODEL), None)
    entry = present or AddonEntry(use=LOCAL_MODEL, name=LOCAL_MODEL)
    entry = entry.model_copy(update={"mode": "enforce", "if_env": None})
    routes = (i for i, (e, _) in enumerate(kept) if routes_by_name(e.use))
    kept.insert(next(routes, len(kept)), (entry, ()))
    return replace(
        settings,
        addons=tuple(entry for entry, _ in kept),
        paths=tuple(path for _, path in kept),
    )


def with_policies(settings: Settings, source: Source) -> Settings:
    """Settings in which the files of `--policy` stand before what routes. Raises ConfigError."""
    texts, problems = dict(source.texts), list[Problem]()
    entries = []
    for file in source.policies:
        name = policy_name(file)
        entry = AddonEntry(use=name, name=name, file=file)
        problem = settings.source.problem
        entries.append(with_code(entry, settings.base, texts, problem, (), problems))
        if any(name == other.name for other in (*settings.addons, *entries[:-1])):
            text = f'--policy {file}: there is an addon named "{name}" already'
            problems.append(Problem("duplicate_addon", text))
    if problems:
        raise ConfigError(problems)
    routes = (i for i, e in enumerate(settings.addons) if routes_by_name(e.use))
    at = next(routes, len(settings.addons))
    addons, paths = list(settings.addons), list(settings.paths)
    addons[at:at], paths[at:at] = entries, [()] * len(entries)
    return replace(settings, addons=tuple(addons), paths=tuple(paths))


def routes_by_name(use: str) -> bool:
    """Whether a plugin's name says that it routes, or answers where nothing else does."""
    return use in (LOCAL_MODEL, "ai-providers", "ai-route") or use.startswith(("route-", "demo-"))


def policy(settings: Settings) -> list[Problem]:
    """What an environment does not allow."""
    problems: list[Problem] = []
    for index, intercept in enumerate(settings.intercepts):
        ca = intercept.upstream_ca
        if ca is not None and not (settings.base / ca).is_file():
            place = ("intercept", index, "upstream_ca")
            problems.append(settings.source.problem("file_missing", f"no file {ca!r}", place))
    if not settings.production:
        return problems
    for index, intercept in enumerate(settings.intercepts):
        if not intercept.force:
            text = "no interception in production"
            hint = "force = true, if you mean it"
            at = ("intercept", index)
            problems.append(settings.source.problem("intercept_in_production", text, at, hint))
    return problems


def notes(settings: Settings) -> list[str]:
    """What an operator should know though it is allowed."""
    if settings.anonymous:
        return ["[gateway] anonymous = true: callers without a credential are let in"]
    return []


def worker_count(settings: Settings) -> int:
    """`[gateway] workers`, or one per core that this process may use."""
    if settings.gateway.workers is not None:
        return settings.gateway.workers
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def pinned(settings: Settings, running: Settings) -> tuple[Settings, list[str]]:
    """`settings` with what can't change while a node runs kept as it is in `running`.

    Also the names of the settings that take effect only after a restart.
    """
    new, old = settings.gateway, running.gateway
    kept: dict[str, Any] = {}
    for name in ("workers", "status", "environment"):
        if getattr(new, name) != getattr(old, name):
            kept[name] = getattr(old, name)

    def fixed(gateway: Gateway) -> list[tuple[Any, ...]]:
        return [(x.name, x.address, x.carrier or gateway.carrier) for x in gateway.listen]

    if fixed(new) != fixed(old):
        kept["listen"], kept["carrier"] = old.listen, old.carrier
    pinned_settings = replace(settings, gateway=new.model_copy(update=kept))
    needs = [f"gateway.{name}" for name in kept if getattr(new, name) != getattr(old, name)]
    if [(x.name, x.mode) for x in settings.intercepts] != [
        (x.name, x.mode) for x in running.intercepts
    ]:
        pinned_settings = replace(pinned_settings, intercepts=running.intercepts)
        needs.append("intercept")
    return pinned_settings, needs
