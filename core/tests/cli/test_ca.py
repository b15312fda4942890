"""The CA: its files, its certificate, and the verbs that hand it out."""

import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs12
from typer.testing import CliRunner

from tidegate.cli import ca as verbs
from tidegate.runtime import ca as module
from tidegate.runtime.ca import CaPaths, ensure_ca, read_ca, read_key, rotate_ca
from tidegate.runtime.ca_certificate import constraints_of, make_certificate, permits
from tidegate.runtime.problems import ConfigError

OTHER_USER = 65534


def code(refused: pytest.ExceptionInfo[ConfigError]) -> str:
    return refused.value.problems[0].code


def run(*argv: str, state: Path) -> str:
    result = CliRunner().invoke(verbs.app, [*argv, "--state", str(state)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def expired(paths: CaPaths) -> None:
    """Put an expired CA in place, as time would."""

    class Past(datetime):
        @classmethod
        def now(cls, tz=None):  # type: ignore[no-untyped-def, override]
            return datetime.now(UTC) - timedelta(days=100)

    monkey = pytest.MonkeyPatch()
    monkey.setattr("tidegate.runtime.ca_certificate.datetime", Past)
    module._write_ca(paths, *make_certificate(90))
    monkey.undo()


def test_a_new_ca_is_private_and_short_lived(tmp_path: Path) -> None:
    paths = ensure_ca(tmp_path)
    assert stat.S_IMODE(paths.folder.stat().st_mode) == 0o700
    assert {p.name: stat.S_IMODE(p.stat().st_mode) for p in paths.folder.iterdir()} == {
        "mitmproxy-ca.pem": 0o600,
        "mitmproxy-ca-cert.pem": 0o600,
    }
    _, certificate = read_key(paths)
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert life == timedelta(days=90)
    [name] = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    assert name.value == "Tidegate CA"
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature


def test_a_ca_is_made_once(tmp_path: Path) -> None:
    first = ensure_ca(tmp_path).key.read_bytes()
    assert ensure_ca(tmp_path, days=7, permit=("example.com",)).key.read_bytes() == first


def test_its_files_are_never_open_to_others_even_with_an_open_umask(tmp_path: Path) -> None:
    script = """
        import os, stat, sys
        from pathlib import Path
        state, loose = Path(sys.argv[1]), set()

        def look(event, args):  # runs before each file operation: sees what the last one left
            if event.startswith(("open", "os.", "fcntl", "tempfile")) and not look.busy:
                look.busy = True
                for path in (state / "ca", *(state / "ca").glob("*"), *(state / "ca").glob(".*")):
                    if path.exists():
                        look.seen += 1
                        if stat.S_IMODE(path.stat().st_mode) & 0o077:
                            loose.add(path.name)
                look.busy = False

        look.busy, look.seen = False, 0
        os.umask(0)
        from tidegate.runtime.ca import ensure_ca, rotate_ca
        sys.addaudithook(look)
        ensure_ca(state)
        rotate_ca(state)
        look.busy = True
        print(look.seen > 20, sorted(loose))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "True []\n", done.stderr


@pytest.mark.parametrize(
    ("name", "mode"),
    [("", 0o755), ("", 0o710), ("mitmproxy-ca.pem", 0o644), ("mitmproxy-ca.pem", 0o620)],
)
def test_a_ca_that_others_can_use_is_refused(tmp_path: Path, name: str, mode: int) -> None:
    paths = ensure_ca(tmp_path)
    (paths.folder / name).chmod(mode)
    for use in (ensure_ca, read_ca, rotate_ca):
        with pytest.raises(ConfigError) as refused:
            use(tmp_path)
        assert code(refused) == "ca_permissions"
        assert f"{mode:04o}" in str(refused.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
@pytest.mark.parametrize("name", ["", "mitmproxy-ca.pem"])
def test_a_ca_that_belongs_to_another_is_refused(tmp_path: Path, name: str) -> None:
    paths = ensure_ca(tmp_path)
    os.chown(paths.folder / name, OTHER_USER, -1)
    with pytest.raises(ConfigError) as refused:
        ensure_ca(tmp_path)
    assert code(refused) == "ca_permissions"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_root_may_hand_out_the_certificate_of_the_user_who_runs_the_node(tmp_path: Path) -> None:
    paths = ensure_ca(tmp_path)
    for path in (paths.folder, *paths.folder.iterdir()):
        os.chown(path, OTHER_USER, -1)
    assert read_ca(tmp_path).certificate.subject is not None
    os.chown(paths.key, OTHER_USER - 1, -1)
    with pytest.raises(ConfigError) as refused:
        read_ca(tmp_path)
    assert code(refused) == "ca_permissions"


def test_a_link_in_the_place_of_the_key_is_refused(tmp_path: Path) -> None:
    paths = ensure_ca(tmp_path)
    paths.key.rename(tmp_path / "elsewhere")
    paths.key.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError) as refused:
        ensure_ca(tmp_path)
    assert code(refused) == "ca_permissions"


def test_an_expired_ca_is_refused_until_it_is_rotated(tmp_path: Path) -> None:
    paths = ensure_ca(tmp_path)
    expired(paths)
    with pytest.raises(ConfigError) as refused:
        ensure_ca(tmp_path)
    assert code(refused) == "ca_expired"
    assert rotate_ca(tmp_path).previous == ()
    assert ensure_ca(tmp_path) == paths


def test_a_damaged_key_file_is_refused(tmp_path: Path) -> None:
    paths = ensure_ca(tmp_path)
    paths.key.write_text("nothing")
    with pytest.raises(ConfigError) as refused:
        ensure_ca(tmp_path)
    assert code(refused) == "ca_unreadable"


def test_reading_makes_no_ca(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        run("export", state=tmp_path)
    assert code(refused) == "ca_missing"
    assert list(tmp_path.iterdir()) == []


def test_rotation_keeps_the_earlier_certificates_but_not_their_keys(tmp_path: Path) -> None:
    paths = ensure_ca(tmp_path)
    first = read_ca(tmp_path).certificate
    second = rotate_ca(tmp_path).certificate
    third = rotate_ca(tmp_path)
    assert third.previous == (second, first)
    assert b"PRIVATE" not in paths.previous.read_bytes()
    assert len({c.subject for c in third.all}) == 3
    assert x509.load_pem_x509_certificate(paths.certificate.read_bytes()) == third.certificate


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_rotation_that_is_cut_leaves_a_whole_ca(
    tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = ensure_ca(tmp_path)
    before = read_ca(tmp_path).certificate
    replace, calls = os.replace, 0

    def cut(source: str, target: str) -> None:
        nonlocal calls
        calls += 1
        if calls == step:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", cut)
    with pytest.raises(KeyboardInterrupt):
        rotate_ca(tmp_path)
    monkeypatch.undo()
    ensure_ca(tmp_path)
    _, now = read_key(paths)
    assert (now == before) == (step < 3)
    assert before in read_ca(tmp_path).all
    assert x509.load_pem_x509_certificate(paths.certificate.read_bytes()) == now
    assert list(paths.folder.glob(".new-*")) == []


def test_what_a_crash_left_half_written_is_cleared(tmp_path: Path) -> None:
    left = ensure_ca(tmp_path).folder / ".new-left"
    left.write_text("half a key")
    ensure_ca(tmp_path)
    assert not left.exists()


def start(state: Path) -> subprocess.Popen[str]:
    """Another process that wants the CA, and prints the certificate that it got."""
    script = """
        import sys
        from pathlib import Path
        from tidegate.runtime.ca import ensure_ca, read_key
        print("asks", flush=True)
        print(read_key(ensure_ca(Path(sys.argv[1])))[1].serial_number)
    """
    argv = [sys.executable, "-c", textwrap.dedent(script), str(state)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def test_processes_that_start_together_agree_on_one_ca(tmp_path: Path) -> None:
    processes = [start(tmp_path) for _ in range(3)]
    assert len({process.communicate(timeout=60)[0] for process in processes}) == 1
    assert [process.returncode for process in processes] == [0, 0, 0]


def test_a_change_waits_for_the_one_before(tmp_path: Path) -> None:
    folder = os.open(ensure_ca(tmp_path).folder, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    process = start(tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "asks\n"
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    os.close(folder)
    serial = process.communicate(timeout=60)[0]
    assert int(serial) == read_ca(tmp_path).certificate.serial_number


@pytest.mark.parametrize(
    ("permit", "allowed", "refused"),
    [
        ((), ["example.com", "10.0.0.1", "::1"], []),
        (
            ("example.com",),
            ["example.com", "a.b.example.com", "*.example.com", "EXAMPLE.com"],
            ["notexample.com", "com", "10.0.0.1", "::1"],
        ),
        (("*.example.com", "10.0.0.0/8"), ["example.com", "10.9.9.9"], ["11.0.0.1", "::1"]),
        (("fd00::/8",), ["fd00::1"], ["10.0.0.1", "example.com"]),
        (("bücher.example",), ["xn--bcher-kva.example"], ["example"]),
    ],
)
def test_a_constrained_ca_signs_for_no_other_names(
    permit: tuple[str, ...], allowed: list[str], refused: list[str]
) -> None:
    _, certificate = make_certificate(90, permit)
    assert [h for h in allowed if not permits(certificate, h)] == []
    assert [h for h in refused if permits(certificate, h)] == []


@pytest.mark.parametrize("name", ["", "*", "a..b", "a b", "10.0.0.1/8", "1.2.3", "-a.b", "a/b"])
def test_a_constraint_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError) as refused:
        make_certificate(90, (name,))
    assert code(refused) == "ca_option"


def test_rotation_keeps_the_constraints_unless_told_otherwise(tmp_path: Path) -> None:
    ensure_ca(tmp_path, permit=("example.com", "10.0.0.0/8"))
    kept = rotate_ca(tmp_path).certificate
    assert constraints_of(kept) == ("example.com", "10.0.0.0/8")
    found = kept.extensions.get_extension_for_class(x509.NameConstraints)
    assert found.critical
    run("rotate", "--any-name", state=tmp_path)
    assert constraints_of(read_ca(tmp_path).certificate) == ()


def test_a_rotation_that_is_refused_changes_nothing(tmp_path: Path) -> None:
    before = ensure_ca(tmp_path).key.read_bytes()
    for wrong in (["--permit", "a..b"], ["--days", "0"], ["--days", "398"]):
        with pytest.raises(ConfigError):
            run("rotate", *wrong, state=tmp_path)
    assert CaPaths(tmp_path / "ca").key.read_bytes() == before
    assert not (tmp_path / "ca/previous.pem").exists()


def test_show_tells_what_the_ca_is_and_warns_before_its_end(tmp_path: Path) -> None:
    run("rotate", "--permit", "example.com", state=tmp_path)
    run("rotate", "--days", "5", state=tmp_path)
    about = json.loads(run("show", "--json", state=tmp_path))
    assert about["permits"] == ["example.com"]
    assert about["days_left"] == 4
    assert len(about["previous"]) == 1
    result = CliRunner().invoke(verbs.app, ["show", "--state", str(tmp_path)])
    assert "expires in 4 days" in result.stderr
    assert about["sha256"] in result.stdout


@pytest.mark.skipif(not shutil.which("openssl"), reason="apt-get install openssl")
def test_the_fingerprint_is_the_one_that_openssl_prints(tmp_path: Path) -> None:
    paths = ensure_ca(tmp_path)
    argv = ["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", str(paths.certificate)]
    printed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    about = json.loads(run("show", "--json", state=tmp_path))
    assert printed.partition("=")[2].strip().replace(":", "").lower() == about["sha256"]


@pytest.mark.parametrize("form", ["pem", "der", "p12"])
def test_export_gives_the_certificate_and_never_the_key(tmp_path: Path, form: str) -> None:
    rotate_ca(tmp_path)
    authority = rotate_ca(tmp_path)
    out = tmp_path / "out"
    run("export", "--format", form, "--out", str(out), state=tmp_path)
    data = out.read_bytes()
    assert stat.S_IMODE(out.stat().st_mode) == 0o644
    if form == "pem":
        assert x509.load_pem_x509_certificates(data) == [authority.certificate]
        everything = run("export", "--all", state=tmp_path).encode()
        assert tuple(x509.load_pem_x509_certificates(everything)) == authority.all
    elif form == "der":
        assert x509.load_der_x509_certificate(data) == authority.certificate
    else:
        store = pkcs12.load_pkcs12(data, None)
        assert store.key is None
        assert [c.certificate for c in store.additional_certs] == [authority.certificate]
    assert b"PRIVATE" not in data


def test_every_core_verb_of_the_command_line_has_help() -> None:
    for verb in ("show", "export", "env", "install", "rotate"):
        assert CliRunner().invoke(verbs.app, [verb, "--help"]).exit_code == 0
