"""How programs come to trust the CA: bundles, environment variables, the system's trust store."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from tidegate.runtime.ca import problem, to_pem

SYSTEM_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # macOS, BSD
)
LOCAL: Final = "usr/local/share/ca-certificates"
PREFIX: Final = "tidegate-ca-"
BEGIN, END = "# tidegate-ca begin\n", "# tidegate-ca end\n"
PASSWORD: Final = "changeit"  # noqa: S105  Java's own default; what it guards is public


@dataclass(frozen=True, slots=True)
class Material:
    """Files that any program may read: certificates only."""

    own: Path
    """The CA's certificates, PEM: added to what a program trusts anyway."""
    bundle: Path
    """The system's roots and the CA's, PEM: for programs that trust that file and no other."""
    java: Path
    """The same as a PKCS #12 trust store."""


def write_material(folder: Path, ours: tuple[x509.Certificate, ...]) -> Material:
    """Write the files to a folder. Raises ConfigError `trust_not_writable`, `trust_no_roots`."""
    out = Material(folder / "tidegate-ca.pem", folder / "bundle.pem", folder / "truststore.p12")
    pem = b"".join(map(to_pem, ours))
    roots = system_roots()
    store = pkcs12.serialize_java_truststore(
        [
            pkcs12.PKCS12Certificate(c, f"{i} {fingerprint(c)[:8]}".encode())
            for i, c in enumerate(dict.fromkeys((*ours, *certificates_in(roots))))
        ],
        serialization.BestAvailableEncryption(PASSWORD.encode()),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, data in ((out.own, pem), (out.bundle, roots + b"\n" + pem), (out.java, store)):
            write_public(path, data)
    except OSError as error:
        raise problem("trust_not_writable", str(error.strerror), folder) from None
    return out


def system_roots() -> bytes:
    """What this system trusts, PEM. Not what SSL_CERT_FILE names: that may be our own bundle."""
    for name in SYSTEM_BUNDLES:
        if Path(name).is_file():
            return Path(name).read_bytes()
    hint = "install ca-certificates"
    raise problem("trust_no_roots", "none of the known bundles exists", Path("/etc/ssl"), hint)


def certificates_in(bundle: bytes) -> Iterator[x509.Certificate]:
    """The certificates of a bundle; one that can't be read costs only itself."""
    for pem in re.findall(
        rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", bundle, re.S
    ):
        # Some old roots have a serial number that RFC 5280 does not allow.
        with warnings.catch_warnings(action="ignore"), suppress(ValueError):
            yield x509.load_pem_x509_certificate(pem)


def write_public(path: Path, data: bytes) -> None:
    """Put a file in place whole, readable by all; left alone where it says the same already."""
    if path.is_file() and path.read_bytes() == data:
        return
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    with open(handle, "wb") as file:
        os.fchmod(handle, 0o644)
        file.write(data)
    os.replace(name, path)


def export_file(path: Path, data: bytes) -> None:
    """`write_public` where the user said where. Raises ConfigError `trust_not_writable`."""
    try:
        write_public(path, data)
    except OSError as error:
        raise problem("trust_not_writable", str(error.strerror), path) from None


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate, hexadecimal."""
    return sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def variables(material: Material) -> dict[str, str]:
    """What to set so that programs trust the CA, by the programs that read it."""
    bundle = str(material.bundle)
    return {
        "SSL_CERT_FILE": bundle,  # OpenSSL, Python ssl and httpx, Go, Ruby
        "REQUESTS_CA_BUNDLE": bundle,  # Python requests, botocore
        "CURL_CA_BUNDLE": bundle,
        "GIT_SSL_CAINFO": bundle,
        "NODE_EXTRA_CA_CERTS": str(material.own),
        "JAVA_TOOL_OPTIONS": f"-Djavax.net.ssl.trustStore={material.java} "
        f"-Djavax.net.ssl.trustStorePassword={PASSWORD}",
    }


def _single(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _dotenv(text: str) -> str:
    if "'" not in text and "\n" not in text:
        return f"'{text}'"  # literal in Compose, python-dotenv and dotenv of Node
    raise problem("trust_path", "a .env file can't hold this path", Path(text), "use --dir")


SHELLS: Final[dict[str, Callable[[str, str], str]]] = {
    "sh": lambda name, value: f"export {name}={_single(value)}",
    "fish": lambda name, value: f"set -gx {name} {_fish(value)}",
    "powershell": lambda name, value: "$env:{} = '{}'".format(name, value.replace("'", "''")),
    "dotenv": lambda name, value: f"{name}={_dotenv(value)}",
}


def unreadable(path: Path) -> Path | None:
    """The folder on the way to `path` that other users can't pass, if there is one."""
    return next((p for p in reversed(path.resolve().parents) if not p.stat().st_mode & 0o001), None)


def install(ours: Iterable[x509.Certificate], root: Path, system: str) -> list[str]:
    """Let a system trust these, and no earlier CA of ours. Returns what was changed.

    Raises ConfigError `trust_tool_missing`, `trust_not_writable`, `trust_tool_failed`.
    """
    return _apply({f"{PREFIX}{fingerprint(c)[:16]}.crt": to_pem(c) for c in ours}, root, system)


def remove(root: Path, system: str) -> list[str]:
    """Undo `install`; needs no CA and no state. Returns what was changed."""
    return _apply({}, root, system)


def _apply(wanted: dict[str, bytes], root: Path, system: str) -> list[str]:
    system = which_system(root) if system == "auto" else system
    tool = root / "usr/sbin/update-ca-certificates"
    local = root / LOCAL
    try:
        if not tool.exists():
            if system == "alpine":  # a base image: the bundle, but not the tool
                return _edit_bundle(root / "etc/ssl/certs/ca-certificates.crt", wanted)
            hint = "apt-get install ca-certificates"
            raise problem("trust_tool_missing", "is not installed", tool, hint)
        changed: list[str] = []
        for path in sorted(local.glob(f"{PREFIX}*.crt")):
            if path.name not in wanted:
                path.unlink()
                changed.append(f"removed {path}")
        for name, data in wanted.items():
            path = local / name
            if not path.is_file() or path.read_bytes() != data:
                local.mkdir(parents=True, exist_ok=True)
                write_public(path, data)
                changed.append(f"added {path}")
    except OSError as error:
        hint = "needs root" if isinstance(error, PermissionError) else ""
        raise problem("trust_not_writable", str(error.strerror), local, hint) from None
    if changed:
        _update(root, fresh=any(line.startswith("removed") for line in changed))
    return changed


def which_system(root: Path) -> str:
    """`debian` or `alpine`, by os-release. Raises ConfigError `trust_unknown_system`."""
    release = root / "etc/os-release"
    lines = release.read_text().splitlines() if release.is_file() else []
    pairs = dict(line.split("=", 1) for line in lines if "=" in line)
    like = {word for key in ("ID", "ID_LIKE") for word in pairs.get(key, "").strip("\"'").split()}
    for system in ("debian", "alpine"):
        if system in like:
            return system
    text = "neither Debian nor Alpine, nor like them"
    hint = "`tidegate ca export` writes the certificate: add it with that system's own tool"
    raise problem("trust_unknown_system", text, release, hint)


def _update(root: Path, *, fresh: bool) -> None:
    # Without --fresh, Debian's leaves a dangling link for a certificate that is gone.
    command = ["update-ca-certificates", *(["--fresh"] if fresh else [])]
    if root.resolve() != Path("/"):
        command = ["chroot", str(root), *command]
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"  # not on every user's PATH
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
    )
    if done.returncode:
        text = f"{' '.join(command)}: {done.stderr.strip() or done.returncode}"
        raise problem("trust_tool_failed", text, root / LOCAL)


def _edit_bundle(bundle: Path, wanted: dict[str, bytes]) -> list[str]:
    """Keep a marked block of ours at the end of a bundle; what stands around it stays."""
    if not bundle.is_file():
        hint = "apk add ca-certificates"
        raise problem("trust_tool_missing", "is not installed", bundle, hint)
    text = bundle.read_text(encoding="utf-8", errors="surrogateescape")
    before, mark, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    new = (before + after) if mark else text
    if wanted:
        new += BEGIN + b"".join(wanted.values()).decode() + END
    if new == text:
        return []
    write_public(bundle, new.encode(errors="surrogateescape"))
    return [f"changed {bundle}"]
