"""How a connection to an upstream comes about: resolve, check, race the addresses, TLS."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import ssl
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, Final

from tidegate.api import errors
from tidegate.api.errors import ErrorCode
from tidegate.api.upstream import Upstream

STAGGER: Final = 0.25
"""Seconds before the next address is tried beside the last (RFC 8305 §5)."""

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


class DialError(Exception):
    """A connection did not come about. Carries the error code for the caller."""

    def __init__(self, code: ErrorCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def is_public(address: str) -> bool:
    """Whether an address that a tenant or a request named may be dialled.

    Private, loopback, link-local (cloud metadata), multicast and reserved addresses may not;
    nor may IPv6 addresses that hide an IPv4 one (mapped, 6to4, Teredo, NAT64).
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        elif parsed.sixtofour or parsed.teredo or parsed in _NAT64:
            return False
    return parsed.is_global and not parsed.is_multicast


async def resolve(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[str]:
    """The addresses of a host, families interleaved, the resolver's first choice first."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise DialError(errors.UPSTREAM_UNREACHABLE, f"{host} does not resolve: {error}") from None
    families: dict[int, list[str]] = {}
    for family, _, _, _, address in found:
        listed = families.setdefault(family, [])
        if address[0] not in listed:
            listed.append(str(address[0]))
    rows = zip_longest(*families.values())
    return [address for row in rows for address in row if address is not None]


def allowed(upstream: Upstream, addresses: Sequence[str]) -> Sequence[str]:
    """The addresses that may be dialled for this upstream. Raises DialError if any may not."""
    if not upstream.trusted and not all(map(is_public, addresses)):
        raise DialError(errors.UPSTREAM_ADDRESS_FORBIDDEN, f"{upstream.host} is not public")
    return addresses


async def connect[P: asyncio.Protocol](
    loop: asyncio.AbstractEventLoop,
    upstream: Upstream,
    addresses: Sequence[str],
    context: ssl.SSLContext | None,
    make: Callable[[], P],
) -> P:
    """A connection to the first address that answers. Raises DialError."""
    name = (upstream.tls.sni or upstream.host) if context is not None else None
    try:
        async with asyncio.timeout(upstream.timeouts.connect):
            return await _race(loop, addresses, upstream.port, context, name, make)
    except TimeoutError:
        raise DialError(errors.UPSTREAM_TIMEOUT, "connecting took too long") from None
    except ssl.SSLError as error:
        raise DialError(errors.UPSTREAM_TLS_INVALID, error.reason or str(error)) from None
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise DialError(errors.OVERLOADED, "no file descriptor is left") from None
        raise DialError(errors.UPSTREAM_UNREACHABLE, str(error)) from None


async def _race[P: asyncio.Protocol](
    loop: asyncio.AbstractEventLoop,
    addresses: Sequence[str],
    port: int,
    context: ssl.SSLContext | None,
    name: str | None,
    make: Callable[[], P],
) -> P:
    """Happy eyeballs: the next address is tried when the last failed or is slow."""

    async def one(address: str) -> P:
        _, protocol = await loop.create_connection(
            make, address, port, ssl=context, server_hostname=name
        )
        return protocol

    if len(addresses) == 1:
        return await one(addresses[0])
    left = list(addresses)
    pending: set[asyncio.Task[P]] = set()
    failure: BaseException = OSError("no address")
    try:
        while left or pending:
            if left:
                pending.add(asyncio.Task(one(left.pop(0)), loop=loop))
            done, pending = await asyncio.wait(
                pending,
                timeout=STAGGER if left else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            winners = [task for task in done if task.exception() is None]
            for late in winners[1:]:
                _discard(late)
            if winners:
                return winners[0].result()
            for task in done:
                failure = task.exception() or failure
        raise failure
    finally:
        for task in pending:
            task.cancel()
            task.add_done_callback(_discard)


def _discard(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and task.exception() is None:
        transport = task.result().transport
        if transport is not None:
            transport.abort()
