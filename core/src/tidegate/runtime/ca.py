"""The node's own certificate authority: its files, who may read them, how it is replaced.

    <state>/ca/                  0700, of the user that runs the node
        mitmproxy-ca.pem         0600: private key and certificate. Replaced whole, by one rename
        mitmproxy-ca-cert.pem    the certificate alone
        previous.pem             certificates (never keys) that were replaced and have not expired

The names are mitmproxy's, whose certificate store loads the folder as it is.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from .ca_certificate import constraints_of, make_certificate
from .problems import ConfigError, Problem

FOLDER: Final = "ca"
DAYS: Final = 90
"""How long a CA is valid unless told otherwise."""


@dataclass(frozen=True, slots=True)
class CaPaths:
    """Where a CA's files are."""

    folder: Path

    @property
    def key(self) -> Path:
        """Private key and certificate, PEM."""
        return self.folder / "mitmproxy-ca.pem"

    @property
    def certificate(self) -> Path:
        """The certificate alone, PEM."""
        return self.folder / "mitmproxy-ca-cert.pem"

    @property
    def previous(self) -> Path:
        """The certificates of earlier CAs, PEM."""
        return self.folder / "previous.pem"


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA as it is on disk, and those it followed."""

    paths: CaPaths
    certificate: x509.Certificate
    previous: tuple[x509.Certificate, ...] = ()
    """Not expired, newest first."""

    @property
    def all(self) -> tuple[x509.Certificate, ...]:
        """What a client must trust while it may still meet an earlier CA."""
        return (self.certificate, *self.previous)

    @property
    def expired(self) -> bool:
        """Whether it is past its time."""
        return self.certificate.not_valid_after_utc <= datetime.now(UTC)


def ensure_ca(state: Path, *, days: int = DAYS, permit: tuple[str, ...] = ()) -> CaPaths:
    """The CA of a node, made where there is none. For who uses its key.

    `days` and `permit` count only for a new one. Raises ConfigError: `ca_permissions` where
    others can read it or own it, `ca_expired`, `ca_unreadable`, `ca_option`.
    """
    paths = CaPaths(state / FOLDER)
    with _locked(_make_folder(paths.folder)):
        if not os.path.lexists(paths.key):
            _write_ca(paths, *make_certificate(days, permit))
        authority = _read(paths, os.geteuid())
        if authority.expired:
            text = f"the CA expired on {authority.certificate.not_valid_after_utc:%Y-%m-%d}"
            raise problem("ca_expired", text, paths.key, "`tidegate ca rotate` makes a new one")
        _repair(paths, authority.certificate)
    return paths


def read_ca(state: Path) -> Authority:
    """The certificates of a node's CA. For who hands them to clients; changes nothing.

    The superuser may read another user's. Raises ConfigError: `ca_missing`, and those of
    `ensure_ca` except `ca_expired`.
    """
    paths = CaPaths(state / FOLDER)
    if not os.path.lexists(paths.key):
        hint = "a node that intercepts makes one, and so does `tidegate ca rotate`"
        raise problem("ca_missing", "there is no CA here", paths.folder, hint)
    owner = os.geteuid() or paths.folder.lstat().st_uid
    _check(paths.folder.lstat(), paths.folder, 0o700, owner)
    return _read(paths, owner)


def rotate_ca(
    state: Path, *, days: int = DAYS, permit: tuple[str, ...] = (), keep_constraints: bool = True
) -> Authority:
    """A new CA in the place of the old one, whose certificate is kept until it expires.

    Without `permit`, the old one's constraints hold for the new one, unless `keep_constraints`
    is off. The old key is gone. Safe to interrupt at any point. Raises ConfigError.
    """
    paths = CaPaths(state / FOLDER)
    with _locked(_make_folder(paths.folder)):
        if os.path.lexists(paths.key):
            old = _read(paths, os.geteuid())
            if not permit and keep_constraints:
                permit = constraints_of(old.certificate)
            new = make_certificate(days, permit)  # refused before anything is written
            kept = old.previous if old.expired else old.all
            _write(paths.previous, b"".join(map(to_pem, kept)))
        else:
            new = make_certificate(days, permit)
        _write_ca(paths, *new)
        return _read(paths, os.geteuid())


def read_key(paths: CaPaths) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Private key and certificate. Raises ConfigError as `ensure_ca`."""
    data = _read_private(paths.key, os.geteuid())
    key = serialization.load_pem_private_key(data, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise problem("ca_unreadable", "its key is not an elliptic-curve key", paths.key)
    return key, x509.load_pem_x509_certificate(data)


def to_pem(certificate: x509.Certificate) -> bytes:
    """A certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def problem(code: str, message: str, path: Path, hint: str = "") -> ConfigError:
    """A ConfigError about one file."""
    return ConfigError(Problem(code, message, str(path), hint=hint))


def _make_folder(folder: Path) -> Path:
    """The folder: made 0700 in one step, or there already and private."""
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        _check(folder.lstat(), folder, 0o700, os.geteuid())
    except OSError as error:
        raise problem("ca_unreadable", f"can't be used: {error.strerror}", folder) from None
    return folder


def _check(status: os.stat_result, path: Path, mode: int, owner: int) -> None:
    """Refuse what others may read, write or own, and what is not what it should be."""
    wanted = stat.S_ISDIR if mode == 0o700 else stat.S_ISREG
    if not wanted(status.st_mode):
        kind = "folder" if mode == 0o700 else "regular file"
        raise problem("ca_permissions", f"is not a {kind}", path)
    if stat.S_IMODE(status.st_mode) & 0o077:
        text = f"others may use it: its mode is {stat.S_IMODE(status.st_mode):04o}"
        raise problem("ca_permissions", text, path, f"chmod {mode:o}, if nobody took the key")
    if status.st_uid != owner:
        text = f"belongs to user {status.st_uid}, not to user {owner}"
        raise problem("ca_permissions", text, path, "run as its owner, or choose another --state")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Alone among the processes that change this CA. Clears what a crash left half written."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in folder.glob(".new-*"):
            left.unlink()
        yield
    finally:
        os.close(lock)


def _read(paths: CaPaths, owner: int) -> Authority:
    now = datetime.now(UTC)
    data = _read_private(paths.key, owner)
    try:
        current = x509.load_pem_x509_certificate(data)
        earlier: list[x509.Certificate] = []
        if os.path.lexists(paths.previous) and (old := _read_private(paths.previous, owner)):
            earlier = x509.load_pem_x509_certificates(old)
    except ValueError as error:
        raise problem("ca_unreadable", f"not a CA: {error}", paths.key) from None
    kept = [c for c in earlier if c != current and c.not_valid_after_utc > now]
    return Authority(paths, current, tuple(kept))


def _read_private(path: Path, owner: int) -> bytes:
    """What a private file holds. Checked on the open file: no name is looked up twice."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            _check(os.fstat(file.fileno()), path, 0o600, owner)
            return file.read()
    except OSError as error:
        code = "ca_permissions" if path.is_symlink() else "ca_unreadable"
        raise problem(code, f"can't be read: {error.strerror}", path) from None


def _write_ca(
    paths: CaPaths, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate
) -> None:
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _write(paths.key, secret + to_pem(certificate))
    _repair(paths, certificate)


def _repair(paths: CaPaths, certificate: x509.Certificate) -> None:
    """Let the certificate's own file say what the CA is: a crash may have come between."""
    data = to_pem(certificate)
    if not paths.certificate.exists() or paths.certificate.read_bytes() != data:
        _write(paths.certificate, data)


def _write(path: Path, data: bytes) -> None:
    """Put a file in place whole. mkstemp makes it 0600 from its first instant (O_EXCL)."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
