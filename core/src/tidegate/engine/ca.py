"""Leaf certificates for the hosts that are intercepted, signed by the node's CA."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from mitmproxy import certs

from tidegate.runtime.ca import CaPaths, read_key
from tidegate.runtime.ca_certificate import permits

LEAF_LIFE: Final = timedelta(days=2)
BACKDATED: Final = timedelta(days=1)
"""For clients whose clock is behind."""
RENEWED: Final = timedelta(hours=12)
"""A cached leaf with less life than this is made anew."""
CACHED: Final = 1000


class LeafStore(certs.CertStore):
    """mitmproxy's certificate store, but with leaves that live for two days and have their own key.

    mitmproxy's live for 199 days, outlive the CA, use the CA's key as their own, and are cached
    until a hundred others were asked for, whether or not they have expired.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey, ca: x509.Certificate) -> None:
        super().__init__(
            default_privatekey=key,  # type: ignore[arg-type]  # typed RSA, used as any key
            default_ca=certs.Cert(ca),
            default_chain_file=None,
            default_crl=certs.dummy_crl(key, ca),  # type: ignore[arg-type]
            dhparams=None,  # type: ignore[arg-type]  # no finite-field suites: ECDHE only
        )
        self._ca = ca
        self._ca_key = key
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())  # in memory only
        self._leaves: OrderedDict[object, certs.CertStoreEntry] = OrderedDict()

    def permits(self, host: str) -> bool:
        """Whether the CA's constraints let it sign for a host."""
        return permits(self._ca, host)

    def get_cert(
        self,
        commonname: str | None,
        sans: Iterable[x509.GeneralName],
        organization: str | None = None,
        crl_url: str | None = None,
    ) -> certs.CertStoreEntry:
        """The certificate to show for these names. `crl_url` is not used: they live too short."""
        names = tuple(sans)
        asked = [n for n in (commonname, *(str(n.value) for n in names)) if n]
        for form in (form for name in asked for form in self.asterisk_forms(name)):
            if form in self.certs:  # given by the operator
                return self.certs[form]
        index = (commonname, names, organization)
        entry = self._leaves.get(index)
        if entry is None or entry.cert.notafter - datetime.now(UTC) < self._renewed():
            entry = self._leaves[index] = certs.CertStoreEntry(
                cert=certs.Cert(self._sign(commonname, names, organization)),
                privatekey=self._leaf_key,  # type: ignore[arg-type]
                chain_file=None,
                chain_certs=self.default_chain_certs,
            )
        self._leaves.move_to_end(index)
        if len(self._leaves) > CACHED:
            self._leaves.popitem(last=False)
        return entry

    def _renewed(self) -> timedelta:
        """Zero in the CA's last hours: a leaf made then lives no longer."""
        left = self._ca.not_valid_after_utc - datetime.now(UTC)
        return RENEWED if left > RENEWED else timedelta(0)

    def _sign(
        self, commonname: str | None, sans: tuple[x509.GeneralName, ...], organization: str | None
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        # One name outside the CA's constraints makes the whole certificate invalid, and an
        # upstream's certificate, whose names are taken over, may have many.
        allowed = [name for name in sans if permits(self._ca, _host(name))] or list(sans)
        subject = []
        if commonname and len(commonname) < 64:
            subject.append(x509.NameAttribute(NameOID.COMMON_NAME, commonname))
        if organization:
            subject.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
        issuer = self._ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return (
            x509.CertificateBuilder(self._ca.subject, x509.Name(subject))
            .public_key(self._leaf_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(max(now - BACKDATED, self._ca.not_valid_before_utc))
            .not_valid_after(min(now + LEAF_LIFE, self._ca.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_KEY_USAGE, critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer),
                critical=False,
            )
            # RFC 5280 §4.2.1.6: critical where the subject is empty.
            .add_extension(x509.SubjectAlternativeName(allowed), critical=not subject)
            .sign(self._ca_key, hashes.SHA256())
        )


_KEY_USAGE: Final = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def leaf_store(paths: CaPaths) -> LeafStore:
    """The store for the CA at `paths` (from `ensure_ca`). Raises ConfigError."""
    return LeafStore(*read_key(paths))


def _host(name: x509.GeneralName) -> str:
    value = name.value
    return str(value) if isinstance(value, IPv4Address | IPv6Address | str) else ""
