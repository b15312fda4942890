"""What to redirect, and the rules that it becomes."""

import json

import pytest
from typer.testing import CliRunner

from tidegate.cli.redirect import iptables, nft
from tidegate.cli.redirect.commands import app
from tidegate.cli.redirect.plan import Plan, make_plan
from tidegate.runtime.problems import ConfigError

GATEWAY = {"gateway_uid": "900"}


def plan(**options: object) -> Plan:
    return make_plan(**{"ports": [443, 80], "to": [":8081"], **options})  # type: ignore[arg-type]


PLANS: dict[str, dict[str, object]] = {
    "users": {"uid": ["1000", "1001"], **GATEWAY},
    "group and mark": {"gid": ["50"], "gateway_mark": "0x7d"},
    "cgroup": {"cgroup": ["/sys/fs/cgroup/system.slice/app.service"], **GATEWAY},
    "everyone, IPv4": {"everyone": True, "to": ["127.0.0.1:8081"], **GATEWAY},
    "two ports": {"everyone": True, "to": ["127.0.0.1:8081", "[::1]:8082"], **GATEWAY},
    "router": {"interface": ["eth1"], "source": ["10.0.0.0/8", "fd00::/8"]},
    "exceptions": {"source": ["10.0.0.0/8"], "excepted": ["10.96.0.0/12", "fd00::/8"]},
}

NFT = {
    "users": """
	chain output {
		type nat hook output priority -100; policy accept;
		meta skuid 900 return
		fib daddr type local return
		meta skuid 1000 tcp dport { 80, 443 } counter redirect to :8081
		meta skuid 1001 tcp dport { 80, 443 } counter redirect to :8081
	}""",
    "group and mark": """
	chain output {
		type nat hook output priority -100; policy accept;
		meta mark 0x0000007d return
		fib daddr type local return
		meta skgid 50 tcp dport { 80, 443 } counter redirect to :8081
	}""",
    "cgroup": """
	chain output {
		type nat hook output priority -100; policy accept;
		meta skuid 900 return
		fib daddr type local return
		socket cgroupv2 level 2 "system.slice/app.service" tcp dport { 80, 443 } counter redirect to :8081
	}""",  # noqa: E501
    "everyone, IPv4": """
	chain output {
		type nat hook output priority -100; policy accept;
		meta skuid 900 return
		fib daddr type local return
		meta nfproto ipv4 tcp dport { 80, 443 } counter redirect to :8081
	}""",
    "two ports": """
	chain output {
		type nat hook output priority -100; policy accept;
		meta skuid 900 return
		fib daddr type local return
		meta nfproto ipv4 tcp dport { 80, 443 } counter redirect to :8081
		meta nfproto ipv6 tcp dport { 80, 443 } counter redirect to :8082
	}""",
    "router": """
	chain prerouting {
		type nat hook prerouting priority -100; policy accept;
		fib daddr type local return
		iifname "eth1" ip saddr 10.0.0.0/8 tcp dport { 80, 443 } counter redirect to :8081
		iifname "eth1" ip6 saddr fd00::/8 tcp dport { 80, 443 } counter redirect to :8081
	}""",
    "exceptions": """
	chain prerouting {
		type nat hook prerouting priority -100; policy accept;
		fib daddr type local return
		ip daddr 10.96.0.0/12 return
		ip6 daddr fd00::/8 return
		ip saddr 10.0.0.0/8 tcp dport { 80, 443 } counter redirect to :8081
	}""",
}

