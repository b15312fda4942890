"""Exchanges that no client waits for: a cache renews what it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.api.exchange import Exchange
from tidegate.runtime.settings import Listener

from .client import ClientConnection
from .exchange import Carriage
from .requests import Incoming

if TYPE_CHECKING:
    from .server import Lane


class Detached(ClientConnection):
    """A client's connection without a client: what is sent is dropped, and it never stalls.

    It has no transport, which a connection whose client has just left has neither.
    """

    __slots__ = ()

    def answered(self, carriage: Carriage) -> None:
        self.carriage = None
        self.lane.forget(self)

    def abort(self) -> None:
        if self.carriage is not None:
            self.carriage.client_gone()


def fetch(lane: Lane, exchange: Exchange) -> None:
    """Send an exchange's request upstream, from the loop's next turn on."""
    incoming = Incoming()
    incoming.method = exchange.request.data.method
    incoming.complete = True
    connection = Detached(lane, Listener(name=exchange.listener, address="127.0.0.1:0"))
    carriage = connection.carriage = Carriage(connection, incoming)
    lane.admit(connection)
    lane.loop.call_soon(carriage.fetch, exchange)
