"""Clients that don't take a certificate of ours: told by host and client, and remembered.

A client that trusts the CA finishes the handshake and asks for something. One that does not
sends an alert (RFC 8446 §6.2), or hangs up; one that pins certificates may hang up only after
the handshake. The memory is bounded, forgets after an hour, and is each worker's own.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mitmproxy.tls import TlsData

from .sparse import Sparse

if TYPE_CHECKING:
    from .handler import Handler
    from .master import Master

told = Sparse(logging.getLogger("tidegate.engine"))

KEPT: Final = 1000
"""Pairs of client and host that are remembered."""
MEMORY: Final = 3600.0
"""Seconds after which a refusal is forgotten, and interception is tried again."""
SILENCES: Final = 3
"""Connections in a row that a client closes without a request before it counts as refusing."""

ALERTS: Final = (
    ("unknown ca", "it does not trust the CA (`tidegate ca env` and `install` say how)"),
    ("certificate unknown", "it does not trust the CA, or it pins the host's certificate"),
    ("bad certificate", "it pins the host's certificate, or does not trust the CA"),
    ("certificate expired", "the certificate is not valid by its clock"),
    ("unsupported certificate", "it can't use the kind of certificate that it was shown"),
    ("connection closed", "it hung up: it may not trust the CA, or pin the host's certificate"),
)
"""What OpenSSL says of a failed handshake, and the likely reason."""
SILENT: Final = "it hangs up after the handshake: it may pin the host's certificate"


@dataclass(slots=True)
class Refusal:
    """What is known of one client and one host."""

    reason: str = ""
    """Why it refuses, or "" while that is not certain."""
    count: int = 0
    silences: int = 0
    last: float = field(default_factory=time.monotonic)


class Refusals:
    """The hooks that see handshakes end, and the memory of who refused."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._known: OrderedDict[tuple[str, str], Refusal] = OrderedDict()

    def holds(self, client: str, host: str) -> bool:
        """Whether this client has refused certificates for this host."""
        refusal = self._known.get((client, host))
        if refusal is not None and time.monotonic() - refusal.last > MEMORY:
            del self._known[client, host]
            return False
        return refusal is not None and bool(refusal.reason)

    def table(self) -> list[dict[str, Any]]:
        """Who refuses what and why, the latest last."""
        return [
            {"client": client, "host": host, "reason": found.reason, "count": found.count}
            for (client, host), found in self._known.items()
            if found.reason
        ]

    def accepted(self, handler: Handler) -> None:
        """A request came through: whoever refused before has learnt to trust."""
        if handler.shaken:
            self._known.pop((handler.client.peername[0], handler.shaken), None)
            handler.shaken = ""

    def left(self, handler: Handler) -> None:
        """A connection is over. Without a request since its handshake it may be a refusal."""
        if not handler.shaken:
            return
        refusal = self._at(handler.client.peername[0], handler.shaken)
        refusal.silences += 1
        if refusal.silences >= SILENCES:
            self._note(handler.client.peername[0], handler.shaken, SILENT)

    # -- hooks --------------------------------------------------------------------------------

    def tls_established_client(self, data: TlsData) -> None:
        """The client took the certificate, so far."""
        handler = self._master.handler_by(data.context.client)
        handler.head_since = 0.0
        handler.idle_since = time.monotonic()
        handler.peer = None  # what is known of the client has changed
        handler.shaken = name_of(data)

    def tls_failed_client(self, data: TlsData) -> None:
        """The handshake failed: is it a refusal?"""
        error = data.conn.error or ""
        reason = next((why for alert, why in ALERTS if alert in error), "")
        client = data.context.client
        if reason:
            self._note(client.peername[0], name_of(data), reason)
        else:
            self._master.count("tls_failed_total")

    def _note(self, client: str, host: str, reason: str) -> None:
        refusal = self._at(client, host)
        self._master.count("ca_refused_total")
        refusal.count += 1
        if refusal.reason != reason:  # once per client, host and reason
            told.warning("client %s refuses the certificate for %s: %s", client, host, reason)
        refusal.reason = reason

    def _at(self, client: str, host: str) -> Refusal:
        refusal = self._known.setdefault((client, host), Refusal())
        refusal.last = time.monotonic()
        self._known.move_to_end((client, host))
        if len(self._known) > KEPT:
            self._known.popitem(last=False)
        return refusal


def name_of(data: TlsData) -> str:
    """The host that a client was shown a certificate for."""
    client, address = data.context.client, data.context.server.address
    return (client.sni or (address[0] if address else client.sockname[0])).lower()
