"""`[[intercept]]`: where connections are taken over, and which of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Annotated, Any, Final, Literal

from pydantic import Field, field_validator

from tidegate.api.config import Duration, Model

TCP_MODES: Final = ("transparent", "regular", "socks5", "upstream", "reverse")
"""Modes that listen on TCP: on sockets of the supervisor, shared by all workers."""
OTHER_MODES: Final = ("wireguard", "dns", "tun", "local")
"""Modes that make their own way in: in the first worker alone."""
SCHEMES: Final = ("http", "https")
"""What `reverse:` and `upstream:` lead to."""
HTTP3: Final = "http3"
"""As `https`, with clients that speak HTTP/3: on UDP. Only of `reverse:`."""

_HOST: Final = re.compile(r"\*|(?:\*\.)?[a-z0-9_](?:[a-z0-9_.-]{0,252})|[0-9a-f:]+")

type Match = Callable[[Sequence[str]], bool]


class Intercept(Model):
    """One way in for connections whose clients know of no gateway.

    `mode` is mitmproxy's: `KIND[:DATA]@[HOST:]PORT`, such as `transparent@8081`,
    `regular@127.0.0.1:8082`, `upstream:http://proxy.example:3128@8083` or
    `reverse:https://example.com@8443`. Without HOST: all addresses, IPv4 and IPv6.

    `allow_hosts` are the hosts that are intercepted, exact or `*.example.com` (all below it) or
    `*`; by default none. `ignore_hosts` wins over it. Everything else passes untouched.
    `without_sni`: what becomes of TLS that names no host, unless its address is listed.
    `raw_tcp`: whether what is neither TLS nor HTTP passes; otherwise it is closed. `raw_ports`:
    what goes to these ports passes from the first byte, so that its server may speak first.
    `upstream_ca`: a PEM file of authorities that are believed beside the system's.
    `on_refused`: what becomes of the later connections of a client that refused the CA.
    `local`: whether an explicit proxy may be asked for addresses of this machine and link-local
    ones. `idle`: how long a connection that passes may be silent.
    """

    name: str = ""
    mode: str
    allow_hosts: tuple[str, ...] = ()
    ignore_hosts: tuple[str, ...] = ()
    without_sni: Literal["pass", "intercept"] = "pass"
    raw_tcp: bool = False
    raw_ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = ()
    upstream_ca: str | None = None
    on_refused: Literal["report", "pass"] = "report"
    local: bool = False
    idle: Duration = Field(default=3600.0, gt=0)
    force: bool = False

    @field_validator("mode")
    @classmethod
    def _mode(cls, value: str) -> str:
        known = (*TCP_MODES, *OTHER_MODES)
        kind, data = split_mode(value)[:2]
        if kind not in known:
            raise ValueError(f"{value!r}: known modes are {', '.join(known)}")
        scheme, mark, _ = data.partition("://")
        leads = (*SCHEMES, HTTP3) if kind == "reverse" else SCHEMES
        if kind in ("reverse", "upstream") and mark and scheme not in leads:
            raise ValueError(f"{value!r}: {kind} leads to http:// or https://, not {scheme}://")
        return value

    @field_validator("allow_hosts", "ignore_hosts")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        hosts = tuple(host.lower().rstrip(".").strip("[]") for host in value)
        for host in hosts:
            if not _HOST.fullmatch(host):
                raise ValueError(f'{host!r} is not a host: write "example.com", "*.example.com"')
        return hosts

    @property
    def kind(self) -> str:
        """The first word of the mode."""
        return split_mode(self.mode)[0]

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """What the supervisor listens on for it; empty: the mode sees to it itself."""
        kind, data, host, port = split_mode(self.mode)
        if kind not in TCP_MODES or data.startswith(f"{HTTP3}:"):
            return ()
        return tuple((one, port) for one in ((host,) if host else ("0.0.0.0", "::")))


def split_mode(mode: str) -> tuple[str, str, str, int]:
    """(kind, data, host, port) of a mode. ValueError says what is wrong with it."""
    head, mark, at = mode.rpartition("@")
    if not mark:
        head, at = at, ""
    kind, _, data = head.partition(":")
    if kind in ("tun", "local"):  # they listen nowhere
        return kind, data, "", 0
    host, _, port = at.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise ValueError(f'{mode!r}: a mode ends in its address: "…@8081", "…@127.0.0.1:8081"')
    return kind, data, host.strip("[]"), int(port)


def named(tables: list[Any]) -> list[Any]:
    """The tables, each with a name: its mode's kind where it has none of its own."""
    out: list[Any] = []
    for table in tables:
        if isinstance(table, dict) and not table.get("name"):
            kind = re.split("[:@]", str(table.get("mode", "")))[0] or "intercept"
            taken = sum(re.fullmatch(rf"{re.escape(kind)}(-\d+)?", t["name"]) is not None
                        for t in out if isinstance(t, dict))  # fmt: skip
            table = {**table, "name": kind if not taken else f"{kind}-{taken + 1}"}
        out.append(table)
    return out


def matcher(hosts: Sequence[str]) -> Match:
    """Whether any of some names is among the listed hosts."""
    exact = frozenset(host for host in hosts if "*" not in host)
    below = tuple(host[1:] for host in hosts if host.startswith("*."))
    everything = "*" in hosts

    def match(names: Sequence[str]) -> bool:
        return everything or any(
            name in exact or (bool(below) and name.endswith(below) and not _is_address(name))
            for name in names
        )

    return match


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
