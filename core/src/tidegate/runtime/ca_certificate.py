"""What the CA's certificate says, and for which names it may speak (RFC 5280)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .problems import ConfigError, Problem

NAME: Final = "Tidegate CA"
MAX_DAYS: Final = 397
BACKDATED: Final = timedelta(hours=1)
"""For clients whose clock is behind."""

_DNS: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")


def make_certificate(
    days: int, permit: tuple[str, ...] = ()
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """A new P-256 key and its self-signed CA certificate, valid for `days` from an hour ago.

    `permit`: the only names it may sign for, as `parse_permit`. Raises ConfigError `ca_option`.
    """
    if not 1 <= days <= MAX_DAYS:
        raise _option(f"--days {days}: from 1 to {MAX_DAYS}")
    constraints = parse_permit(permit)
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # RFC 5280 finds an issuer by its name: a rotated CA must not have its predecessor's.
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tidegate"),
            x509.NameAttribute(NameOID.COMMON_NAME, NAME),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, f"{serial:040x}"[:12]),
        ]
    )
    start = datetime.now(UTC) - BACKDATED
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), serial)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_KEY_USAGE, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if constraints is not None:
        builder = builder.add_extension(constraints, critical=True)
    return key, builder.sign(key, hashes.SHA256())


_KEY_USAGE: Final = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def parse_permit(names: tuple[str, ...]) -> x509.NameConstraints | None:
    """The constraint to these names: `example.com` (and below it), `10.0.0.0/8`. None: no names.

    A constraint binds only names of its own kind (RFC 5280 §4.2.1.10): one on host names would
    leave addresses free, and the reverse. So the kind that is not listed is excluded.
    Raises ConfigError `ca_option`.
    """
    if not names:
        return None
    permitted: list[x509.GeneralName] = []
    for name in dict.fromkeys(names):
        try:
            network = ip_network(name)
        except ValueError:
            permitted.append(x509.DNSName(_dns(name)))
        else:
            permitted.append(x509.IPAddress(network))
    excluded: list[x509.GeneralName] = []
    if not any(isinstance(name, x509.IPAddress) for name in permitted):
        excluded += [x509.IPAddress(ip_network("0.0.0.0/0")), x509.IPAddress(ip_network("::/0"))]
    if not any(isinstance(name, x509.DNSName) for name in permitted):
        excluded.append(x509.DNSName(""))  # every name is below the empty one
    return x509.NameConstraints(list(dict.fromkeys(permitted)), excluded or None)


def _dns(name: str) -> str:
    text = name.removeprefix("*").removeprefix(".").lower()
    try:
        ascii_name = text.encode("idna").decode()
    except UnicodeError:
        ascii_name = ""
    numbers = re.fullmatch(r"[0-9./]+", text) or ":" in text
    if numbers or not _DNS.fullmatch(ascii_name) or len(ascii_name) > 253:
        raise _option(f"--permit {name!r}: neither a name such as example.com nor a network")
    return ascii_name


def constraints_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The names that it may sign for; empty: any."""
    return tuple(str(name.value) for name in _permitted(certificate))


def permits(certificate: x509.Certificate, host: str) -> bool:
    """Whether it may sign for a host, given as a name or an address."""
    permitted = _permitted(certificate)
    if not permitted:
        return True
    try:
        address = ip_address(host)
    except ValueError:
        labels = host.lower().rstrip(".").removeprefix("*.")
        return any(
            labels == name.value or labels.endswith(f".{name.value}")
            for name in permitted
            if isinstance(name, x509.DNSName)
        )
    return any(
        isinstance(name.value, IPv4Network | IPv6Network) and address in name.value
        for name in permitted
    )


def _permitted(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.NameConstraints)
    except x509.ExtensionNotFound:
        return []
    return list(found.value.permitted_subtrees or [])


def _option(message: str) -> ConfigError:
    return ConfigError(Problem("ca_option", message))
