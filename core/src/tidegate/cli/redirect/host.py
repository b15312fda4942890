"""Runs the tools of a machine, in one of its network namespaces where asked."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tidegate.runtime.problems import ConfigError

from . import iptables, nft
from .plan import Plan, refused

FAMILIES: Final = {4: "iptables", 6: "ip6tables"}
BACKENDS: Final = ("auto", "nft", "iptables")
MOUNTS: Final = Path("/proc/self/mounts")
CGROUPS: Final = "/sys/fs/cgroup"


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run, and what it reads from standard input."""

    argv: tuple[str, ...]
    stdin: str = ""


@dataclass(frozen=True, slots=True)
class Host:
    """This machine, or one network namespace of it: a name (`ip netns`), `pid:N`, or a path."""

    netns: str = ""

    def run(self, argv: tuple[str, ...], stdin: str = "") -> str:
        """What a tool prints. Raises ConfigError `redirect_failed`, `redirect_not_permitted`."""
        done = self._start(argv, stdin)
        if done.returncode == 0:
            return done.stdout
        text = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        rights = ("Operation not permitted", "Permission denied", "must be root")
        if any(words in text for words in rights):
            hint = "needs root, or CAP_NET_ADMIN"
            raise refused(f"{argv[0]}: {text}", hint, "redirect_not_permitted")
        raise refused(f"{argv[0]}: {text}", code="redirect_failed")

    def has(self, tool: str) -> bool:
        """Whether a tool is installed."""
        return shutil.which(tool, path=_path()) is not None

    def backend(self, wanted: str) -> str:
        """`nft` or `iptables`. Raises ConfigError `redirect_no_backend`."""
        for name in ("nft", "iptables") if wanted == "auto" else (wanted,):
            if self.has(name):
                return name
        names = "nftables or iptables" if wanted == "auto" else wanted.replace("nft", "nftables")
        hint = f"apt-get install {names.partition(' ')[0]}"
        raise refused(f"{names} is not installed", hint, "redirect_no_backend")

    def commands(self, plan: Plan, backend: str, *, dry: bool = False) -> list[Command]:
        """What puts a plan in the place of the one that is there.

        `dry`: as if nothing were there, where that can't be found out. Raises ConfigError.
        """
        if backend == "nft":
            return [Command(("nft", "-f", "-"), nft.render(plan, cgroup_root()))]
        out = []
        for version, tool in FAMILIES.items():
            saved = ""
            if self.has(tool):
                with suppress(*([ConfigError] if dry else [])):
                    saved = self.run((f"{tool}-save",))
            elif version in plan.to and not dry:
                hint = "apt-get install iptables, or a --to of the other IP version only"
                raise refused(f"{tool} is not installed", hint, "redirect_no_backend")
            if text := iptables.render(plan, version, saved):
                out.append(Command((f"{tool}-restore", "--noflush"), text))
        return out

    def apply(self, plan: Plan, backend: str) -> None:
        """Put a plan in place, whole or not at all. Raises ConfigError."""
        for path in plan.cgroups:
            if not (Path(CGROUPS) / cgroup_root() / path).is_dir():
                raise refused(f"--cgroup {path!r}: there is none", f"below {CGROUPS}")
        try:
            for command in self.commands(plan, backend):
                self.run(command.argv, command.stdin)
        except ConfigError:
            if backend == "iptables":  # IPv4 may be in place already
                self._remove_iptables()
            raise
        if backend == "nft":
            self._remove_iptables()
        else:
            self._remove_nft()

    def remove(self) -> bool:
        """Take away whatever is in place, of either backend; whether there was something."""
        return any([self._remove_nft(), self._remove_iptables()])

    def rules(self) -> dict[str, list[str]]:
        """What is in place: tool to rules. Raises ConfigError."""
        out: dict[str, list[str]] = {}
        if self._nft_is_there():
            listed = self.run(("nft", "list", "table", *nft.TABLE.split())).splitlines()
            out["nft"] = [line.strip() for line in listed if line.startswith("\t\t")]
        for tool in FAMILIES.values():
            if self.has(tool) and (found := iptables.own_rules(self.run((f"{tool}-save",)))):
                out[tool] = found
        return out

    def _start(self, argv: tuple[str, ...], stdin: str) -> subprocess.CompletedProcess[str]:
        # Not `ip netns exec`: it mounts a /sys of its own, where no cgroup is found.
        enter = ("nsenter", f"--net={self._netns()}", "--") if self.netns else ()
        return subprocess.run(
            (*enter, *argv), input=stdin, capture_output=True, text=True, check=False,
            env={**os.environ, "PATH": _path(), "LC_ALL": "C"},
        )  # fmt: skip

    def _netns(self) -> Path:
        kind, _, pid = self.netns.partition(":")
        if kind == "pid" and pid.isdigit():
            path = Path(f"/proc/{pid}/ns/net")
        else:  # joining an absolute path gives that path
            path = Path("/run/netns") / self.netns
        if not path.exists():
            raise refused(f"--netns {self.netns!r}: there is none", f"looked at {path}")
        return path

    def _nft_is_there(self) -> bool:
        tables = self.run(("nft", "list", "tables")) if self.has("nft") else ""
        return f"table {nft.TABLE}" in tables.splitlines()

    def _remove_nft(self) -> bool:
        there = self._nft_is_there()
        if there:
            self.run(("nft", "-f", "-"), nft.REMOVE)
        return there

    def _remove_iptables(self) -> bool:
        """One family after the other; the nat table too, where it came with us."""
        there = False
        for version, tool in FAMILIES.items():
            saved = self.run((f"{tool}-save",)) if self.has(tool) else ""
            text = iptables.render(None, version, saved)
            if not text:
                continue
            there = True
            self.run((f"{tool}-restore", "--noflush"), text)
            on_nftables = "nf_tables" in self.run((tool, "--version"))
            if iptables.table_is_ours(saved) and on_nftables and self.has("nft"):
                self.run(("nft", "delete", "table", "ip" if version == 4 else "ip6", "nat"))
        return there


def cgroup_root() -> str:
    """Where cgroup v2 is mounted below /sys/fs/cgroup: "", or such as "unified/".

    nftables looks paths up from there, iptables from the root of cgroup v2.
    """
    for line in MOUNTS.read_text().splitlines():
        _, point, kind, *_ = line.split()
        if kind == "cgroup2" and (point + "/").startswith(CGROUPS + "/"):
            below = point[len(CGROUPS) :].strip("/")
            return f"{below}/" if below else ""
    return ""


def _path() -> str:
    """/usr/sbin, where the tools are, is not on every user's PATH."""
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
