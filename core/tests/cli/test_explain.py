"""`tidegate explain` offline: what is asked in, the trace out, and nothing touched on the way."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading

import pytest

from tidegate.cli.explaining.command import curl, plain
from tidegate.runtime.problems import ConfigError

POLICY = """
from tidegate.api import Plugin, Principal, hook

class Policy(Plugin):
    @hook
    def bootstrap(self, node):
        node.run("never", ["sh", "-c", "echo ran > ran"])
        node.shared["from"] = "bootstrap"

    @hook
    def authenticate(self, exchange):
        known = (self.context.state / "key").read_text().strip()
        if exchange.consume_header("x-key") == known:
            return Principal(self.context.shared["from"])

    @hook
    def transform_request(self, exchange):
        (self.context.state / "key").write_text("spoilt")
        exchange.request.headers["x-team"] = "s3cr3t"

    @hook
    def log(self, exchange):
        (self.context.state / "logged").touch()

    def explain(self, hook, exchange):
        return "looked for x-key"
"""
CONFIG = """
[gateway]
listen = ["127.0.0.1:0", { name = "inner", address = "127.0.0.1:0" }]
[[addon]]
use = "explain-policy"
[[addon]]
use = "explain-policy"
name = "elsewhere"
mode = "shadow"
scope = { paths = ["/admin/*"], listeners = ["inner"] }
"""
ROUTE = """
[[addon]]
use = "route-static"
routes = [{ path = "/v1/*", upstream = "http://127.0.0.1:%d" }]
"""


@pytest.fixture
def project(tmp_path, tidegate):
    """A configuration, its state with a key, and the verb run there."""
    from tidegate.testing import install_plugin

    more = install_plugin(tmp_path / "policies", "explain-policy", POLICY)
    folder = tmp_path / ".tidegate/addons/explain-policy"
    folder.mkdir(parents=True)
    (folder / "key").write_text("k1")
    (tmp_path / "addons.toml").write_text(CONFIG + ROUTE % 9)

    def run(*argv, code=0):
        result = tidegate("explain", *argv, **more)
        assert result.returncode == code, result.stderr
        return result

    run.folder = tmp_path
    return run


def test_a_request_is_explained_without_touching_anything(project):
    with socket.create_server(("127.0.0.1", 0)) as server:
        config = CONFIG + ROUTE % server.getsockname()[1]
        (project.folder / "addons.toml").write_text(config)
        shown = project("GET", "/v1/x", "-H", "x-key: k1", "--answer", "204").stdout
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert "204 — answered by 127.0.0.1" in shown
    assert "the caller is bootstrap" in shown
    assert "adds x-team #" in shown
    assert "a stand-in: nothing was sent" in shown
    assert "s3cr3t" not in shown
    state = project.folder / ".tidegate/addons/explain-policy"
    assert [(p.name, p.read_text()) for p in state.iterdir()] == [("key", "k1")]
    assert not (project.folder / "ran").exists()


def test_the_decision_and_its_reason_come_first(project):
    shown = project("/v1/x").stdout.strip().splitlines()
    assert shown[0].strip() == "401 unauthenticated — no addon recognised a credential"
    assert shown[1].strip() == "explain-policy looked for x-key"
    assert "elsewhere" in " ".join(shown)
    assert "listener gateway is not in inner" in " ".join(shown)


def test_a_pasted_curl_command_is_understood(project):
    text = "curl -sS -X PUT http://127.0.0.1:8080/v2/x \\\n  -H 'x-key: k1' -d '{\"a\": 1}'"
    trace = json.loads(project(text, "--json").stdout)
    assert (trace["method"], trace["path"], trace["status"]) == ("PUT", "/v2/x", 404)
    assert trace["decision"].startswith("404 no_route - no addon routes this request")
    inner = json.loads(project("/admin/x", "--listener", "inner", "--json").stdout)
    assert "elsewhere" not in [one["addon"] for one in inner["left_out"]]


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("GET", "/a/../b"), "400 bad_request_target"),
        (("curl http://x -H 'a",), "is a quote missing?"),
        (("curl --nonsense http://x",), "--nonsense is not known"),
        (("curl -s",), "names no URL"),
        (("GET", "/", "/"), "write METHOD PATH"),
        (("/", "--listener", "nope"), "there are gateway, inner"),
        (("0" * 24,), "no running node is known"),
        (("0" * 24, "--status", "http://127.0.0.1:9"), "no node answers"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(project, argv, told):
    error = project(*argv, code=2).stderr
    assert told in error
    assert len(error.strip().splitlines()) == 1


CURL = [
    "curl http://api.test:1/a?b=c",
    "curl -XDELETE api.test/x -H 'A: b' -H 'Empty:' -H 'Accept:'",
    "curl http://api.test/ -d a=1 -d b=2",
    "curl -G http://api.test/?x=1 -d a=1 --data-urlencode 'q=a b&c'",
    "curl --json '{\"a\": 1}' http://api.test/",
    "curl -u user:pass -b k=v -A agent -e http://r.test/ http://api.test/",
    "curl -sSLkI --compressed http://api.test/",
    "curl --data-raw @notafile http://api.test/",
    "curl -H 'Host: other.test' -H 'Content-Type: text/x' -d x --url http://api.test/p",
    "curl -r 0-9 --oauth2-bearer tok http://api.test/",
    "curl --data-binary ab http://api.test/",
    "curl -0 http://api.test/",
]


@pytest.mark.parametrize("text", CURL)
def test_the_request_is_the_one_that_curl_sends(text):
    if shutil.which("curl") is None:
        pytest.skip("apt-get install curl")
    found = curl(text)
    sent = sent_by_curl(text)
    line, *fields = sent.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    method, target, version = line.split(" ")
    assert (found.method, found.target, found.version.decode()) == (method, target, version)
    pairs = [(n.lower(), v.strip()) for n, _, v in (f.partition(":") for f in fields)]
    ours = [(n.lower(), v) for n, v in found.headers] + [("host", found.host)]
    told = {"content-length", "user-agent", "accept-encoding"}

    def comparable(values):
        return sorted((n, v) for n, v in values if n not in told)

    assert comparable(ours) == comparable(pairs)
    assert found.body == sent.partition(b"\r\n\r\n")[2]


def sent_by_curl(text):
    """What the real curl puts on the wire for a command: it is led here as to a proxy."""
    got = []

    def serve(server):
        peer, _ = server.accept()
        with peer:
            data = b""
            while b"\r\n\r\n" not in data:
                data += peer.recv(65536)
            head, _, rest = data.partition(b"\r\n\r\n")
            length = [
                int(x[15:]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length:")
            ]
            while len(rest) < sum(length):
                rest += peer.recv(65536)
            got.append(head + b"\r\n\r\n" + rest)
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        more = f" --connect-to ::127.0.0.1:{port} --noproxy '*' -o {os.devnull} -m 10 -s"
        subprocess.run(["sh", "-c", text + more], check=True, timeout=20)
        thread.join(10)
    return got[0]


def test_a_body_may_come_from_a_file(tmp_path):
    (tmp_path / "body").write_bytes(b'{"a":\n1}')
    assert curl(f"curl http://x -d @{tmp_path}/body").body == b'{"a":1}'
    assert curl(f"curl http://x --data-binary @{tmp_path}/body").body == b'{"a":\n1}'
    command = plain(["/x"], ["Host: a.test"], f"@{tmp_path}/body", "")
    assert (command.method, command.host, command.body) == ("POST", "a.test", b'{"a":\n1}')
    assert ("content-type", "application/json") in command.headers
    with pytest.raises(ConfigError, match="No such file"):
        curl("curl http://x -d @/nowhere")


def test_explain_can_read_the_command_from_standard_input(project, env, tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "tidegate.cli.main", "explain", "-", "--config", "addons.toml"],
        input="curl 'http://h.test/v1/x'", env={**env, "PYTHONPATH": f"{tmp_path}/policies"},
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "host h.test" in result.stdout, result.stderr
