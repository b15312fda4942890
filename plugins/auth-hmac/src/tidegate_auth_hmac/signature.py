"""HTTP Message Signatures (RFC 9421) by HMAC-SHA256, and Content-Digest (RFC 9530). No I/O.

A client signs the *signature base*: one line for each part of the request that it covers, and a
last one with the signature's own parameters.

    "@method": POST
    "@authority": api.example.com
    "@path": /v1/chat
    "@query": ?
    "content-digest": sha-256=:…:
    "@signature-params": ("@method" "@authority" …);created=1750000000;keyid="batch";nonce="…";…
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import http_sf

from tidegate.api import Exchange

MAX_FIELD: Final = 4_096
"""Bytes of a `Signature-Input` or `Signature` field. A longer one is refused unread."""
MAX_NONCE: Final = 128
MAX_COMPONENTS: Final = 50
DIGESTS: Final = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}


class Unsigned(ValueError):
    """The request has no signature that could be verified."""


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature as the request states it: nothing in it is true before `made_with`."""

    components: tuple[str, ...]
    params: str
    """The value of the last line of the base."""
    value: bytes
    key: str
    created: int
    expires: int | None
    nonce: str

    def made_with(self, secret: bytes, exchange: Exchange) -> bool:
        """Whether the holder of `secret` signed this request. Raises Unsigned."""
        lines = [f'"{name}": {component(exchange, name)}' for name in self.components]
        lines.append(f'"@signature-params": {self.params}')
        base = "\n".join(lines).encode("utf-8", "surrogateescape")
        return hmac.compare_digest(hmac.digest(secret, base, "sha256"), self.value)

    def covers(self, wanted: Sequence[str]) -> bool:
        """Whether all of these components are signed. A whole URI covers its parts."""
        have = set(self.components)
        if "@target-uri" in have:
            have |= {"@scheme", "@authority", "@path", "@query", "@request-target"}
        if "@request-target" in have:
            have |= {"@path", "@query"}
        return have.issuperset(wanted)


def has_tag(text: str, tag: str) -> bool:
    """Whether the text of `Signature-Input` may hold a signature with this tag: cheap."""
    return f'tag="{tag}"' in text


def read(signature_input: str, signature: str, tag: str) -> Signature:
    """The signature with a tag (§2.3). Raises Unsigned where there is none that is acceptable."""
    if len(signature_input) > MAX_FIELD or len(signature) > MAX_FIELD:
        raise Unsigned("a field is too long")
    inputs, values = _dictionary(signature_input), _dictionary(signature)
    tagged = [
        (label, member)
        for label, member in inputs.items()
        if isinstance(member[0], list) and member[1].get("tag") == tag
    ]
    if len(tagged) != 1:
        raise Unsigned("not exactly one signature with the tag")
    label, (components, params) = tagged[0]
    value = values.get(label, (None, {}))[0]
    key, created = params.get("keyid"), params.get("created")
    expires, nonce = params.get("expires"), params.get("nonce")
    if not isinstance(value, bytes) or type(key) is not str or type(created) is not int:
        raise Unsigned("no value, `keyid` or `created`")
    if params.get("alg", "hmac-sha256") != "hmac-sha256" or type(expires) not in (int, type(None)):
        raise Unsigned("another algorithm, or no time")
    if type(nonce) is not str or not 8 <= len(nonce) <= MAX_NONCE:
        raise Unsigned("no nonce, or of another size")
    names = tuple(_name(one) for one in components)
    if len(set(names)) < len(names) or len(names) > MAX_COMPONENTS:
        raise Unsigned("a component stands there twice, or there are too many")
    written = http_sf.ser({"s": (components, params)}).removeprefix("s=")
    return Signature(names, written, value, key, created, expires, nonce)


def _dictionary(text: str) -> dict[str, Any]:
    try:
        parsed: Any = http_sf.parse(text.encode("ascii"), tltype="dictionary")
    except ValueError:
        raise Unsigned("not a dictionary of structured fields") from None
    return cast(dict[str, Any], parsed)


def _name(item: tuple[Any, dict[str, Any]]) -> str:
    """A component's identifier. Those with parameters (§2.1) are not known here."""
    name, params = item
    if type(name) is not str or params or name != name.lower():
        raise Unsigned("a component that is not known")
    return name


def component(exchange: Exchange, name: str) -> str:
    """The value of a component of the request (§2.1, §2.2). Raises Unsigned where there is none."""
    data = exchange.request.data
    if not name.startswith("@"):
        return field_value(exchange, name)
    path, mark, query = data.path.decode("utf-8", "surrogateescape").partition("?")
    scheme = data.scheme.decode().lower()
    match name:
        case "@method":
            return data.method.decode()
        case "@authority":
            return authority(exchange, scheme)
        case "@scheme":
            return scheme
        case "@path":
            return path or "/"
        case "@query":
            return f"?{query}"
        case "@request-target":
            return f"{path}{mark}{query}"
        case "@target-uri":
            return f"{scheme}://{authority(exchange, scheme)}{path}{mark}{query}"
    raise Unsigned("a component that is not known")


def authority(exchange: Exchange, scheme: str) -> str:
    """The host as the client names it, in lower case, without the port that goes without saying."""
    host = exchange.header("host") or exchange.request.data.authority.decode()
    return host.lower().removesuffix(":443" if scheme == "https" else ":80")


def field_value(exchange: Exchange, name: str) -> str:
    """All lines of a field as one (§2.1)."""
    wanted = name.encode()
    lines = [
        value.decode("utf-8", "surrogateescape").strip(" \t")
        for raw, value in exchange.request.data.headers.fields
        if raw.lower() == wanted
    ]
    if not lines:
        raise Unsigned("a field that is not there")
    return ", ".join(lines)


def digests(exchange: Exchange) -> dict[str, bytes]:
    """What `Content-Digest` says, of the algorithms that count (RFC 9530 §2, §5)."""
    try:
        found = _dictionary(field_value(exchange, "content-digest"))
    except Unsigned:
        return {}
    return {
        name: value[0]
        for name, value in found.items()
        if name in DIGESTS and isinstance(value[0], bytes)
    }


def digests_match(content: bytes, expected: dict[str, bytes]) -> bool:
    """Whether all digests are those of the content."""
    return bool(expected) and all(
        hmac.compare_digest(DIGESTS[name](content).digest(), value)
        for name, value in expected.items()
    )


def has_body(exchange: Exchange) -> bool:
    """Whether the head announces a body (RFC 9112 §6.3)."""
    length = exchange.header("content-length")
    return exchange.header("transfer-encoding") is not None or (
        length is not None and length.strip() != "0"
    )
