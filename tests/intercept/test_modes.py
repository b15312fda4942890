"""Several ways in at once, each with its own addons; what is neither TLS nor HTTP; refusals."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from .network import LISTED, OTHER, V4, Network, Node, needs_network, python

pytestmark = [needs_network, pytest.mark.xdist_group("intercept-modes")]

GATEWAY = "10.7.1.1"
HELLO = "hello from the origin"
MODES = ("transparent", "regular", "socks5", "reverse", "upstream")

CONFIG = f"""
[gateway]
environment = "staging"
workers = 2
limits = {{ lag = "5s" }}
deadlines = {{ drain = "1s", keepalive = "3s" }}
listen = [{{ name = "front", address = "{GATEWAY}:8080" }}]

[[intercept]]
mode = "transparent@0"
allow_hosts = ["*.listed.test"]
on_refused = "pass"
raw_tcp = true
raw_ports = [25]
upstream_ca = "ORIGIN_CA"

[[intercept]]
mode = "regular@{GATEWAY}:3128"
allow_hosts = ["*.listed.test"]
raw_ports = [25]
upstream_ca = "ORIGIN_CA"

[[intercept]]
mode = "socks5@{GATEWAY}:1080"
allow_hosts = ["*.listed.test"]
upstream_ca = "ORIGIN_CA"

[[intercept]]
mode = "reverse:https://{LISTED}@{GATEWAY}:8443"
upstream_ca = "ORIGIN_CA"

[[intercept]]
mode = "upstream:http://{GATEWAY}:3128@{GATEWAY}:3129"
allow_hosts = ["chained.test"]
upstream_ca = "ORIGIN_CA"

[[addon]]
use = "route-static"
scope = {{ listeners = ["front"] }}
routes = [{{ path = "/", upstream = "http://{V4}" }}]

[[addon]]
use = "log-access"
""" + "".join(
    f"""
[[addon]]
use = "transform-headers"
name = "mark-{name}"
scope = {{ listeners = ["{name}"] }}
response.set = {{ x-way-in = "{name}" }}
"""
    for name in (*MODES, "front")
)


@pytest.fixture(scope="module")
def node(up: Callable[..., Node]) -> Node:
    made = up(CONFIG)
    made.redirect(25, 26, 80, 443, 9000)
    return made


@pytest.mark.parametrize(
    ("way_in", "options", "url"),
    [
        ("transparent", (), f"https://{LISTED}/modes"),
        ("regular", ("-x", f"http://{GATEWAY}:3128"), f"https://{LISTED}/modes"),
        ("regular", ("-x", f"http://{GATEWAY}:3128"), f"http://{LISTED}/modes"),
        ("socks5", ("-x", f"socks5h://{GATEWAY}:1080"), f"https://{LISTED}/modes"),
        ("socks5", ("-x", f"socks5://{GATEWAY}:1080"), f"http://{LISTED}/modes"),
        ("reverse", ("--resolve", f"{LISTED}:8443:{GATEWAY}"), f"https://{LISTED}:8443/modes"),
        ("regular", ("-x", f"http://{GATEWAY}:3129"), f"https://{LISTED}/modes"),
        ("front", (), f"http://{GATEWAY}:8080/modes"),
    ],
)
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_each_way_in_has_its_own_addons(
    network: Network, node: Node, way_in: str, options: tuple[str, ...], url: str, version: str
) -> None:
    if way_in == "front" and version == "--http2":
        pytest.skip("an upgrade of cleartext to HTTP/2 is refused on gateway listeners")
    shown = "\n%{header_json}"
    got = network.run("curl", "-sS", version, *options, "-w", shown, url, env=node.trust)
    body, _, fields = got.stdout.partition("\n")
    assert body == HELLO, got.stderr
    assert f'"x-way-in":["{way_in}"]' in fields.replace("\n", "")


HTTPX = "import httpx, sys; print(httpx.get(sys.argv[1], timeout=20).headers['x-way-in'])"
REQUESTS = "import requests, sys; print(requests.get(sys.argv[1], timeout=20).headers['x-way-in'])"
OPENAI_SDK = """
import openai, sys
client = openai.OpenAI(base_url=sys.argv[1], api_key="sk-theirs", max_retries=0)
ask = dict(model="m", messages=[{"role": "user", "content": "hi"}])
raw = client.chat.completions.with_raw_response.create(**ask)
assert raw.parse().choices[0].message.content == "ok hi"
words = [part.choices[0].delta.content for part in
         client.chat.completions.create(stream=True, **ask)]
