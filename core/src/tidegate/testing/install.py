"""Installs a plugin into a folder, so that another process finds it by its entry point."""

from __future__ import annotations

import ast
import os
from pathlib import Path


def install_plugin(folder: Path, name: str, source: str) -> dict[str, str]:
    """Make `folder` hold an installed plugin; the environment under which it is found.

    Args:
        folder: may hold several plugins; `PYTHONPATH` names it.
        name: the entry point, such as `auth-mine`.
        source: a module's text, whose last class or assigned name is the plugin, or the path
            of a class that can be imported already: `package.module:Class`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = source
    if "\n" in source or " " in source:
        module = name.replace("-", "_") + "_plugin"
        (folder / f"{module}.py").write_text(source, encoding="utf-8")
        target = f"{module}:{_last_name(source)}"
    info = folder / f"{name.replace('-', '_')}-0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n")
    (info / "entry_points.txt").write_text(f"[tidegate.plugins]\n{name} = {target}\n")
    paths = [str(folder), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def _last_name(source: str) -> str:
    names = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            names.append(node.targets[0].id)
    if not names:
        raise ValueError("the source of a plugin defines a class")
    return names[-1]
