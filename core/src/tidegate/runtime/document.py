"""The document of `addons.toml` before its values are checked: overlays and variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

from .problems import KeyPath, Problem, SourceMap, nearest

_TOP: Final = ("gateway", "intercept", "addon", "deployments")
_OVERLAY: Final = ("gateway", "intercept", "addon", "addons")


def overlay(
    document: dict[str, Any], deployment: str, source: SourceMap, problems: list[Problem]
) -> tuple[dict[str, Any], list[KeyPath]]:
    """Put the overlay of `deployment` over the base; also, where each addon stands."""
    document = deepcopy(document)
    unknown_keys(document, _TOP, (), source, problems)
    deployments = document.pop("deployments", {})
    addons = document.setdefault("addon", [])
    if not isinstance(addons, list) or not isinstance(deployments, dict):
        problems.append(source.problem("invalid_value", "write addons as [[addon]]", ("addon",)))
        document["addon"] = []
        return document, []
    paths: list[KeyPath] = [("addon", i) for i in range(len(addons))]
    for name, over in deployments.items():
        unknown_keys(over, _OVERLAY, ("deployments", name), source, problems)
    if not deployment:
        return document, paths
    over = deployments.get(deployment)
    if over is None:
        message = f"there is no [deployments.{deployment}] here"
        hint = nearest(deployment, deployments)
        problems.append(Problem("unknown_deployment", message, source.file, hint=hint))
        return document, paths
    at: KeyPath = ("deployments", deployment)
    document["gateway"] = merge(document.get("gateway", {}), over.get("gateway", {}))
    if "intercept" in over:
        document["intercept"] = over["intercept"]
    _change_addons(addons, over.get("addons", {}), at, source, problems)
    _insert_addons(addons, paths, over.get("addon", []), (at, source, problems))
    return document, paths


def _change_addons(
    addons: list[dict[str, Any]],
    changes: dict[str, Any],
    at: KeyPath,
    source: SourceMap,
    problems: list[Problem],
) -> None:
    """`[deployments.X.addons.NAME]`: keys of an addon that the base lists."""
    for name, change in changes.items():
        index = _index(addons, name)
        if index is None:
            message = f'the overlay changes "{name}", which the base does not list'
            hint = nearest(name, [addon_name(a) for a in addons])
            problems.append(source.problem("unknown_addon", message, (*at, "addons", name), hint))
        else:
            addons[index] = merge(addons[index], change)


def _insert_addons(
    addons: list[dict[str, Any]],
    paths: list[KeyPath],
    extras: list[dict[str, Any]],
    place: tuple[KeyPath, SourceMap, list[Problem]],
) -> None:
    """`[[deployments.X.addon]]`: further addons, at the end or `after` another."""
    at, source, problems = place
    for number, extra in enumerate(extras):
        here: KeyPath = (*at, "addon", number)
        after = extra.pop("after", None)
        index = len(addons) - 1 if after is None else _index(addons, after)
        if index is None:
            message = f'no addon is named "{after}"'
            problems.append(source.problem("unknown_addon", message, (*here, "after")))
            continue
        addons.insert(index + 1, extra)
        paths.insert(index + 1, here)


def policy_name(file: str) -> str:
    """What a policy file's addon is called: `policies/business_hours.py` is `business-hours`."""
    return Path(file).stem.replace("_", "-")


def addon_name(table: Mapping[str, Any]) -> str:
    """The name of an `[[addon]]`: `name`, else `use`, else what its policy file is called."""
    given = table.get("name", table.get("use"))
    return policy_name(str(table.get("file", ""))) if given is None else str(given)


def _index(addons: list[dict[str, Any]], name: str) -> int | None:
    names = [addon_name(a) for a in addons]
    return names.index(name) if name in names else None


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key, everything else is replaced."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        out[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return out


_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\$")


def expand(
    value: Any,
    env: Mapping[str, str],
    path: KeyPath,
    source: SourceMap,
    problems: list[Problem],
) -> Any:
    """Replace `${NAME}` and `${NAME:-default}` in strings; `$$` is a dollar sign."""
    if isinstance(value, dict):
        if "if_env" in value and not env.get(str(value["if_env"])):
            return value  # not on: its variables need not be set
        return {k: expand(v, env, (*path, k), source, problems) for k, v in value.items()}
    if isinstance(value, list):
        return [expand(v, env, (*path, i), source, problems) for i, v in enumerate(value)]
    if not isinstance(value, str) or "$" not in value:
        return value

    def put(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        found = env.get(match[1])
        if not found and match[2] is not None:
            return match[2]
        if found is None:
            problems.append(source.problem("unset_variable", f"${{{match[1]}}} is not set", path))
        return found or ""

    return _VARIABLE.sub(put, value)


def unknown_keys(
    table: object,
    known: tuple[str, ...],
    path: KeyPath,
    source: SourceMap,
    problems: list[Problem],
) -> None:
    """Note each key of `table` that is not `known`."""
    if not isinstance(table, dict):
        problems.append(source.problem("invalid_value", "this must be a table", path))
        return
    for key in table:
        if key not in known:
            problems.append(
                source.problem(
                    "unknown_key", f"unknown key `{key}`", (*path, key), nearest(key, known)
                )
            )