assert words == ["ok", "hi"], words
print(raw.headers["x-way-in"])
"""
FETCH = "const r = await fetch(process.argv[1]); console.log(r.headers.get('x-way-in'))"
CLIENTS = {
    "httpx": python(HTTPX),
    "requests": python(REQUESTS),
    "openai": python(OPENAI_SDK),
    "node": ("node", "--input-type=module", "-e", FETCH),
}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("way_in", "proxy", "url"),
    [
        ("transparent", "", f"https://{LISTED}/clients"),
        ("regular", f"http://{GATEWAY}:3128", f"https://{LISTED}/clients"),
        ("regular", f"http://{GATEWAY}:3129", f"https://{LISTED}/clients"),
        ("socks5", f"socks5h://{GATEWAY}:1080", f"https://{LISTED}/clients"),
        ("reverse", "", f"https://{GATEWAY}:8443/clients"),
        ("front", "", f"http://{GATEWAY}:8080/clients"),
    ],
)
def test_unmodified_clients_by_each_way_in(
    network: Network, node: Node, client: str, way_in: str, proxy: str, url: str
) -> None:
    if client == "node":
        if shutil.which("node") is None:
            pytest.skip("apt-get install nodejs")
        if proxy:
            pytest.skip("fetch knows of no proxy before Node 24")
    if way_in == "socks5":
        needs = "socks" if client == "requests" else "socksio"
        pytest.importorskip(needs, reason="uv pip install socksio pysocks")
    env = {**node.trust, **({"HTTPS_PROXY": proxy} if proxy else {})}
    got = network.run(*CLIENTS[client], url, env=env)
    assert got.stdout == f"{way_in}\n", got.stderr


def test_a_host_that_is_not_listed_passes_every_explicit_proxy(
    network: Network, node: Node
) -> None:
    for proxy in (f"http://{GATEWAY}:3128", f"socks5h://{GATEWAY}:1080", f"http://{GATEWAY}:3129"):
        for scheme in ("https", "http"):
            got = network.run(
                "curl", "-sS", "-v", "-x", proxy, f"{scheme}://{OTHER}/passes",
                env={"CURL_CA_BUNDLE": str(network.ca)},
            )  # fmt: skip
            assert got.stdout == HELLO, got.stderr
            assert "x-way-in" not in got.stderr
    assert [line for line in node.logged if line["host"] == OTHER] == []


def test_bytes_of_another_protocol_pass_where_they_may(network: Network, node: Node) -> None:
    program = (
        "import socket\n"
        f"s = socket.create_connection(('{V4}', 9000)); s.settimeout(10)\n"
        "s.sendall(b'\\x01\\x02raw'); print(s.recv(100)); s.shutdown(1); print(s.recv(100))\n"
    )
    got = network.run("python3", "-c", program)
    assert got.stdout.splitlines() == ["b'\\x01\\x02raw'", "b''"], got.stderr


BANNER = """
import smtplib
with smtplib.SMTP({!r}, {}, timeout=20) as mail:
    print(mail.ehlo()[0], mail.docmd("NOOP")[0])
"""
TUNNELLED = """
import socket
s = socket.create_connection(({!r}, 3128)); s.settimeout(20)
s.sendall(b"CONNECT {}:{} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
got = b""
while b"ready" not in got and (data := s.recv(1000)):
    got += data
print(got.rpartition(b"\\r\\n\\r\\n")[2])
"""


def test_a_server_that_speaks_first_is_reached_by_its_port(network: Network, node: Node) -> None:
    before = node.count("passed_connections_total")
    got = network.run(*python(BANNER.format(V4, 25)))
    assert got.stdout == "250 250\n", got.stderr
    got = network.run(*python(TUNNELLED.format(GATEWAY, V4, 25)))
    assert got.stdout == "b'220 origin ready\\r\\n'\n", got.stderr
    assert node.count("passed_connections_total") == before + 2


def test_at_another_port_it_is_closed_and_told(network: Network, node: Node) -> None:
    got = network.run(*python(BANNER.format(V4, 26)))
    assert "Connection unexpectedly closed" in got.stderr
    told = (node.folder / "log").read_text()
    assert f"client 10.7.1.2 waits in silence at {V4} port 26: closed" in told


def test_a_connection_that_was_not_redirected_is_closed(network: Network, node: Node) -> None:
    port = node.ready["intercept"]["transparent"][0].rpartition(":")[2]
    got = network.run("curl", "-sS", "-m", "10", f"http://{GATEWAY}:{port}/loop")
    assert got.returncode in (52, 56), got.stderr


def test_no_proxy_leads_to_the_gateway_itself(network: Network, node: Node) -> None:
    for proxy in (f"http://{GATEWAY}:3128", f"socks5h://{GATEWAY}:1080"):
        for target in (node.ready["status"] + "/-/status", f"http://{GATEWAY}:8080/x"):
            got = network.run("curl", "-sS", "-m", "10", "-x", proxy, target)
            assert "workers" not in got.stdout
            assert HELLO not in got.stdout


def test_a_client_that_refuses_the_ca_is_told_and_passes_from_then_on(
    network: Network, node: Node
) -> None:
    url = f"https://pinned.{LISTED}/pinned"
    resolve = ("--resolve", f"pinned.{LISTED}:443:{V4}")
    env = {"CURL_CA_BUNDLE": str(network.ca)}
    for _ in range(20):  # each worker learns it by itself
        got = network.run("curl", "-sS", *resolve, url, env=env)
        if got.returncode == 0:
            break
    told = (node.folder / "log").read_text()
    assert f"client 10.7.1.2 refuses the certificate for pinned.{LISTED}" in told
    assert "does not trust the CA" in told
    assert 1 <= node.count("ca_refused_total") <= 2
    assert got.stdout == HELLO, got.stderr
