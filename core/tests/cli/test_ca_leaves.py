"""The certificates that intercepted clients are shown."""

import subprocess
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from mitmproxy import certs

from tidegate.engine.ca import CACHED, LeafStore, leaf_store
from tidegate.runtime.ca import ensure_ca, read_ca
from tidegate.runtime.ca_certificate import make_certificate


def dns(*names: str) -> list[x509.GeneralName]:
    return [x509.DNSName(name) for name in names]


def verify(ca: x509.Certificate, leaf: x509.Certificate, name: str) -> None:
    """As a client does, strictly (the Web PKI profile of `cryptography`)."""
    subject = x509.DNSName(name)
    PolicyBuilder().store(Store([ca])).build_server_verifier(subject).verify(leaf, [])


def test_mitmproxy_loads_the_folder_as_its_own(tmp_path: Path) -> None:
    paths = ensure_ca(tmp_path)
    before = paths.key.read_bytes()
    store = certs.CertStore.from_store(paths.folder, "mitmproxy", 2048)
    assert store.default_ca.to_cryptography() == read_ca(tmp_path).certificate
    assert paths.key.read_bytes() == before
    entry = store.get_cert("example.com", dns("example.com"))
    verify(store.default_ca.to_cryptography(), entry.cert.to_cryptography(), "example.com")


def test_a_leaf_lives_for_days_within_the_life_of_its_ca() -> None:
    for days in (90, 1):
        key, ca = make_certificate(days)
        leaf = LeafStore(key, ca).get_cert("example.com", dns("example.com")).cert
        assert leaf.notafter - datetime.now(UTC) <= timedelta(days=2)
        assert ca.not_valid_before_utc <= leaf.notbefore
        assert leaf.notafter <= ca.not_valid_after_utc
        verify(ca, leaf.to_cryptography(), "example.com")


def test_a_leaf_does_not_have_the_key_of_the_ca() -> None:
    key, ca = make_certificate(90)
    entry = LeafStore(key, ca).get_cert("example.com", dns("example.com"))
    assert entry.cert.public_key() == entry.privatekey.public_key() != ca.public_key()


def test_leaves_are_cached_by_their_names_up_to_a_bound() -> None:
    store = LeafStore(*make_certificate(90))
    first = store.get_cert("a.example", dns("a.example"))
    assert store.get_cert("a.example", dns("a.example")) is first
    assert store.get_cert("a.example", dns("a.example", "b.example")) is not first
    for number in range(CACHED):
        store.get_cert(None, dns(f"{number}.example"))
    assert len(store._leaves) == CACHED
    assert store.get_cert("a.example", dns("a.example")) is not first


def test_a_leaf_that_ends_soon_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    store = LeafStore(*make_certificate(90))
    first = store.get_cert("a.example", dns("a.example"))

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):  # type: ignore[no-untyped-def, override]
            return datetime.now(UTC) + timedelta(hours=37)

    monkeypatch.setattr("tidegate.engine.ca.datetime", Later)
    second = store.get_cert("a.example", dns("a.example"))
    assert second is not first
    assert second.cert.notafter > first.cert.notafter
    assert store.get_cert("a.example", dns("a.example")) is second


def test_in_the_last_hours_of_the_ca_a_leaf_is_still_cached() -> None:
    key, ca = make_certificate(1)
    store = LeafStore(key, ca)
    monkey = pytest.MonkeyPatch()

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):  # type: ignore[no-untyped-def, override]
            return ca.not_valid_after_utc - timedelta(hours=1)

    with monkey.context() as context:
        context.setattr("tidegate.engine.ca.datetime", Later)
        assert store.get_cert("a", dns("a")) is store.get_cert("a", dns("a"))


def test_names_that_the_constraints_forbid_are_left_out() -> None:
    key, ca = make_certificate(90, ("example.com", "10.0.0.0/8"))
    store = LeafStore(key, ca)
    asked = [
        *dns("www.example.com", "*.example.com", "example.org", "www.example.com.evil.org"),
        x509.IPAddress(ip_address("10.1.2.3")),
        x509.IPAddress(ip_address("192.168.0.1")),
    ]
    leaf = store.get_cert("www.example.com", asked).cert.to_cryptography()
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [asked[0], asked[1], asked[4]]
    assert store.permits("api.example.com")
    assert not store.permits("example.org")


@pytest.mark.parametrize("host", ["example.org", "192.168.0.1"])
@pytest.mark.parametrize("permit", [("example.com",), ("10.0.0.0/8",)])
def test_clients_refuse_what_a_constrained_ca_may_not_sign(
    tmp_path: Path, host: str, permit: tuple[str, ...]
) -> None:
    key, ca = make_certificate(90, permit)
    is_name = host.endswith("org")
    name = x509.DNSName(host) if is_name else x509.IPAddress(ip_address(host))
    leaf = LeafStore(key, ca).get_cert(host, [name]).cert
    (tmp_path / "ca.pem").write_bytes(certs.Cert(ca).to_pem())
    (tmp_path / "leaf.pem").write_bytes(leaf.to_pem())
    argv = ["openssl", "verify", "-x509_strict", "-CAfile", "ca.pem", "leaf.pem"]
    try:
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("apt-get install openssl")
    assert done.returncode == 2
    assert "subtree violation" in done.stdout + done.stderr
    if is_name:
        with pytest.raises(VerificationError):
            verify(ca, leaf.to_cryptography(), host)


@pytest.mark.parametrize("permit", [("example.com",), ("example.com", "10.0.0.0/8")])
def test_openssl_accepts_what_a_constrained_ca_may_sign(
    tmp_path: Path, permit: tuple[str, ...]
) -> None:
    ensure_ca(tmp_path, permit=permit)
    store = leaf_store(ensure_ca(tmp_path))
    leaf = store.get_cert("api.example.com", dns("api.example.com")).cert
    (tmp_path / "leaf.pem").write_bytes(leaf.to_pem())
    argv = ["openssl", "verify", "-x509_strict", "-CAfile", "ca/mitmproxy-ca-cert.pem", "leaf.pem"]
    try:
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("apt-get install openssl")
    assert done.stdout == "leaf.pem: OK\n", done.stderr
    verify(store.default_ca.to_cryptography(), leaf.to_cryptography(), "api.example.com")


def test_a_certificate_of_the_operator_goes_before_a_made_one(tmp_path: Path) -> None:
    store = LeafStore(*make_certificate(90))
    given = store.get_cert(None, dns("given.example"))
    store.add_cert(given, "*.given.example")
    assert store.get_cert("a.given.example", dns("a.given.example")) is given