OUTPUT = "\n:TIDEGATE_OUTPUT - [0:0]\n"
LOCAL = "-A TIDEGATE_OUTPUT -m addrtype --dst-type LOCAL -j RETURN\n"
UID = f"{OUTPUT}-A TIDEGATE_OUTPUT -m owner --uid-owner 900 -j RETURN\n{LOCAL}"
TCP = "-p tcp -m multiport --dports 80,443"
COMMENT = '-p tcp -m comment --comment "tidegate redirect (nat table made)"'
JUMP = f"-I OUTPUT 1 {COMMENT} -j TIDEGATE_OUTPUT"
TO = "-j REDIRECT --to-ports 8081\n"
IPTABLES = {
    "users": (
        f"{UID}-A TIDEGATE_OUTPUT {TCP} -m owner --uid-owner 1000 {TO}"
        f"-A TIDEGATE_OUTPUT {TCP} -m owner --uid-owner 1001 {TO}{JUMP}",
    )
    * 2,
    "group and mark": (
        f"{OUTPUT}-A TIDEGATE_OUTPUT -m mark --mark 0x7d -j RETURN\n{LOCAL}"
        f"-A TIDEGATE_OUTPUT {TCP} -m owner --gid-owner 50 {TO}{JUMP}",
    )
    * 2,
    "cgroup": (
        f'{UID}-A TIDEGATE_OUTPUT {TCP} -m cgroup --path "system.slice/app.service" {TO}{JUMP}',
    )
    * 2,
    "everyone, IPv4": (f"{UID}-A TIDEGATE_OUTPUT {TCP} {TO}{JUMP}", ""),
    "two ports": (
        f"{UID}-A TIDEGATE_OUTPUT {TCP} {TO}{JUMP}",
        f"{UID}-A TIDEGATE_OUTPUT {TCP} {TO}{JUMP}".replace("8081", "8082"),
    ),
    "router": tuple(
        f"{OUTPUT}{LOCAL}-A TIDEGATE_OUTPUT {TCP} -i eth1 -s {source} {TO}{JUMP}".replace(
            "OUTPUT", "PREROUTING"
        )
        for source in ("10.0.0.0/8", "fd00::/8")
    ),
    "exceptions": (
        f"{OUTPUT}{LOCAL}-A TIDEGATE_OUTPUT -d 10.96.0.0/12 -j RETURN\n"
        f"-A TIDEGATE_OUTPUT {TCP} -s 10.0.0.0/8 {TO}{JUMP}".replace("OUTPUT", "PREROUTING"),
        "",
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_as_nftables(name: str) -> None:
    head = "table inet tidegate\ndelete table inet tidegate\ntable inet tidegate {"
    assert nft.render(plan(**PLANS[name])) == f"{head}{NFT[name]}\n}}\n"


def test_nftables_finds_a_cgroup_where_cgroup_v2_is_mounted() -> None:
    text = nft.render(plan(**PLANS["cgroup"]), "unified/")
    assert 'level 2 "unified/system.slice/app.service"' in text


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("version", [4, 6])
def test_a_plan_as_iptables(name: str, version: int) -> None:
    wanted = IPTABLES[name][version == 6]
    text = iptables.render(plan(**PLANS[name]), version, "")
    assert text == (f"*nat{wanted}\nCOMMIT\n" if wanted else "")


SAVED = """*filter
:INPUT ACCEPT [0:0]
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:TIDEGATE_OUTPUT - [0:0]
-A OUTPUT -p tcp -m comment --comment "tidegate redirect" -j TIDEGATE_OUTPUT
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A TIDEGATE_OUTPUT -p tcp -m multiport --dports 443 -j REDIRECT --to-ports 8081
COMMIT
"""


def test_iptables_replaces_what_is_there_in_one_commit() -> None:
    text = iptables.render(plan(**PLANS["router"]), 4, SAVED)
    assert text.splitlines() == [
        "*nat",
        ":TIDEGATE_PREROUTING - [0:0]",
        '-D OUTPUT -p tcp -m comment --comment "tidegate redirect" -j TIDEGATE_OUTPUT',
        "-F TIDEGATE_OUTPUT",
        "-X TIDEGATE_OUTPUT",
        "-A TIDEGATE_PREROUTING -m addrtype --dst-type LOCAL -j RETURN",
        f"-A TIDEGATE_PREROUTING {TCP} -i eth1 -s 10.0.0.0/8 -j REDIRECT --to-ports 8081",
        '-I PREROUTING 1 -p tcp -m comment --comment "tidegate redirect" -j TIDEGATE_PREROUTING',
        "COMMIT",
    ]


def test_iptables_removes_its_own_and_leaves_what_others_put_there() -> None:
    assert iptables.render(None, 4, SAVED).splitlines() == [
        "*nat",
        '-D OUTPUT -p tcp -m comment --comment "tidegate redirect" -j TIDEGATE_OUTPUT',
        "-F TIDEGATE_OUTPUT",
        "-X TIDEGATE_OUTPUT",
        "COMMIT",
    ]
    assert not iptables.table_is_ours(SAVED)
    assert not iptables.table_is_ours(SAVED.replace('redirect"', 'redirect (nat table made)"'))
    assert iptables.render(None, 4, "*filter\nCOMMIT\n") == ""


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({}, "redirect_option", "nothing to redirect"),
        ({"uid": ["1"]}, "redirect_loop", "--gateway-uid"),
        ({"uid": ["900"], **GATEWAY}, "redirect_loop", "own user"),
        ({"ports": [443, 8081], "everyone": True, **GATEWAY}, "redirect_loop", "own port"),
        ({"ports": [22], "everyone": True, **GATEWAY}, "redirect_option", "SSH"),
        ({"ports": [], "everyone": True, **GATEWAY}, "redirect_option", "--port"),
        ({"ports": range(100, 116), "everyone": True, **GATEWAY}, "redirect_option", "--port"),
        ({"ports": [65536], "everyone": True, **GATEWAY}, "redirect_option", "65536"),
        ({"ports": [0], "everyone": True, **GATEWAY}, "redirect_option", "--port 0"),
        ({"to": ["192.0.2.1:8081"], "interface": ["a"]}, "redirect_option", "this machine"),
        ({"to": ["localhost:8081"], "interface": ["a"]}, "redirect_option", "IP address"),
        ({"to": ["8081x"], "interface": ["a"]}, "redirect_option", "not an address"),
        ({"to": [":0"], "interface": ["a"]}, "redirect_option", "--to 0"),
        ({"to": [":1", "[::]:2"], "interface": ["a"]}, "redirect_option", "two ports"),
        ({"to": ["127.0.0.1:8081"], "interface": ["a"]}, "redirect_option", "loopback"),
        ({"to": ["0.0.0.0:1"], "source": ["fd00::/8"]}, "redirect_option", "IPv6"),
        ({"interface": ["eth+"]}, "redirect_option", "interface"),
        ({"interface": ['a" accept']}, "redirect_option", "interface"),
        ({"source": ["10.0.0.1/8"]}, "redirect_option", "host bits"),
        ({"interface": ["a"], "excepted": ["x"]}, "redirect_option", "--except"),
        ({"uid": ["no-such-user"], **GATEWAY}, "redirect_option", "no such name"),
        ({"uid": ["4294967295"], **GATEWAY}, "redirect_option", "out of range"),
        ({"cgroup": ["../x"], **GATEWAY}, "redirect_option", "cgroup"),
        ({"cgroup": ['x" accept'], **GATEWAY}, "redirect_option", "cgroup"),
        ({"cgroup": ["/"], **GATEWAY}, "redirect_option", "cgroup"),
        ({"everyone": True, "gateway_mark": "0"}, "redirect_option", "mark"),
    ],
)
def test_what_can_not_be_right_is_refused(
    options: dict[str, object], code: str, words: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        plan(**options)
    assert refused.value.problems[0].code == code
    assert words in str(refused.value)


def test_names_of_users_and_groups_are_looked_up() -> None:
    found = plan(uid=["daemon"], gid=["daemon"], gateway_uid="root")
    assert (found.uids, found.gids, found.gateway_uid) == ((1,), (1,), 0)


def test_print_shows_what_apply_would_run_and_warns_of_what_is_left_out() -> None:
    argv = ["print", "--port", "443", "--everyone", "--gateway-uid", "900", "--json"]
    argv += ["--backend", "nft", "--to", "127.0.0.1:8081"]
    result = CliRunner().invoke(app, argv, catch_exceptions=False)
    shown = json.loads(result.stdout)
    [command] = shown["commands"]
    assert command["argv"] == ["nft", "-f", "-"]
    assert "redirect to :8081" in command["stdin"]
    assert "IPv6 is not redirected" in result.stderr
