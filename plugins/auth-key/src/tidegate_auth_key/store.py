"""The files of the addon: the pepper, and the keys made by `tidegate keys create`."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

from tidegate.api import Model

from .keys import Key, expiry, principal

PEPPER_BYTES = 32


class StoredKey(Model):
    """One key in the file."""

    name: str = Field(min_length=1)
    team: str = ""
    hash: str = Field(pattern="^[0-9a-f]{64}$")
    prefix: str = ""
    created: datetime
    expires: datetime | date | None = None

    @property
    def id(self) -> str:
        """`team/name`, or `name` where there is no team."""
        return f"{self.team}/{self.name}" if self.team else self.name

    def key(self) -> Key:
        """As the gateway looks it up."""
        return Key(self.hash, principal(self.name, self.team, self.prefix), expiry(self.expires))


class KeyFileError(Exception):
    """The key file can't be read or is not what it should be. Never holds a value of it."""


_KEYS = TypeAdapter(list[StoredKey])


class KeyFile:
    """A JSON file of keys, mode 0600, replaced whole at each change."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[StoredKey]:
        """The keys; none where there is no file. Raises KeyFileError."""
        try:
            document = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise KeyFileError(f"{self.path}: {error.strerror}") from None
        except ValueError:
            raise KeyFileError(f"{self.path} is not JSON") from None
        try:
            return _KEYS.validate_python(document["keys"])
        except (KeyError, TypeError):
            raise KeyFileError(f'{self.path} is not of the form {{"keys": […]}}') from None
        except ValidationError as error:
            where = error.errors(include_input=False)[0]
            key = ".".join(str(part) for part in where["loc"])
            raise KeyFileError(f"{self.path}: keys.{key}: {where['msg']}") from None

    def signature(self) -> tuple[int, int, int]:
        """Changes when the file does; zeros where there is none."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return (0, 0, 0)
        return (status.st_mtime_ns, status.st_size, status.st_ino)

    @contextmanager
    def change(self) -> Iterator[list[StoredKey]]:
        """The keys, to be changed in place; written when the block ends without an error.

        Holds a lock on the folder, so that two commands at once don't lose a key.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            keys = self.read()
            yield keys
            document = {"keys": _KEYS.dump_python(keys, mode="json")}
            write_private(self.path, json.dumps(document, indent=1).encode() + b"\n")
        finally:
            os.close(folder)


def write_private(path: Path, content: bytes) -> None:
    """Replace a file, mode 0600, whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def node_pepper(state: Path) -> bytes:
    """The node's pepper, made at first use: `<state>/pepper`, 32 random bytes, mode 0600.

    Raises ValueError where the file is cut: going on with less would lock every key out.
    """
    path = state / "pepper"
    if not path.exists():
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=state, prefix=".pepper-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(PEPPER_BYTES))
            os.link(temporary, path)  # where another process was first, its pepper stays
        except FileExistsError:
            pass
        finally:
            os.unlink(temporary)
    pepper = path.read_bytes()
    if len(pepper) != PEPPER_BYTES:
        raise ValueError(f"{path} is not a pepper of {PEPPER_BYTES} bytes: restore it")
    return pepper


def now() -> datetime:
    """The time of creation that is written to the file."""
    return datetime.now(UTC).replace(microsecond=0)
