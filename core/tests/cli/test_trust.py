"""Programs that trust the CA: by environment variables, by the system's trust store."""

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from typer.testing import CliRunner

from tidegate.cli import ca as verbs
from tidegate.cli import trust
from tidegate.engine.ca import leaf_store
from tidegate.runtime.ca import ensure_ca, read_ca, rotate_ca, to_pem
from tidegate.runtime.problems import ConfigError

HOST = "localhost"


@contextmanager
def https_server(state: Path, names: tuple[str, ...] = (HOST,)) -> Iterator[int]:
    """An origin whose certificate the CA at `state` signed. Gives its port."""
    entry = leaf_store(ensure_ca(state)).get_cert(names[0], [x509.DNSName(n) for n in names])
    pem = state / "leaf.pem"
    pem.write_bytes(
        entry.privatekey.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + entry.cert.to_pem()
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            try:
                with sock, context.wrap_socket(sock, server_side=True) as tls:
                    tls.recv(65536)
                    tls.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            except OSError:
                continue  # a client that does not trust us

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def environment(state: Path, *flags: str) -> dict[str, str]:
    argv = ["env", "--json", "--state", str(state), *flags]
    result = CliRunner().invoke(verbs.app, argv, catch_exceptions=False)
    lines: dict[str, str] = json.loads(result.stdout)
    return lines


JAVA = """
public class Get { public static void main(String[] a) throws Exception {
    System.out.print(new String(new java.net.URI(a[0]).toURL().openStream().readAllBytes())); } }
"""
GO = """
package main
import ("fmt"; "io"; "net/http"; "os")
func main() { r, err := http.Get(os.Args[1]); if err != nil { fmt.Println(err); os.Exit(1) }
    b, _ := io.ReadAll(r.Body); fmt.Print(string(b)) }
"""
CLIENTS = {
    "curl": ("curl", ["curl", "-sS", "URL"], "curl"),
    "python": (
        sys.executable,
        [sys.executable, "-c", "import urllib.request as u; print(u.urlopen('URL').read())"],
        "python3",
    ),
    "httpx": (
        sys.executable,
        [sys.executable, "-c", "import httpx; print(httpx.get('URL').text)"],
        "python3",
    ),
    "node": (
        "node",
        ["node", "-e", "fetch('URL').then(r => r.text()).then(console.log)"],
        "nodejs",
    ),
    "ruby": ("ruby", ["ruby", "-ropen-uri", "-e", "puts URI.open('URL').read"], "ruby"),
    "git": ("git", ["git", "ls-remote", "URL/x"], "git"),
    "java": ("java", ["java", "Get.java", "URL"], "default-jdk-headless"),
    "go": ("go", ["go", "run", "get.go", "URL"], "golang-go"),
}


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_trusts_the_ca_with_the_printed_variables_and_not_without(
    tmp_path: Path, client: str
) -> None:
    binary, argv, package = CLIENTS[client]
    if shutil.which(binary) is None:
        pytest.skip(f"apt-get install {package}")
    (tmp_path / "Get.java").write_text(JAVA)
    (tmp_path / "get.go").write_text(GO)
    state = tmp_path / "state"
    with https_server(state) as port:
        argv = [word.replace("URL", f"https://{HOST}:{port}/") for word in argv]
        answers = []
        for extra in ({}, environment(state)):
            done = subprocess.run(
                argv, env={**clean(), **extra}, cwd=tmp_path,
                capture_output=True, text=True, check=False, timeout=110,
            )  # fmt: skip
            answers.append(f"{done.stdout}\n{done.stderr}")
    refused, trusted = answers
    if client == "git":  # our origin serves no repository, which git finds out after TLS
        assert "certificate" in refused
        assert "certificate" not in trusted
    else:
        assert "ok" in trusted.split() or "b'ok'" in trusted, trusted
        assert "ok" not in refused.split(), refused


def clean() -> dict[str, str]:
    """The environment without what others may have set."""
    ours = {*trust.variables(trust.Material(Path(), Path(), Path())), "SSL_CERT_DIR"}
    proxies = {"http_proxy", "https_proxy", "all_proxy"}
    return {k: v for k, v in os.environ.items() if k not in ours and k.lower() not in proxies}


def test_a_bundle_holds_what_the_system_trusts_and_every_ca_of_ours(tmp_path: Path) -> None:
    ensure_ca(tmp_path)
    rotate_ca(tmp_path)
    lines = environment(tmp_path, "--dir", str(tmp_path / "with 'quote"))
    bundle = Path(lines["SSL_CERT_FILE"])
    own = b"".join(map(to_pem, read_ca(tmp_path).all))
    assert bundle.read_bytes() == trust.system_roots() + b"\n" + own
    assert Path(lines["NODE_EXTRA_CA_CERTS"]).read_bytes() == own
    assert {p.stat().st_mode & 0o777 for p in bundle.parent.iterdir()} == {0o644}


@pytest.mark.skipif(not shutil.which("keytool"), reason="apt-get install default-jre-headless")
def test_keytool_reads_the_java_trust_store(tmp_path: Path) -> None:
    ensure_ca(tmp_path)
    material = trust.write_material(tmp_path / "trust", read_ca(tmp_path).all)
    listed = subprocess.run(
        ["keytool", "-list", "-keystore", str(material.java), "-storepass", trust.PASSWORD],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert listed.count("trustedCertEntry") == material.bundle.read_bytes().count(b"BEGIN CERT")


SHELLS = {
    "sh": (["sh", "-c", 'eval "$LINES_"; printf %s "$SSL_CERT_FILE"'], "dash"),
    "fish": (["fish", "-c", 'eval $LINES_; printf %s "$SSL_CERT_FILE"'], "fish"),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_reads_its_lines_back_whatever_the_path(tmp_path: Path, shell: str) -> None:
    argv, package = SHELLS[shell]
    if shutil.which(argv[0]) is None:
        pytest.skip(f"apt-get install {package}")
    ensure_ca(tmp_path)
    folder = tmp_path / "it's $HOME `x` \\ \" é"
    flags = ["env", "--state", str(tmp_path), "--dir", str(folder), "--shell", shell]
    lines = CliRunner().invoke(verbs.app, flags, catch_exceptions=False).stdout
    assert lines.count("\n") == 6
    done = subprocess.run(
        argv, env={**os.environ, "LINES_": lines.replace("\n", ";")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == str(folder / "bundle.pem")


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("powershell", "$env:CURL_CA_BUNDLE = '{}/a b/bundle.pem'"),
        ("dotenv", "CURL_CA_BUNDLE='{}/a b/bundle.pem'"),
        ("fish", "set -gx CURL_CA_BUNDLE '{}/a b/bundle.pem'"),
    ],
)
def test_lines_for_other_readers(tmp_path: Path, shell: str, line: str) -> None:
    ensure_ca(tmp_path)
    argv = ["env", "--state", str(tmp_path), "--dir", str(tmp_path / "a b"), "--shell", shell]
    lines = CliRunner().invoke(verbs.app, argv, catch_exceptions=False).stdout.splitlines()
    assert line.format(tmp_path) in lines


def test_env_says_when_other_users_could_not_read_its_files(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    ensure_ca(tmp_path)
    argv = ["env", "--state", str(tmp_path)]
    assert "--dir" in CliRunner().invoke(verbs.app, argv, catch_exceptions=False).stderr


def alpine(root: Path) -> Path:
    """The trust store of an Alpine base image, which has the bundle but no tool."""
    (root / "etc/ssl/certs").mkdir(parents=True)
    (root / "etc/os-release").write_text('NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.22.0\n')
    bundle = root / "etc/ssl/certs/ca-certificates.crt"
    bundle.write_bytes(trust.system_roots())
    return bundle


def last_of(bundle: Path, count: int) -> tuple[x509.Certificate, ...]:
    """The last certificates of a bundle."""
    parts = bundle.read_bytes().split(b"-----BEGIN")[-count:]
    return tuple(x509.load_pem_x509_certificate(b"-----BEGIN" + part) for part in parts)


def test_a_base_image_of_alpine_gets_the_ca_into_its_bundle_and_loses_it(tmp_path: Path) -> None:
    bundle = alpine(tmp_path)
    before = bundle.read_bytes()
    ensure_ca(tmp_path / "state")
    ours = read_ca(tmp_path / "state").all
    assert trust.install(ours, tmp_path, "auto") == [f"changed {bundle}"]
    assert trust.install(ours, tmp_path, "auto") == []
    assert last_of(bundle, 1) == ours
    rotated = rotate_ca(tmp_path / "state").all
    trust.install(rotated, tmp_path, "alpine")
    assert last_of(bundle, 2) == rotated
    assert trust.remove(tmp_path, "auto") == [f"changed {bundle}"]
    assert bundle.read_bytes() == before
    assert trust.remove(tmp_path, "auto") == []


@pytest.mark.parametrize(
    ("release", "code"),
    [
        ("ID=fedora\n", "trust_unknown_system"),
        ("ID=ubuntu\nID_LIKE=debian\n", "trust_tool_missing"),
    ],
)
def test_a_system_that_can_not_be_served_is_refused(
    tmp_path: Path, release: str, code: str
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text(release)
    with pytest.raises(ConfigError) as refused:
        trust.remove(tmp_path, "auto")
    assert refused.value.problems[0].code == code
    assert [p.name for p in tmp_path.iterdir()] == ["etc"]


IN_A_COPY = """
    set -e
    for folder in /etc/ssl /usr/local/share/ca-certificates; do
        mkdir -p "$TMP/up$folder" "$TMP/work$folder"
        layers="lowerdir=$folder,upperdir=$TMP/up$folder,workdir=$TMP/work$folder"
        mount -t overlay overlay -o "$layers" $folder
    done
    update-ca-certificates > $TMP/log 2>&1  # what this system has left undone is not our doing
    find /etc/ssl /usr/local/share/ca-certificates | sort > $TMP/before
    sha256sum /etc/ssl/certs/ca-certificates.crt >> $TMP/before
    ca() { "$PYTHON" -c 'from tidegate.cli.ca import app; app()' "$@"; }
    ca install --state $TMP/state
    curl -sS --cacert /etc/ssl/certs/ca-certificates.crt https://localhost:$PORT/; echo
    ca install --state $TMP/state
    ca install --remove
    ca install --remove
    find /etc/ssl /usr/local/share/ca-certificates | sort > $TMP/after
    sha256sum /etc/ssl/certs/ca-certificates.crt >> $TMP/after
    diff $TMP/before $TMP/after
"""


def test_debians_trust_store_gets_the_ca_and_loses_it_without_trace(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not Path("/usr/sbin/update-ca-certificates").exists():
        pytest.skip("needs root, and: apt-get install ca-certificates curl util-linux")
    mounts = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"mount -t tmpfs tmpfs {tmp_path}"], check=False
    )
    if mounts.returncode:
        pytest.skip("needs the right to mount (CAP_SYS_ADMIN)")
    state = tmp_path / "state"
    with https_server(state) as port:
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", textwrap.dedent(IN_A_COPY)],
            env={**clean(), "TMP": str(tmp_path), "PYTHON": sys.executable, "PORT": str(port)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    added, answer, again, removed, nothing = done.stdout.splitlines()
    assert added.startswith("added /usr/local/share/ca-certificates/tidegate-ca-")
    assert (answer, again, nothing) == ("ok", "nothing to do", "nothing to do")
    assert removed == added.replace("added", "removed")
