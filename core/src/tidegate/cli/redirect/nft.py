"""A plan as an nftables script: one table of our own, replaced in one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .plan import Network, Plan

TABLE: Final = "inet tidegate"
REMOVE: Final = f"table {TABLE}\ndelete table {TABLE}\n"
"""Declared first, so that there is something to delete: right whether or not it is there."""

PRIORITY: Final = -100
"""That of destination NAT."""


def render(plan: Plan, cgroup_root: str = "") -> str:
    """The script. `cgroup_root`: where cgroup v2 is mounted, below /sys/fs/cgroup."""
    lines = [REMOVE + f"table {TABLE} {{"]
    if plan.local:
        rules = [*_own(plan), *_exceptions(plan), *_redirects(plan, _local(plan, cgroup_root))]
        lines += _chain("output", rules)
    if plan.forwarded:
        rules = [*_exceptions(plan), *_redirects(plan, _forwarded(plan))]
        lines += _chain("prerouting", rules)
    return "\n".join([*lines, "}", ""])


def _chain(hook: str, rules: list[str]) -> list[str]:
    head = f"type nat hook {hook} priority {PRIORITY}; policy accept;"
    return [f"\tchain {hook} {{", *(f"\t\t{line}" for line in (head, *rules)), "\t}"]


def _own(plan: Plan) -> Iterator[str]:
    if plan.gateway_uid is not None:
        yield f"meta skuid {plan.gateway_uid} return"
    if plan.gateway_mark is not None:
        yield f"meta mark {plan.gateway_mark:#010x} return"


def _exceptions(plan: Plan) -> Iterator[str]:
    yield "fib daddr type local return"
    for network in plan.excepted:
        yield f"{_ip(network)} daddr {network} return"


def _ip(network: Network) -> str:
    return "ip" if network.version == 4 else "ip6"


def _local(plan: Plan, cgroup_root: str) -> Iterator[tuple[str, Network | None]]:
    if plan.everyone:
        yield "", None
        return
    for uid in plan.uids:
        yield f"meta skuid {uid} ", None
    for gid in plan.gids:
        yield f"meta skgid {gid} ", None
    for path in plan.cgroups:
        yield f'socket cgroupv2 level {path.count("/") + 1} "{cgroup_root}{path}" ', None


def _forwarded(plan: Plan) -> Iterator[tuple[str, Network | None]]:
    for interface, source in plan.forwarded:
        match = f'iifname "{interface}" ' if interface else ""
        if source is not None:
            match += f"{_ip(source)} saddr {source} "
        yield match, source


def _redirects(plan: Plan, matches: Iterator[tuple[str, Network | None]]) -> Iterator[str]:
    ports = ", ".join(map(str, plan.ports))
    both = len(plan.to) == 2 and len(set(plan.to.values())) == 1
    for match, source in matches:
        for version, port in sorted(plan.to.items()):
            if source is not None and source.version != version:
                continue
            if both and source is None and version == 6:
                continue  # the rule without a version serves both
            family = "" if both or source is not None else f"meta nfproto ipv{version} "
            yield f"{family}{match}tcp dport {{ {ports} }} counter redirect to :{port}"
