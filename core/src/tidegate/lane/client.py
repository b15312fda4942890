"""A client's connection: parses requests, answers them in order, closes well."""

from __future__ import annotations

import asyncio
import logging
import time
from random import getrandbits
from typing import TYPE_CHECKING, Final, cast

from tidegate.api import errors
from tidegate.api.types import Client, Denial
from tidegate.runtime.heads import HeadError, open_exchange
from tidegate.runtime.kinds import HOP_BY_HOP
from tidegate.runtime.lifecycle import LAST_CALL
from tidegate.runtime.messages import Fields, error_response
from tidegate.runtime.settings import Listener

from .exchange import Carriage
from .framing import (
    CLOSE,
    CONTINUE,
    H2_PREFACE,
    H2_REFUSAL,
    KEEP,
    fields_block,
    status_line,
)
from .handover import Handover, upgrade_head
from .peer import client_of, has_left
from .requests import Incoming, RequestReader
from .stages import NEVER

if TYPE_CHECKING:
    from .server import Lane

log = logging.getLogger("tidegate.lane")

HELD: Final = 64 * 1024
"""Bytes that may wait behind the request in progress before reading is paused."""
LINGER: Final = 2.0
"""Seconds for which a client that is still sending gets to read why it was refused."""
LINGER_BYTES: Final = 256 * 1024
PROBED: Final = 0.03
"""Seconds after which the answer to a probe has come: a reset from a client that is gone."""


