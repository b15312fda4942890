"""Heads of messages, sans I/O: what a request head means, and what is sent in its place.

Both carriers use it, so that both judge and forward alike:

    open_exchange    a parsed head → `Exchange`, or HeadError (400): one view of host and path
    upstream_head    what goes upstream: rebuilt, origin-form, without hop-by-hop fields
    client_fields    what goes to the caller: without hop-by-hop fields, with the request id

Nothing here frames a body: Content-Length and Transfer-Encoding are the carrier's.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Sequence
from functools import lru_cache
from random import getrandbits
from typing import Final, Literal

from mitmproxy import http

from tidegate.api import errors
from tidegate.api.exchange import Exchange
from tidegate.api.types import Client, Denial
from tidegate.api.upstream import Upstream

from .kinds import (
    CONNECTION,
    EXPLAIN,
    FORWARDING,
    HOST,
    KEPT_BACK,
    KEPT_HERE,
    KINDS,
    UPSTREAM_DROPS,
    VIA,
)
from .messages import Fields, make_headers, make_request
from .trace import Trace

type Forwarding = Literal["x-forwarded", "forwarded", "none"]
type Paths = Literal["strict", "lenient"]

_VIA: Final = b"1.1 tidegate"
_UPSTREAM_SPECIAL: Final = KEPT_HERE | FORWARDING | VIA
_HOST_OR_EXPLAIN: Final = HOST | EXPLAIN
_PERSISTENCE: Final = frozenset({b"keep-alive", b"close"})


class HeadError(Exception):
    """A request head that is refused. Carries the denial; the connection closes after it."""

    def __init__(self, denial: Denial) -> None:
        super().__init__(denial.message)
        self.denial = denial


def bad_target(message: str) -> HeadError:
    """400 `bad_request_target`."""
    return HeadError(errors.BAD_REQUEST_TARGET.denial(message))


# -- host and path ----------------------------------------------------------------------------

_HOST: Final = re.compile(
    rb"(?:[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
)
_PRINTABLE: Final = re.compile(rb"[\x21-\x7e]+")
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})?")
_DOTS: Final = re.compile(rb"(?:^|/)\.\.?(?:/|$)")
_UNRESERVED: Final = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
)


@lru_cache(maxsize=1024)
def parse_host(value: bytes) -> str:
    """The host of a Host field value: lower case, without port or trailing dot. HeadError."""
    if not _HOST.fullmatch(value):
        raise bad_target("The Host field is not acceptable.")
    host, _, port = value.rpartition(b":")
    if not host or value.endswith(b"]"):
        host = value
    elif int(port) > 65535:
        raise bad_target("The Host field has an impossible port.")
    return host.decode("ascii").lower().rstrip(".").strip("[]")


@lru_cache(maxsize=1024)
def parse_path(path: bytes, paths: Paths = "strict") -> bytes:
    """The path part of an origin-form target, normalised (RFC 3986 §6.2.2). HeadError.

    Policy and upstream see the same bytes: escapes of unreserved characters are decoded. Dot
    segments, NUL, fragments and backslashes are refused in every spelling; so are escaped
    slashes and empty segments unless `paths` is "lenient".
    """
    if not path.startswith(b"/") or not _PRINTABLE.fullmatch(path):
        raise bad_target("The request target is not an absolute path.")
    if b"#" in path or b"\\" in path or path.startswith(b"//"):
        raise bad_target("The request target is not acceptable.")
    if b"%" in path:
        path = _ESCAPE.sub(_normalise, path)
        lowered = path.lower()
        plain = lowered.replace(b"%2f", b"/").replace(b"%5c", b"/")
        if b"%00" in lowered or (plain != lowered and paths == "strict"):
            raise bad_target("The request target has an escape that is not acceptable.")
    else:
        plain = path
    if b"/." in plain and _DOTS.search(plain):
        raise bad_target("The request target has dot segments.")
    if b"//" in path and paths == "strict":
        raise bad_target("The request target has empty segments.")
    return path


def _normalise(match: re.Match[bytes]) -> bytes:
    digits = match[1]
    if digits is None:
        raise bad_target("The request target has a broken escape.")
    code = int(digits, 16)
    return bytes((code,)) if code in _UNRESERVED else match[0].upper()


def split_target(
    method: bytes, target: bytes, hosts: Sequence[bytes], *, http10: bool, paths: Paths
) -> tuple[str, bytes, bytes, bytes]:
    """(host, authority, path, target in origin-form) of a request line and its Host fields."""
    if len(hosts) > 1:
        raise bad_target("The request has more than one Host field.")
    authority = hosts[0] if hosts else b""
    if not hosts and not http10:
        raise bad_target("The request has no Host field.")
    host = parse_host(authority) if authority else ""
    if not target.startswith(b"/"):
        if target == b"*" and method == b"OPTIONS":
            return host, authority, b"*", b"*"
        scheme, mark, rest = target.partition(b"://")
        if not mark or scheme.lower() not in (b"http", b"https"):
            raise bad_target("The request target is not acceptable.")
        end = min((i for i in (rest.find(b"/"), rest.find(b"?")) if i >= 0), default=len(rest))
        named, target = rest[:end], rest[end:]
        if not target.startswith(b"/"):
            target = b"/" + target
        if not authority:
            authority, host = named, parse_host(named)
        elif named.lower() != authority.lower():
            raise bad_target("The request target and the Host field name different hosts.")
    path, mark, query = target.partition(b"?")
    if mark and (b"#" in query or not _PRINTABLE.fullmatch(query or b"-")):
        raise bad_target("The request target's query is not acceptable.")
    path = parse_path(path, paths)
    return host, authority, path, path + mark + query


# -- the exchange -----------------------------------------------------------------------------


def open_exchange(
    method: bytes,
    target: bytes,
    fields: Fields,
    client: Client,
    *,
    listener: str,
    http_version: bytes = b"HTTP/1.1",
    paths: Paths = "strict",
) -> Exchange:
    """The exchange for a parsed request head. Raises HeadError.

    `fields` keep their order and case; framing must have been judged by the parser before.
    """
    kinds = KINDS
    special = [field for field in fields if kinds[field[0]] & _HOST_OR_EXPLAIN]
    hosts = [value for name, value in special if kinds[name] & HOST]
    host, authority, path, origin_form = split_target(
        method, target, hosts, http10=http_version == b"HTTP/1.0", paths=paths
    )
    now = time.time()
    request = make_request(
        method,
        b"https" if client.tls else b"http",
        authority,
        host,
        443 if client.tls else 80,
        origin_form,
        fields,
        None,
        now,
        http_version,
    )
    seed = getrandbits(96)
    exchange = Exchange(
        seed.to_bytes(12).hex(),
        request,
        client,
        listener=listener,
        host=host,
        path=path.decode("ascii"),
        now=now,
        started=time.monotonic(),
        seed=seed,
    )
    if len(special) > len(hosts) and any(v == b"1" for n, v in special if not kinds[n] & HOST):
        exchange.trace = Trace(asked=True)
    return exchange


class TrustedProxies:
    """Finds out who the client is: the peer, or what a trusted proxy says (RFC 7239 §5.2)."""

    __slots__ = ("_networks",)

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = [ipaddress.ip_network(n, strict=False) for n in networks]

    def trusts(self, address: str) -> bool:
        """Whether `address` is one of the trusted proxies."""
        if not self._networks:
            return False
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)

    def client_address(self, peer: str, fields: Fields) -> str:
        """The last address of X-Forwarded-For that is not a trusted proxy, else the peer."""
        if not self._networks or not self.trusts(peer):
            return peer
        chain: list[str] = []
        for name, value in fields:
            if name.lower() == b"x-forwarded-for":
                chain += [part.strip() for part in value.decode("latin-1").split(",")]
        for address in reversed(chain):
            try:
                ipaddress.ip_address(address)
            except ValueError:
                return peer
            if not self.trusts(address):
                return address
        return peer


# -- what is sent -----------------------------------------------------------------------------


def connection_options(fields: Fields) -> frozenset[bytes]:
    """The field names that Connection lists, lower case (RFC 9110 §7.6.1)."""
    found: set[bytes] = set()
    for name, value in fields:
        if KINDS[name] & CONNECTION:
            found.update(part.strip().lower() for part in value.split(b","))
    return frozenset(found)


def unlisted(fields: Fields) -> Fields:
    """The fields without those that Connection lists."""
    kinds = KINDS
    options = [value for name, value in fields if kinds[name] & CONNECTION]
    if not options or (len(options) == 1 and options[0].lower() in _PERSISTENCE):
        return fields
    listed = connection_options(fields)
    return tuple(field for field in fields if field[0].lower() not in listed)


def upstream_head(
    exchange: Exchange,
    request: http.Request,
    upstream: Upstream,
    *,
    forwarding: Forwarding = "x-forwarded",
    trusted: bool = False,
) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """(target, fields) of an attempt, without framing fields.

    `request` is the exchange's, or what a codec made of it. `trusted`: the peer is a trusted
    proxy, whose forwarding fields are kept and added to; other peers' are dropped.
    """
    data = request.data
    own = upstream.headers
    replaced = {name.lower() for name, _ in own} if own else ()
    host = data.authority if upstream.preserve_host and data.authority else upstream.authority
    out: list[tuple[bytes, bytes]] = [(b"host", host)]
    via = _VIA
    forwarded_for = b""
    told: set[bytes] = set()
    kinds = KINDS
    for field in unlisted(data.headers.fields):
        kind = kinds[field[0]] & _UPSTREAM_SPECIAL
        if kind:
            name = field[0].lower()
            if kind & VIA:
                via = field[1] + b", " + via
                continue
            if kind & KEPT_HERE or not trusted:
                continue
            if name == b"x-forwarded-for":
                forwarded_for += field[1] + b", "
                continue
            told.add(name)
        if replaced and field[0].lower() in replaced:
            continue
        out.append(field)
    out.append((b"via", via))
    out.append((b"x-request-id", exchange.id.encode()))
    if forwarding != "none":
        out.extend(_forwarded(exchange.client, data.authority, forwarding, forwarded_for, told))
    out.extend(own)
    return upstream_target(data.path, upstream), out


def _forwarded(
    client: Client, authority: bytes, forwarding: Forwarding, before: bytes, told: set[bytes]
) -> list[tuple[bytes, bytes]]:
    """The fields that tell an upstream who called; `told`: by a trusted proxy already."""
    proto = b"https" if client.tls else b"http"
    if forwarding == "forwarded":
        peer = f'"[{client.peer}]"' if ":" in client.peer else client.peer
        value = b'for=%s;proto=%s;host="%s"' % (peer.encode(), proto, authority)
        return [(b"forwarded", value)]
    out = [(b"x-forwarded-for", before + client.peer.encode())]
    if b"x-forwarded-proto" not in told:
        out.append((b"x-forwarded-proto", proto))
    if authority and b"x-forwarded-host" not in told:
        out.append((b"x-forwarded-host", authority))
    return out


def upstream_target(target: bytes, upstream: Upstream) -> bytes:
    """The target of an attempt: `strip` removed, the upstream's own path put before."""
    if upstream.strip and target.startswith(upstream.strip.encode()):
        target = target[len(upstream.strip) :]
        if not target.startswith(b"/"):
            target = b"/" + target
    if upstream.path:
        target = upstream.path.encode() + (b"" if target == b"/" else target)
    return target


def client_fields(exchange: Exchange, response: http.Response) -> list[tuple[bytes, bytes]]:
    """The fields of an answer to the caller, without framing fields."""
    kinds = KINDS
    fields = unlisted(response.data.headers.fields)
    out = [field for field in fields if not kinds[field[0]] & KEPT_BACK]
    out.append((b"x-request-id", exchange.id.encode()))
    if exchange.trace is not None:
        out += exchange.trace.fields(exchange)
    return out


def merge_trailers(trailers: Fields | None) -> http.Headers | None:
    """Trailer fields that may be passed on: not framing, routing or credentials (§6.5.1)."""
    if not trailers:
        return None
    forbidden = UPSTREAM_DROPS | {b"authorization", b"cookie", b"set-cookie", b"content-encoding"}
    kept = tuple(f for f in trailers if f[0].lower() not in forbidden)
    return make_headers(kept) if kept else None
