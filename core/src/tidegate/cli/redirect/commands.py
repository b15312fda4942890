"""The verbs of `tidegate redirect`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from .host import Host
    from .plan import Plan

app = typer.Typer(
    no_args_is_help=True,
    help="Send connections of programs that know of no proxy to the gateway (Linux).",
    epilog="One redirect per network namespace: apply replaces what is there.",
)

type Act = Callable[[Host, Plan, str, bool], None]
Names = list[str] | None

Port = Annotated[list[int], typer.Option(help="Destination port. May be repeated.")]
To = Annotated[
    Names,
    typer.Option(
        help="The gateway: 127.0.0.1:PORT (IPv4), [::1]:PORT (IPv6), :PORT. Default: :8081."
    ),
]
Uid = Annotated[Names, typer.Option(help="Programs of this user.")]
Gid = Annotated[Names, typer.Option(help="Programs of this group.")]
Cgroup = Annotated[Names, typer.Option(help="Programs of this cgroup (v2).")]
Everyone = Annotated[
    bool, typer.Option("--everyone", help="All programs here: for a pod or container.")
]
Interface = Annotated[Names, typer.Option(help="What comes in here (a router).")]
Source = Annotated[Names, typer.Option(help="What comes from this network.")]
Excepted = Annotated[
    Names, typer.Option("--except", help="Destination network that is left alone.")
]
GatewayUid = Annotated[str, typer.Option(help="Who runs the gateway: left alone.")]
GatewayMark = Annotated[str, typer.Option(help="SO_MARK of the gateway's sockets.")]
Netns = Annotated[
    str, typer.Option(help="A network namespace: a name of `ip netns`, pid:N, or a path.")
]
Backend = Annotated[str, typer.Option(help="auto, nft or iptables.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def verb(act: Act) -> Callable[..., None]:
    """A command that takes a plan."""

    def command(
        port: Port,
        to: To = None,
        uid: Uid = None,
        gid: Gid = None,
        cgroup: Cgroup = None,
        everyone: Everyone = False,
        interface: Interface = None,
        source: Source = None,
        excepted: Excepted = None,
        gateway_uid: GatewayUid = "",
        gateway_mark: GatewayMark = "",
        netns: Netns = "",
        backend: Backend = "auto",
        json: AsJson = False,
    ) -> None:
        from .plan import make_plan

        programs = uid or gid or cgroup or interface or source
        plan = make_plan(
            ports=port,
            to=to or [":8081"],
            uid=uid or (),
            gid=gid or (),
            cgroup=cgroup or (),
            everyone=everyone or bool(netns and not programs),
            interface=interface or (),
            source=source or (),
            excepted=excepted or (),
            gateway_uid=gateway_uid,
            gateway_mark=gateway_mark,
        )
        run(act, plan, netns, backend, json)

    return command


def run(act: Act, plan: Plan, netns: str, backend: str, as_json: bool) -> None:
    """Do it, and say what is left out."""
    from .host import BACKENDS, Host

    if backend not in BACKENDS:
        text = f"{backend!r} is not one of {', '.join(BACKENDS)}"
        raise typer.BadParameter(text, param_hint="--backend")
    act(Host(netns), plan, backend, as_json)
    for version in sorted({4, 6} - plan.to.keys()):
        print(f"note: IPv{version} is not redirected: there is no --to for it", file=sys.stderr)


def show(host: Host, plan: Plan, backend: str, as_json: bool) -> None:
    """Print what `apply` would do, and do nothing."""
    only_iptables = host.has("iptables") and not host.has("nft")
    chosen = backend if backend != "auto" else "iptables" if only_iptables else "nft"
    commands = host.commands(plan, chosen, dry=True)
    if as_json:
        rows = [{"argv": c.argv, "stdin": c.stdin} for c in commands]
        print_json({"backend": chosen, "netns": host.netns or None, "commands": rows})
        return
    for command in commands:
        print(f"# {' '.join(command.argv)}\n{command.stdin}", end="")


def apply(host: Host, plan: Plan, backend: str, as_json: bool) -> None:
    """Put a redirect in place of the one that is there."""
    chosen = host.backend(backend)
    host.apply(plan, chosen)
    report(host, as_json)


app.command(
    "print", help=show.__doc__, epilog="Example: tidegate redirect print --port 443 --everyone "
    "--gateway-uid tidegate",
)(verb(show))  # fmt: skip
app.command(
    "apply", help=apply.__doc__, epilog="Example: tidegate redirect apply --port 443 --port 80 "
    "--uid app --gateway-uid tidegate --to :8081",
)(verb(apply))  # fmt: skip


@app.command()
def remove(netns: Netns = "", json: AsJson = False) -> None:
    """Take the redirect away, whoever put it there; right to repeat, also after a crash."""
    from .host import Host

    removed = Host(netns).remove()
    if json:
        print_json({"removed": removed})
    else:
        print("removed" if removed else "nothing to remove")


@app.command(epilog="Exit status: 0 where a redirect is in place, 1 where none is.")
def status(netns: Netns = "", json: AsJson = False) -> None:
    """Say what is in place."""
    from .host import Host

    if not report(Host(netns), json):
        raise typer.Exit(1)


def report(host: Host, as_json: bool) -> bool:
    """Print what is in place; whether something is."""
    rules = host.rules()
    if as_json:
        print_json({"applied": bool(rules), "netns": host.netns or None, "rules": rules})
    elif not rules:
        print("no redirect")
    else:
        for tool, lines in rules.items():
            print("\n".join(f"{tool}: {line}" for line in lines))
    return bool(rules)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    import orjson

    print(orjson.dumps(value).decode())
