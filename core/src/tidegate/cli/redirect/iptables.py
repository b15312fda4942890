"""A plan as input of iptables-restore: chains of our own, and a jump to each.

Everything of ours is found by the chains' names, in what iptables-save prints.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .plan import Plan

CHAINS: Final = {"OUTPUT": "TIDEGATE_OUTPUT", "PREROUTING": "TIDEGATE_PREROUTING"}
COMMENT: Final = "tidegate redirect"
TABLE_MADE: Final = f"{COMMENT} (nat table made)"
"""On the jump: there was no nat table before, so that `remove` may take it away again."""


def render(plan: Plan | None, version: int, saved: str) -> str:
    """What changes `saved` (from iptables-save) to the plan; None: to none. "": nothing to do.

    One COMMIT: the kernel takes all of it or nothing.
    """
    rules = {hook: list(_rules(plan, version, hook)) for hook in CHAINS} if plan else {}
    wanted = {hook: found for hook, found in rules.items() if found}
    present = nat_lines(saved)
    jumps = [line for line in present if line.startswith("-A ") and _is_jump(line)]
    chains = [name for name in CHAINS.values() if any(x.startswith(f":{name} ") for x in present)]
    if not wanted and not jumps and not chains:
        return ""
    made = not present or any(TABLE_MADE in line for line in jumps)
    comment = TABLE_MADE if made else COMMENT
    kept = [CHAINS[hook] for hook in wanted]
    stale = [name for name in chains if name not in kept]
    lines = ["*nat"]
    lines += [f":{name} - [0:0]" for name in kept]  # made, or emptied
    lines += [line.replace("-A ", "-D ", 1) for line in jumps]
    lines += [f"{verb} {name}" for name in stale for verb in ("-F", "-X")]
    for hook, found in wanted.items():
        lines += [f"-A {CHAINS[hook]} {rule}" for rule in found]
    lines += [
        f'-I {hook} 1 -p tcp -m comment --comment "{comment}" -j {CHAINS[hook]}' for hook in wanted
    ]
    return "\n".join([*lines, "COMMIT", ""])


def nat_lines(saved: str) -> list[str]:
    """The lines of the nat table in what iptables-save printed; empty: there is no such table."""
    lines = saved.splitlines()
    if "*nat" not in lines:
        return []
    start = lines.index("*nat")
    return lines[start : lines.index("COMMIT", start)]


def own_rules(saved: str) -> list[str]:
    """Our rules in what iptables-save printed, jumps first."""
    lines = [line for line in nat_lines(saved) if line.startswith("-A ")]
    jumps = [line for line in lines if _is_jump(line)]
    return jumps + [line for line in lines if line.split()[1] in CHAINS.values()]


def table_is_ours(saved: str) -> bool:
    """Whether we made the nat table and nobody else uses it."""
    lines = nat_lines(saved)
    ours = set(own_rules(saved))
    others = [line for line in lines if line.startswith("-A ") and line not in ours]
    names = [line.split() for line in lines if line.startswith(":")]
    strange = [n for n in names if n[0][1:] not in CHAINS.values() and n[1] != "ACCEPT"]
    return any(TABLE_MADE in line for line in ours) and not others and not strange


def _is_jump(line: str) -> bool:
    return any(line.endswith(f" -j {name}") for name in CHAINS.values())


def _rules(plan: Plan, version: int, hook: str) -> Iterator[str]:
    port = plan.to.get(version)
    if port is None:
        return
    matches = list(_local(plan) if hook == "OUTPUT" else _forwarded(plan, version))
    if not matches:
        return
    if hook == "OUTPUT" and plan.gateway_uid is not None:
        yield f"-m owner --uid-owner {plan.gateway_uid} -j RETURN"
    if hook == "OUTPUT" and plan.gateway_mark is not None:
        yield f"-m mark --mark {plan.gateway_mark:#x} -j RETURN"
    yield "-m addrtype --dst-type LOCAL -j RETURN"
    for network in plan.excepted:
        if network.version == version:
            yield f"-d {network} -j RETURN"
    ports = ",".join(map(str, plan.ports))
    for match in matches:
        yield f"-p tcp -m multiport --dports {ports} {match}-j REDIRECT --to-ports {port}"


def _local(plan: Plan) -> Iterator[str]:
    if plan.everyone:
        yield ""
        return
    for uid in plan.uids:
        yield f"-m owner --uid-owner {uid} "
    for gid in plan.gids:
        yield f"-m owner --gid-owner {gid} "
    for path in plan.cgroups:
        yield f'-m cgroup --path "{path}" '


def _forwarded(plan: Plan, version: int) -> Iterator[str]:
    for interface, source in plan.forwarded:
        if source is None or source.version == version:
            incoming = f"-i {interface} " if interface else ""
            yield incoming + (f"-s {source} " if source is not None else "")
