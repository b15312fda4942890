"""Unmodified clients in a network of their own: their traffic meets the addons of the gateway."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from .network import LISTED, OPENAI, OTHER, V4, V6, Network, Node, needs_network, python

pytestmark = [needs_network, pytest.mark.xdist_group("intercept-clients")]

CLIENTS = Path(__file__).parent / "clients"
HELLO = "hello from the origin"


@pytest.mark.parametrize(
    ("options", "version", "scheme"),
    [
        (("--http1.1",), "1.1", "https"),
        (("--http2",), "2", "https"),
        (("-6", "--http2"), "2", "https"),
        (("-6", "--http1.1"), "1.1", "https"),
        ((), "1.1", "http"),
        (("-6",), "1.1", "http"),
    ],
)
def test_curl(
    network: Network, node: Node, options: tuple[str, ...], version: str, scheme: str
) -> None:
    shown = "%{http_version} %{remote_ip} %{header_json}"
    got = network.run("curl", "-sS", *options, "-w", shown, f"{scheme}://{LISTED}/curl",
                      env=node.trust)  # fmt: skip
    assert got.returncode == 0, got.stderr
    body, rest = got.stdout[: len(HELLO)], got.stdout[len(HELLO) :]
    told, address, fields = rest.split(" ", 2)
    assert (body, told, address) == (HELLO, version, V6 if "-6" in options else V4)
    assert json.loads(fields)["x-transformed"] == ["yes"]
    fields_seen = dict(network.seen("/curl")[-1]["fields"])
    assert fields_seen["x-caller"] == "lab/client"
    assert fields_seen["host"] == LISTED
    assert not [name for name in fields_seen if name.lower().startswith("x-forwarded")]
    line = node.logs(1, path="/curl", client="fd07:1::2" if "-6" in options else "10.7.1.2")[-1]
    assert (line["principal"], line["host"], line["status"]) == ("lab/client", LISTED, 200)


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_asks_often_on_one_connection(network: Network, node: Node, version: str) -> None:
    got = network.run(
        "curl", "-sS", version, "-o", "/dev/null", "-w", "%{http_code} %{num_connects}\n",
        f"https://{LISTED}/often/[1-250]", env=node.trust,
    )  # fmt: skip
    assert got.stdout.splitlines() == ["200 1"] + ["200 0"] * 249, got.stderr


def test_python_httpx(network: Network, node: Node) -> None:
    code = f"import httpx; r = httpx.get('https://{LISTED}/httpx'); print(r.text, dict(r.headers))"
    got = network.run(*python(code), env=node.trust)
    assert HELLO in got.stdout, got.stderr
    assert "'x-transformed': 'yes'" in got.stdout


def test_python_requests(network: Network, node: Node) -> None:
    pytest.importorskip("requests", reason="uv pip install requests")
    code = f"import requests; r = requests.get('https://{LISTED}/requests'); print(r.text)"
    got = network.run(*python(code), env=node.trust)
    assert got.stdout == HELLO + "\n", got.stderr


def test_the_openai_sdk_without_a_base_url(network: Network, node: Node) -> None:
    code = (
        "import openai\n"
        "client = openai.OpenAI(api_key='sk-theirs')\n"
        "ask = dict(model='m', messages=[{'role': 'user', 'content': 'one two'}])\n"
        "print(client.chat.completions.create(**ask).choices[0].message.content)\n"
        "for part in client.chat.completions.create(**ask, stream=True):\n"
        "    print(part.choices[0].delta.content, end=' ')\n"
    )
    got = network.run(*python(code), env=node.trust)
    assert got.stdout == "ok one two\nok one two ", got.stderr
    seen = [dict(one["fields"]) for one in network.seen("/v1/chat")]
    assert [one["authorization"] for one in seen] == ["Bearer sk-theirs"] * 2
    assert node.logs(2, host=OPENAI)[0]["path"] == "/v1/chat/completions"


@pytest.mark.skipif(shutil.which("node") is None, reason="apt-get install nodejs")
def test_node_fetch(network: Network, node: Node) -> None:
    script = str(CLIENTS / "fetch.mjs")
    got = network.run("node", script, f"https://{LISTED}/node", env=node.trust)
    assert got.stdout == f"200 yes {HELLO}\n", got.stderr


@pytest.mark.skipif(shutil.which("java") is None, reason="apt-get install default-jdk-headless")
def test_java_http_client(network: Network, node: Node, tmp_path: Path) -> None:
    lines = node.command(
        "ca", "env", "--json", "--state", str(node.state), "--dir", str(tmp_path / "trust")
    )
    env = json.loads(lines)
    got = network.run(
        "java", str(CLIENTS / "Fetch.java"), f"https://{LISTED}/java",
        env={"JAVA_TOOL_OPTIONS": env["JAVA_TOOL_OPTIONS"]}, timeout=100,
    )  # fmt: skip
    assert got.stdout == f"200 yes {HELLO} HTTP_2\n", got.stderr


@pytest.mark.skipif(shutil.which("go") is None, reason="apt-get install golang")
def test_go_http_client(network: Network, node: Node, tmp_path: Path) -> None:
    env = {"GOCACHE": str(tmp_path / "cache"), "GOPATH": str(tmp_path), "CGO_ENABLED": "0"}
    built = network.run(
        "go", "build", "-o", str(tmp_path / "fetch"), str(CLIENTS / "fetch.go"),
        env=env, timeout=110,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    got = network.run(str(tmp_path / "fetch"), f"https://{LISTED}/go", env=node.trust)
    assert got.stdout == f"200 yes {HELLO} HTTP/2.0\n", got.stderr


def test_a_limit_holds(network: Network, node: Node) -> None:
    """Two an hour, over two workers of one each: on one connection the second is too much."""
    code = (
        "import httpx\n"
        "with httpx.Client() as client:\n"
        f"    for _ in range(3): print(client.get('https://{LISTED}/limited').status_code)\n"
    )
    got = network.run(*python(code), env=node.trust)
    assert got.stdout.split() == ["200", "429", "429"], got.stderr
    assert len(network.seen("/limited")) == 1
    assert node.logs(2, path="/limited", status=429)[0]["code"] == "rate_limited"


def test_an_unknown_source_is_denied(network: Network, node: Node) -> None:
    network.run("ip", "addr", "add", "10.7.1.3/24", "dev", "c0")
    got = network.run("curl", "-sS", "--interface", "10.7.1.3", f"https://{LISTED}/unknown",
                      env=node.trust)  # fmt: skip
    assert json.loads(got.stdout)["error"]["code"] == "unauthenticated"
    assert network.seen("/unknown") == []
    assert node.logs(1, path="/unknown")[0]["client"] == "10.7.1.3"


def test_an_addon_is_switched_while_it_runs(network: Network, node: Node) -> None:
    config = node.folder / "addons.toml"
    text = config.read_text()
    config.write_text(text.replace('{ x-transformed = "yes" }', '{ x-transformed = "later" }'))
    try:
        code = (
            "import httpx, time\n"
            "for _ in range(100):\n"
            f"    r = httpx.get('https://{LISTED}/switched')\n"
            "    assert r.status_code == 200\n"
            "    if r.headers['x-transformed'] == 'later': print('switched'); break\n"
            "    time.sleep(0.1)\n"
        )
        got = network.run(*python(code), env=node.trust)
        assert got.stdout == "switched\n", got.stderr
    finally:
        config.write_text(text)


def test_hosts_that_are_not_listed_are_untouched_and_unseen(network: Network, node: Node) -> None:
    before = node.count("passed_connections_total")
    for scheme in ("https", "http"):
        got = network.run(
            "curl", "-sS", "-v", "--http1.1", f"{scheme}://{OTHER}/unlisted",
            env={"CURL_CA_BUNDLE": str(network.ca)},
        )  # fmt: skip
        assert got.stdout == HELLO, got.stderr
        assert "x-transformed" not in got.stderr
        if scheme == "https":
            assert "issuer: CN=Origin's CA" in got.stderr
    seen = network.seen("/unlisted")
    assert [set(map(str.lower, dict(one["fields"]))) for one in seen] == [
        {"host", "user-agent", "accept"}
    ] * 2
    assert node.count("passed_connections_total") == before + 2
    assert [line for line in node.logged if line["host"] == OTHER] == []
