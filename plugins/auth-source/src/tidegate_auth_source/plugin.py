"""The addon: which source an exchange comes from."""

from __future__ import annotations

import ipaddress
import pwd
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, field_validator, model_validator

from tidegate.api import AddonConfig, AddonContext, Client, Exchange, Model, Plugin, Principal, hook

from .owner import Owner, Unknown, cgroup_numbers, cgroup_root, owner_of

KEPT: Final = 1024
"""Connections whose owner is remembered, for as long as they last."""
FRESH: Final = 1.0
"""Seconds for which the list of a cgroup's members is believed."""

type Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Source(Model):
    """One source, and who it is. All that is given must match.

    `addresses` are addresses and networks. `users` are names and numbers, `cgroups` paths below
    the root of cgroup v2 (what is below them counts): of the process at the other end, which is
    on the same machine and in the same network namespace.
    """

    name: str = Field(min_length=1)
    team: str = ""
    addresses: tuple[str, ...] = ()
    users: tuple[Annotated[str | int, Field(union_mode="left_to_right")], ...] = ()
    cgroups: tuple[str, ...] = ()

    @field_validator("addresses")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ipaddress.ip_network(network)
        return value

    @model_validator(mode="after")
    def _something(self) -> Source:
        if not (self.addresses or self.users or self.cgroups):
            raise ValueError("give `addresses`, `users` or `cgroups`")
        return self


class AuthSourceConfig(AddonConfig):
    """The options. The first source that matches counts."""

    sources: tuple[Source, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class _Rule:
    principal: Principal
    networks: tuple[Network, ...]
    uids: frozenset[int]
    cgroups: tuple[str, ...]

    @property
    def asks_owner(self) -> bool:
        return bool(self.uids or self.cgroups)


class AuthSource(Plugin[AuthSourceConfig]):
    """Authenticates by the address of the client, or by the process that it is."""

    Config = AuthSourceConfig

    def __init__(self, config: AuthSourceConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        self._rules = tuple(map(_rule, config.sources))
        self._owners: OrderedDict[int, tuple[Client, Owner | None]] = OrderedDict()
        self._members: dict[str, tuple[float, frozenset[int]]] = {}
        self._root: Path | None = None
        if any(rule.cgroups for rule in self._rules):
            self._root = cgroup_root()
            if self._root is None:
                raise ValueError("`cgroups` needs cgroup v2, which is not mounted here")

    @hook
    def authenticate(self, exchange: Exchange) -> Principal | None:
        """The principal of the first source that matches."""
        address = ipaddress.ip_address(exchange.client.address.partition("%")[0])
        for rule in self._rules:
            if rule.networks and not any(address in network for network in rule.networks):
                continue
            if not rule.asks_owner or self._owned(exchange.client, rule):
                return rule.principal
        return None

    def _owned(self, client: Client, rule: _Rule) -> bool:
        if client.address != client.peer:
            return False  # behind a proxy: what is at the other end is the proxy
        owner = self._owner(client)
        if owner is None or (rule.uids and owner.uid not in rule.uids):
            return False
        return not rule.cgroups or any(self._within(owner, path) for path in rule.cgroups)

    def _owner(self, client: Client) -> Owner | None:
        """Who opened a connection, asked once: all its exchanges have the same client object."""
        known = self._owners.get(id(client))
        if known is not None and known[0] is client:
            return known[1]
        try:
            owner = owner_of(client.peer, client.port)
        except Unknown as reason:
            self.context.counters.add("unknown_owner_total")
            self.context.log.warning("%s", reason)
            owner = None
        self._owners[id(client)] = (client, owner)
        if len(self._owners) > KEPT:
            self._owners.popitem(last=False)
        return owner

    def _within(self, owner: Owner, path: str) -> bool:
        """Whether a process is in a cgroup, by a list that is made anew when it is not on it."""
        assert self._root is not None
        made, numbers = self._members.get(path, (0.0, frozenset()))
        if owner.cgroup not in numbers and time.monotonic() - made > FRESH:
            numbers = cgroup_numbers(self._root, path)
            self._members[path] = (time.monotonic(), numbers)
        return owner.cgroup in numbers


def _rule(source: Source) -> _Rule:
    return _Rule(
        Principal(source.name, source.team),
        tuple(ipaddress.ip_network(network) for network in source.addresses),
        frozenset(map(_uid, source.users)),
        source.cgroups,
    )


def _uid(user: str | int) -> int:
    if isinstance(user, int) or user.isdigit():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise ValueError(f"there is no user {user!r} here") from None
