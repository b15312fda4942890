"""`[[intercept]]`: modes, names, host lists."""

from __future__ import annotations

import pytest

from tidegate.runtime.intercepts import Intercept, matcher
from tidegate.runtime.problems import ConfigError
from tidegate.runtime.settings import parse


@pytest.mark.parametrize(
    ("mode", "kind", "addresses"),
    [
        ("transparent@8081", "transparent", (("0.0.0.0", 8081), ("::", 8081))),
        ("regular@127.0.0.1:3128", "regular", (("127.0.0.1", 3128),)),
        ("socks5@[::1]:1080", "socks5", (("::1", 1080),)),
        ("reverse:https://a.test:444@8443", "reverse", (("0.0.0.0", 8443), ("::", 8443))),
        ("reverse:http3://a.test@8443", "reverse", ()),  # on UDP, which no two workers share
        ("wireguard:/keys@51820", "wireguard", ()),
        ("tun", "tun", ()),
    ],
)
def test_a_mode_says_where_it_listens(
    mode: str, kind: str, addresses: tuple[tuple[str, int], ...]
) -> None:
    intercept = Intercept(mode=mode)
    assert (intercept.kind, intercept.addresses) == (kind, addresses)


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ('mode = "transparent"', "invalid_value"),
        ('mode = "transparent@x"', "invalid_value"),
        ('mode = "transparent@70000"', "invalid_value"),
        ('mode = "gateway:x@8081"', "invalid_value"),
        ('mode = "reverse:quic://a.test@8443"', "invalid_value"),
        ('mode = "upstream:http3://a.test@8443"', "invalid_value"),
        ('mode = "upstream:socks5://a.test:1080@8443"', "invalid_value"),
        ('mode = "regular@1"\nraw_ports = [0]', "invalid_value"),
        ('mode = "regular@1"\nallow_hosts = ["https://a.test"]', "invalid_value"),
        ('mode = "regular@1"\nallow_hosts = ["a.*.test"]', "invalid_value"),
        ('mode = "regular@1"\nname = "gateway"', "duplicate_listener"),
        ('mode = "regular@1"\n[[intercept]]\nmode = "regular@1"', "duplicate_listener"),
    ],
)
def test_what_can_not_be_is_refused(lines: str, code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f"[[intercept]]\n{lines}\n")
    assert [problem.code for problem in caught.value.problems] == [code]


def test_intercepts_are_named_after_their_modes() -> None:
    settings = parse(
        '[[intercept]]\nmode = "regular@1"\n[[intercept]]\nmode = "regular@2"\n'
        '[[intercept]]\nmode = "transparent@3"\n[[intercept]]\nmode = "socks5@4"\nname = "s"\n'
    )
    assert [x.name for x in settings.intercepts] == ["regular", "regular-2", "transparent", "s"]


@pytest.mark.parametrize(
    ("hosts", "name", "expected"),
    [
        ((), "a.test", False),
        (("a.test",), "a.test", True),
        (("a.test",), "b.a.test", False),
        (("*.a.test",), "b.a.test", True),
        (("*.a.test",), "c.b.a.test", True),
        (("*.a.test",), "a.test", False),
        (("*.a.test",), "xa.test", False),
        (("*",), "anything", True),
        (("10.0.0.1",), "10.0.0.1", True),
        (("*.1",), "10.0.0.1", False),
    ],
)
def test_hosts_are_matched(hosts: tuple[str, ...], name: str, expected: bool) -> None:
    assert matcher(hosts)([name]) is expected