class ClientConnection(asyncio.Protocol):
    """One connection. One exchange at a time is in progress; what is pipelined waits.

    `deadline` is that of what is awaited now, `stall` that of a client that takes no bytes,
    `total` that of the upstream. `last` says that the connection closes after this answer.
    """

    __slots__ = (
        "_client",
        "_discarded",
        "_half_closed",
        "_heading",
        "_held",
        "_lingering",
        "_outbox",
        "_pumping",
        "_reader",
        "_rest",
        "carriage",
        "deadline",
        "lane",
        "last",
        "listener",
        "stall",
        "total",
        "transport",
        "trusted",
        "writable",
    )

    _client: Client

    def __init__(self, lane: Lane, listener: Listener) -> None:
        self.lane = lane
        self._outbox = lane.outbox
        self.listener = listener
        self.transport: asyncio.Transport | None = None
        self.carriage: Carriage | None = None
        self.deadline = self.stall = self.total = NEVER
        self.writable = True
        self.last = False
        self.trusted = False
        self._reader = RequestReader(lane.settings.limits)
        self._rest = b""
        self._heading = False
        self._held = False
        self._half_closed = False
        self._lingering = False
        self._discarded = 0
        self._pumping = False

    # -- asyncio's callbacks --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast(asyncio.Transport, transport)
        lane = self.lane
        self._client = client_of(transport)
        self.trusted = lane.proxies.trusts(self._client.peer)
        self.deadline = lane.now + lane.head
        if not lane.admit(self):
            self._overload()

    def data_received(self, data: bytes) -> None:
        carriage, reader = self.carriage, self._reader
        if self._lingering:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self.hold_reading()
        elif carriage is not None and carriage.incoming.complete:
            self._rest += data
            if len(self._rest) > HELD:
                self.hold_reading()
        elif carriage is not None:
            self._rest = reader.feed(data)
            carriage.body_arrived()
        else:
            if data.startswith(H2_PREFACE) and not reader.started:
                self._refuse_h2()
                return
            self._rest = reader.feed(data)
            self._pump()

    def eof_received(self) -> bool:
        """The client sends no more. One that waits for its answer may have gone altogether.

        A FIN does not tell whether the client half-closed or left: an interim response does,
        because whoever left answers it with a reset. After the answer has begun, and under TLS,
        it is taken as gone.
        """
        carriage, transport = self.carriage, self.transport
        if carriage is None or self._client.tls or transport is None:
            return False
        begun = carriage.answer is not None and carriage.answer.begun
        if begun or not carriage.incoming.complete:
            return False
        self._half_closed = True
        if carriage.incoming.version == b"HTTP/1.1":
            self.write(CONTINUE)
            self.lane.loop.call_later(PROBED, self._probe)
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self.deadline = self.stall = self.total = NEVER
        self.last = True
        self.lane.forget(self)
        if self.carriage is not None:
            self.carriage.client_gone()

    def pause_writing(self) -> None:
        self.writable = False
        self.stall = self.lane.now + self.lane.write
        if self.carriage is not None and self.carriage.answer is not None:
            self.carriage.answer.client_full()

    def resume_writing(self) -> None:
        self.writable = True
        self.stall = NEVER
        if self.carriage is not None and self.carriage.answer is not None:
            self.carriage.answer.client_ready()

    # -- requests -------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Start what can be started; feed what waits to be parsed."""
        if self._pumping:
            return
        self._pumping = True
        reader = self._reader
        try:
            while self.carriage is None and not self.last:
                incoming = reader.take()
                if incoming is None and self._rest:
                    self._rest = reader.feed(self._rest)
                    incoming = reader.take()
                if incoming is None:
                    self._await_head()
                    return
                if self._held and len(self._rest) <= HELD:
                    self.release_reading()
                self._begin(incoming)
        finally:
            self._pumping = False

    def _begin(self, incoming: Incoming) -> None:
        self._heading = False
        if incoming.refusal is not None and not incoming.method:
            self.refuse(incoming.refusal.denial())
        elif incoming.upgrade or incoming.method == b"CONNECT":
            self._upgrade(incoming)
        else:
            carriage = self.carriage = Carriage(self, incoming)
            carriage.start()

    def _await_head(self) -> None:
        lane = self.lane
        if self._held:
            self.release_reading()
        if self._half_closed:
            self._shut()
        elif not self._reader.started:
            self.deadline = lane.now + (LAST_CALL if lane.draining else lane.keepalive)
        elif not self._heading:
            self._heading = True
            self.deadline = lane.now + lane.head

    def client_of(self, incoming: Incoming) -> Client:
        """Who the client of a request is: the peer, or whom a trusted proxy names."""
        client = self._client
        if not self.trusted:
            return client
        address = self.lane.proxies.client_address(client.peer, incoming.fields)
        return Client(address, client.port, client.peer, client.tls, client.sni, client.certificate)

    def _upgrade(self, incoming: Incoming) -> None:
        """Hand a WebSocket request over, refuse any other upgrade. No hook has run."""
        handover, transport = self.lane.handover, self.transport
        head = upgrade_head(incoming)
        if handover is None or head is None or transport is None or incoming.refusal is not None:
            self.refuse(errors.UPGRADE_NOT_ALLOWED.denial())
            return
        try:
            open_exchange(
                incoming.method,
                incoming.target,
                incoming.fields,
                self._client,
                listener=self.listener.name,
                paths=self.lane.paths,
            )
        except HeadError as error:
            self.refuse(error.denial)
            return
        self.last = True
        self.deadline = self.stall = self.total = NEVER
        self.lane.forget(self)
        self._outbox.flush()
        self.transport = None
        handover(Handover(self.listener, transport, head + self._rest, self._client))

    # -- answers --------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send bytes of the answer in progress."""
        if self.transport is not None:
            self._outbox.put(self.transport, data)

    def send_continue(self) -> None:
        """Tell a client that waits that its body is wanted (RFC 9110 §10.1.1)."""
        self.write(CONTINUE)

    def send_interim(self, status: int, fields: Fields) -> None:
        """Pass a 1xx on, but for 100, which is ours to send (RFC 9110 §15.2)."""
        carriage = self.carriage
        if carriage is None or status == 100 or carriage.incoming.version != b"HTTP/1.1":
            return
        kept = [field for field in fields if field[0].lower() not in HOP_BY_HOP]
        self.write(status_line(status, b"") + fields_block(kept) + b"\r\n")

    def persistence(self, incoming: Incoming) -> bytes:
        """The Connection field of an answer: decides whether it is the last one here."""
        if (
            self.last
            or not incoming.keep_alive
            or not incoming.complete
            or incoming.refusal is not None
            or self.lane.draining
            or (self._half_closed and not self._rest)
        ):
            self.last = True
            return CLOSE
        return b"" if incoming.version == b"HTTP/1.1" else KEEP

    def answered(self, carriage: Carriage) -> None:
        """An exchange has ended: go on with the next, or close."""
        self.carriage = None
        self.total = NEVER
        if self.last:
            self._shut(unread=not carriage.incoming.complete)
        else:
            self._pump()

    def refuse(self, denial: Denial) -> None:
        """Answer what is no exchange with an error, and close."""
        self.lane.runtime.counters.add("refused_total")
        response = error_response(denial, f"{getrandbits(96):024x}", time.time())
        self.last = True
        self.write(
            status_line(response.data.status_code, response.data.reason)
            + fields_block(response.data.headers.fields)
            + CLOSE
            + b"\r\n"
            + (response.data.content or b"")
        )
        self._shut(unread=True)

    def _overload(self) -> None:
        self.refuse(errors.OVERLOADED.denial(retry_after=1.0))
        if len(self.lane.clients) > self.lane.connections + self.lane.lingerers and self.transport:
            self.transport.close()

    def _refuse_h2(self) -> None:
        self.last = True
        self.write(H2_REFUSAL)
        self._shut(unread=True)

    # -- ends and pressure ----------------------------------------------------------------------

    def _shut(self, *, unread: bool = False) -> None:
        """Close once all is written. `unread`: the client may be sending still.

        Closing then would reset the connection and destroy the answer on its way, so for a
        short time what it sends is read and dropped.
        """
        self.last = True
        transport = self.transport
        if transport is None:
            return
        self._outbox.flush()
        if unread and transport.can_write_eof() and not self._half_closed:
            self._lingering = True
            self._rest = b""
            self.deadline = self.lane.now + LINGER
            self.release_reading()
            transport.write_eof()
        else:
            self.deadline = NEVER
            transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self.transport is not None:
            self.transport.abort()

    def _probe(self) -> None:
        """Close where the peer has answered the interim response with a reset."""
        if self.transport is not None and has_left(self.transport):
            self.transport.abort()

    def hold_reading(self) -> None:
        """Read no more for now: what has come can't be passed on."""
        if not self._held and self.transport is not None and not self.transport.is_closing():
            self._held = True
            self.transport.pause_reading()

    def release_reading(self) -> None:
        """Read again."""
        if self._held and self.transport is not None and not self.transport.is_closing():
            self._held = False
            self.transport.resume_reading()

    def expired(self, now: float) -> None:
        """A deadline has passed."""
        if now >= self.stall:
            self.abort()
        elif now >= self.total:
            self.total = NEVER
            if self.carriage is not None:
                self.carriage.out_of_time()
        else:
            self.deadline = NEVER
            if self._lingering:
                self.abort()
            elif self.carriage is not None:
                self.carriage.expired()
            elif self._reader.started:
                self.refuse(errors.REQUEST_TIMEOUT.denial())
            else:
                self._shut()

    def drain(self) -> None:
        """The worker is to end: close soon if nothing is in progress.

        Not at once: the next request may be on its way.
        """
        if self.carriage is None and not self._reader.started and not self._lingering:
            self.deadline = min(self.deadline, self.lane.now + LAST_CALL)
