"""What a certificate says of its holder, and lists of those that were revoked. No I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

_PEM: Final = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)
_NAMES: Final = {
    "common_name": NameOID.COMMON_NAME,
    "organization": NameOID.ORGANIZATION_NAME,
    "organizational_unit": NameOID.ORGANIZATIONAL_UNIT_NAME,
}


@dataclass(frozen=True, slots=True)
class Holder:
    """What the certificate of a client says.

    `names`: of the subject (`common_name`, …) and its alternative names (`dns`, `uri`, `email`,
    `ip`), in the order in which they stand there.
    """

    fingerprint: str
    issuer: bytes
    serial: int
    since: float
    until: float
    names: dict[str, tuple[str, ...]]

    def only(self, kind: str) -> str | None:
        """The name of a kind, where there is exactly one, and it can be printed."""
        found = self.names.get(kind, ())
        usable = len(found) == 1 and 0 < len(found[0]) <= 256 and found[0].isprintable()
        return found[0] if usable else None


def read(der: bytes) -> Holder:
    """Take a certificate apart. Raises ValueError where it is none."""
    certificate = x509.load_der_x509_certificate(der)
    names = {
        kind: tuple(str(one.value) for one in certificate.subject.get_attributes_for_oid(oid))
        for kind, oid in _NAMES.items()
    }
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        pass
    else:
        names["dns"] = tuple(n.lower() for n in found.value.get_values_for_type(x509.DNSName))
        names["uri"] = tuple(found.value.get_values_for_type(x509.UniformResourceIdentifier))
        names["email"] = tuple(found.value.get_values_for_type(x509.RFC822Name))
        names["ip"] = tuple(map(str, found.value.get_values_for_type(x509.IPAddress)))
    return Holder(
        certificate.fingerprint(SHA256()).hex(),
        certificate.issuer.public_bytes(),
        certificate.serial_number,
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
        names,
    )


class RevocationError(ValueError):
    """The file holds no lists of revoked certificates that could be used."""


@dataclass(frozen=True, slots=True)
class _List:
    revoked: frozenset[int]
    until: float


class Revocations:
    """Lists of revoked certificates (RFC 5280 §5), one for each issuer."""

    __slots__ = ("_lists",)

    def __init__(self, document: bytes) -> None:
        """PEM, or one list in DER. Raises RevocationError."""
        parts: Sequence[bytes] = _PEM.findall(document)
        load: Callable[[bytes], x509.CertificateRevocationList] = (
            x509.load_pem_x509_crl if parts else x509.load_der_x509_crl
        )
        self._lists: dict[bytes, _List] = {}
        try:
            for found in map(load, parts or [document]):
                until = found.next_update_utc
                if until is None:
                    raise RevocationError("a list does not say until when it holds")
                revoked = frozenset(one.serial_number for one in found)
                self._lists[found.issuer.public_bytes()] = _List(revoked, until.timestamp())
        except ValueError as error:
            reason = str(error) if isinstance(error, RevocationError) else "it can't be read"
            raise RevocationError(reason) from None

    def revoked(self, holder: Holder, now: float) -> bool | None:
        """Whether a certificate was revoked; None: there is no list that could tell now."""
        found = self._lists.get(holder.issuer)
        if found is None:
            return None
        if holder.serial in found.revoked:
            return True
        return False if now < found.until else None
