"""What to redirect: the options of the command line, checked."""

from __future__ import annotations

import grp
import pwd
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from tidegate.runtime.problems import ConfigError, Problem

SSH: Final = 22
MAX_PORTS: Final = 15
"""What one multiport match of iptables holds."""

type Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Plan:
    """Which TCP connections go to the gateway.

    Local programs: those of `uids`, `gids` or `cgroups`, or `everyone`; never those of the
    gateway itself. Forwarded ones: those that come in by `interfaces` and from `sources` (where
    both are given: both must hold). Never those to an address of this machine or in `excepted`.
    """

    ports: tuple[int, ...]
    to: dict[int, int]
    """IP version (4, 6) to the gateway's port; a version that is missing is not redirected."""
    uids: tuple[int, ...] = ()
    gids: tuple[int, ...] = ()
    cgroups: tuple[str, ...] = ()
    """Relative to the root of cgroup v2."""
    everyone: bool = False
    interfaces: tuple[str, ...] = ()
    sources: tuple[Network, ...] = ()
    excepted: tuple[Network, ...] = ()
    """Destinations that are left alone."""
    gateway_uid: int | None = None
    gateway_mark: int | None = None

    @property
    def local(self) -> bool:
        """Whether programs of this machine are meant."""
        return bool(self.uids or self.gids or self.cgroups or self.everyone)

    @property
    def forwarded(self) -> list[tuple[str | None, Network | None]]:
        """Interface and source of what is redirected on its way through."""
        if not self.interfaces and not self.sources:
            return []
        interfaces: tuple[str | None, ...] = self.interfaces or (None,)
        sources: tuple[Network | None, ...] = self.sources or (None,)
        return [(interface, source) for interface in interfaces for source in sources]


def make_plan(
    *,
    ports: Iterable[int],
    to: Iterable[str],
    uid: Iterable[str] = (),
    gid: Iterable[str] = (),
    cgroup: Iterable[str] = (),
    everyone: bool = False,
    interface: Iterable[str] = (),
    source: Iterable[str] = (),
    excepted: Iterable[str] = (),
    gateway_uid: str = "",
    gateway_mark: str = "",
) -> Plan:
    """A plan, or ConfigError: `redirect_option`, or `redirect_loop` where it would feed itself."""
    targets, loopback = _targets(tuple(to))
    plan = Plan(
        ports=_ports(tuple(ports), set(targets.values())),
        to=targets,
        uids=tuple(dict.fromkeys(_id("--uid", name, _uid) for name in uid)),
        gids=tuple(dict.fromkeys(_id("--gid", name, _gid) for name in gid)),
        cgroups=tuple(dict.fromkeys(map(_cgroup, cgroup))),
        everyone=everyone,
        interfaces=tuple(dict.fromkeys(map(_interface, interface))),
        sources=tuple(dict.fromkeys(_network("--source", text) for text in source)),
        excepted=tuple(dict.fromkeys(_network("--except", text) for text in excepted)),
        gateway_uid=_id("--gateway-uid", gateway_uid, _uid) if gateway_uid else None,
        gateway_mark=_mark(gateway_mark) if gateway_mark else None,
    )
    _check(plan, loopback)
    return plan


def refused(message: str, hint: str = "", code: str = "redirect_option") -> ConfigError:
    """Options that can't be used."""
    return ConfigError(Problem(code, message, hint=hint))


def _check(plan: Plan, loopback: bool) -> None:
    if not plan.local and not plan.forwarded:
        hint = "--uid, --gid, --cgroup, --everyone, --interface or --source"
        raise refused("nothing to redirect is named", hint)
    if plan.forwarded and loopback:
        text = "--to: a loopback address can't take what comes in by --interface or --source"
        raise refused(text, "--to :PORT, with the gateway on 0.0.0.0 and [::]")
    for network in plan.sources:
        if network.version not in plan.to:
            raise refused(f"--source {network}: no --to for IPv{network.version}")
    if not plan.local:
        return
    if plan.gateway_uid is None and plan.gateway_mark is None:
        text = "the gateway's own connections would come back to it"
        raise refused(text, "--gateway-uid: the user who runs it", "redirect_loop")
    if plan.gateway_uid in plan.uids:
        raise refused("--uid names the gateway's own user", code="redirect_loop")


def _ports(ports: tuple[int, ...], own: set[int]) -> tuple[int, ...]:
    unique = tuple(sorted(set(ports)))
    if not 1 <= len(unique) <= MAX_PORTS:
        raise refused(f"--port: from 1 to {MAX_PORTS} of them")
    for port in unique:
        _port("--port", port)
        if port == SSH:
            raise refused("--port 22: SSH is never redirected")
        if port in own:
            raise refused(f"--port {port}: is the gateway's own port", code="redirect_loop")
    return unique


def _port(flag: str, port: int) -> int:
    if not 1 <= port <= 65535:
        raise refused(f"{flag} {port}: not a port")
    return port


def _targets(values: tuple[str, ...]) -> tuple[dict[int, int], bool]:
    """Port by IP version, and whether one of the addresses is a loopback address."""
    out: dict[int, int] = {}
    loopback = False
    for value in values:
        host, _, digits = value.rpartition(":")
        if not re.fullmatch(r"[0-9]{1,5}", digits):
            raise refused(f"--to {value!r}: not an address", "such as 127.0.0.1:8081 or :8081")
        versions: tuple[int, ...] = (4, 6)
        if host:
            try:
                address = ip_address(host.removeprefix("[").removesuffix("]"))
            except ValueError:
                raise refused(f"--to {value!r}: the host must be an IP address") from None
            if not address.is_loopback and not address.is_unspecified:
                # Only the kernel that rewrote the address can tell the gateway the first one.
                hint = "127.0.0.1, [::1], or none: the gateway is on this machine"
                raise refused(f"--to {value!r}: neither a loopback address nor any", hint)
            versions = (address.version,)
            loopback = loopback or address.is_loopback
        for version in versions:
            if out.setdefault(version, int(digits)) != int(digits):
                raise refused(f"--to: two ports for IPv{version}")
    for port in out.values():
        _port("--to", port)
    return out, loopback


def _id(flag: str, name: str, look_up: Callable[[str], int]) -> int:
    try:
        number = int(name) if name.isascii() and name.isdigit() else look_up(name)
    except KeyError:
        raise refused(f"{flag} {name!r}: there is no such name here") from None
    if not 0 <= number < 2**32 - 1:
        raise refused(f"{flag} {name}: out of range")
    return number


def _uid(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def _gid(name: str) -> int:
    return grp.getgrnam(name).gr_gid


def _cgroup(path: str) -> str:
    path = path.removeprefix("/sys/fs/cgroup").strip("/")
    parts = path.split("/")
    if not re.fullmatch(r"[A-Za-z0-9_.:@/-]+", path) or {"", ".", ".."} & set(parts):
        raise refused(f"--cgroup {path!r}: not a path below the root of cgroup v2")
    return path


def _interface(name: str) -> str:
    # No wildcards: + is one in iptables, * in nftables.
    if not re.fullmatch(r"[A-Za-z0-9_.@-]{1,15}", name):
        raise refused(f"--interface {name!r}: not a name of an interface")
    return name


def _network(flag: str, text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise refused(f"{flag} {text!r}: {error}", "such as 10.0.0.0/8 or fd00::/8") from None


def _mark(text: str) -> int:
    try:
        mark = int(text, 0)
    except ValueError:
        mark = 0
    if not 1 <= mark < 2**32:
        raise refused(f"--gateway-mark {text!r}: from 1 to 0xffffffff")
    return mark
