"""What the lane gives away: a connection whose client asks for a WebSocket."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tidegate.api.types import Client
from tidegate.runtime.settings import Listener

from .framing import fields_block
from .requests import Incoming


@dataclass(frozen=True, slots=True)
class Handover:
    """A connection that changes hands before any hook has run.

    `data` is the request's head, written anew from the lane's parse, and what came after it.
    Who takes it calls `transport.set_protocol` at once.
    """

    listener: Listener
    transport: asyncio.Transport
    data: bytes
    client: Client


def upgrade_head(incoming: Incoming) -> bytes | None:
    """The head of a WebSocket request (RFC 6455 §4.1) in bytes; None for anything else."""
    if (
        incoming.upgrade.lower() != b"websocket"
        or incoming.method != b"GET"
        or incoming.version != b"HTTP/1.1"
        or incoming.length != 0
    ):
        return None
    names = {name.lower() for name, _ in incoming.fields}
    if b"sec-websocket-key" not in names or b"sec-websocket-version" not in names:
        return None
    fields = [field for field in incoming.fields if field[0].lower() != b"connection"]
    fields.append((b"connection", b"upgrade"))
    return b"GET %b HTTP/1.1\r\n%b\r\n" % (incoming.target, fields_block(fields))
