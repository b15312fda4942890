"""The audit: every change by whom, when, from where; chained, so that tampering shows.

Each entry holds the HMAC of itself and of the entry before it, under a key that the database
does not hold in the clear: one who can write to the database can't make a chain that verifies.
What he could do is cut off the newest entries; so the head of the chain is written to a file
beside the database (the anchor) as well, and `verify` compares.
"""

from __future__ import annotations

import hmac
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from sqlalchemy import Connection, insert, select

from tidegate.api.store import Actor, Entry

from .errors import StoreError
from .tables import audit

START: Final = "0" * 64
"""What the first entry names as its predecessor."""
_SIGNED: Final = (
    *("seq", "at", "actor", "source", "request_id", "team_id", "action", "target"),
    *("before", "after", "previous"),
)
CHUNK: Final = 1000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found: how many entries are as they were, and the first that is not."""

    good: int
    bad: int | None = None
    reason: str = ""


def append(
    connection: Connection, key: bytes, at: float, actor: Actor, entries: Sequence[Entry]
) -> None:
    """Write entries at the end of the chain. The caller holds the lock of the change."""
    seq, previous = head(connection)
    rows = []
    for entry in entries:
        seq += 1
        row: dict[str, Any] = {
            "seq": seq,
            "at": at,
            "actor": actor.name,
            "source": actor.source,
            "request_id": actor.request_id,
            "team_id": entry.team_id,
            "action": entry.action,
            "target": entry.target,
            "before": _told(entry.before),
            "after": _told(entry.after),
            "previous": previous,
        }
        previous = row["mac"] = _mac(key, row)
        rows.append(row)
    if rows:
        connection.execute(insert(audit), rows)


def head(connection: Connection) -> tuple[int, str]:
    """Number and HMAC of the last entry; (0, `START`) where there is none."""
    newest = select(audit.c.seq, audit.c.mac).order_by(audit.c.seq.desc()).limit(1)
    row = connection.execute(newest).first()
    return (row.seq, row.mac) if row is not None else (0, START)


def verify(connection: Connection, key: bytes, anchor: Anchor) -> Verdict:
    """Read the whole chain."""
    seen, previous = 0, START
    known = anchor.read()
    while True:
        rows = connection.execute(
            select(audit).where(audit.c.seq > seen).order_by(audit.c.seq).limit(CHUNK)
        ).all()
        for row in rows:
            values = row._asdict()
            if values["seq"] != seen + 1:
                return Verdict(seen, seen + 1, "is missing")
            if values["previous"] != previous:
                return Verdict(seen, seen + 1, "does not follow the one before it")
            if not hmac.compare_digest(_mac(key, values), values["mac"]):
                return Verdict(seen, seen + 1, "was changed")
            if known is not None and known[0] == seen + 1 and known[1] != values["mac"]:
                return Verdict(seen, seen + 1, "is not the one that the anchor names")
            seen, previous = values["seq"], values["mac"]
        if not rows:
            break
    if known is not None and known[0] > seen:
        return Verdict(seen, seen + 1, f"is missing: the anchor knows {known[0]} entries")
    return Verdict(seen)


class Anchor:
    """The head of the chain in a file outside the database."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[int, str] | None:
        """Number and HMAC of the entry that was the last one; None: no anchor yet."""
        try:
            document = json.loads(self.path.read_bytes())
            return int(document["seq"]), str(document["mac"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            raise StoreError("invalid", f"{self.path} is not an anchor of the audit") from None

    def move(self, connection: Connection, *, anew: bool = False) -> bool:
        """Write down the head, if the entry anchored before is still in the chain.

        False: it is not; the anchor stays, for it is the evidence. `anew`: don't ask.
        """
        known = None if anew else self.read()
        if known is not None and known[0]:
            stands = select(audit.c.mac).where(audit.c.seq == known[0])
            if connection.execute(stands).scalar() != known[1]:
                return False
        now = head(connection)
        if now != known:
            self._write(*now)
        return True

    def _write(self, seq: int, mac: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}-")
        try:
            with os.fdopen(handle, "w") as file:
                json.dump({"seq": seq, "mac": mac}, file)
            os.replace(temporary, self.path)
        except BaseException:
            os.unlink(temporary)
            raise


def _told(values: Mapping[str, Any] | None) -> str | None:
    return None if values is None else orjson.dumps(values, option=orjson.OPT_SORT_KEYS).decode()


def _mac(key: bytes, row: Mapping[str, Any]) -> str:
    signed = orjson.dumps([row[name] for name in _SIGNED])
    return hmac.digest(key, signed, "sha256").hex()
