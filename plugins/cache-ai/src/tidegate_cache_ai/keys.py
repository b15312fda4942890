"""What a call is looked up by: all that may have a part in its answer, in one spelling."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Final

import orjson

from tidegate.api.messages import Fields

_DELIVERY: Final = ("stream", "stream_options")
"""How the answer is sent, not what it says."""
_STATEFUL: Final = ("previous_response_id", "conversation", "background")
"""With these the request does not say all that the answer depends on, or is no question."""
_ORDERED: Final = frozenset({"properties", "$defs", "definitions"})
"""Objects whose order a model sees: it answers in the order of a schema."""
_EXACT: Final = 2**53
_STREAMED: Final = re.compile(r":streamGenerateContent$|(?<=/converse)-stream$")
_WHOLE: Final = {":streamGenerateContent": ":generateContent", "-stream": ""}
_SPEAKS: Final = (b"anthropic-", b"openai-", b"x-goog-")
"""Beginnings of fields by which callers choose an API's version, beta features, a project."""
_CREDENTIALS: Final = frozenset(
    {b"authorization", b"api-key", b"x-api-key", b"x-goog-api-key", b"cookie"}
)


def canonical(value: Any, *, ordered: bool = False) -> Any:
    """A JSON value in one spelling: keys sorted, whole numbers without a fraction."""
    if isinstance(value, dict):
        pairs = [(key, canonical(one, ordered=key in _ORDERED)) for key, one in value.items()]
        return {"": pairs} if ordered else dict(sorted(pairs, key=lambda pair: pair[0]))
    if isinstance(value, list):
        return [canonical(one) for one in value]
    if isinstance(value, float) and abs(value) < _EXACT and value.is_integer():
        return int(value)
    return value


def call_name(
    host: str,
    path: str,
    query: str,
    body: dict[str, Any],
    fields: Fields,
    more: Iterable[bytes],
    hints: Iterable[bytes] = (),
) -> bytes:
    """The name of a call: the same for a stream and for a whole answer.

    `more`: names of further request fields (lower case) that have a part in it; `hints`: what
    other plugins tell requests apart by.
    """
    said = {key: value for key, value in body.items() if key not in _DELIVERY}
    wanted = set(more)
    spoken = sorted(
        (lowered, value.strip())
        for name, value in fields
        if (lowered := name.lower()) not in _CREDENTIALS
        and (lowered.startswith(_SPEAKS) or lowered in wanted)
    )
    asked = "&".join(sorted(part for part in query.split("&") if part and part[:4] != "alt="))
    whole = _STREAMED.sub(lambda found: _WHOLE[found[0]], path)
    digest = blake2b(digest_size=32)
    for part in (host, whole, asked):
        digest.update(part.encode("utf-8", "surrogateescape") + b"\0")
    for lowered, value in spoken:
        digest.update(lowered + b":" + value + b"\0")
    for hint in hints:
        digest.update(b"%d:%b" % (len(hint), hint))
    digest.update(b"\0" + orjson.dumps(canonical(said)))
    return b"ai:" + digest.hexdigest().encode()


def stateful(body: dict[str, Any]) -> bool:
    """Whether a request leans on what was said in another."""
    return any(body.get(name) for name in _STATEFUL)


def ambiguous(content: bytes) -> bool:
    """Whether an object of a body has a key twice.

    We read the last one, a provider may read the first: the answer could be that of another
    question, put where others look for theirs.
    """
    twice = False

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        found = dict(pairs)
        twice = twice or len(found) < len(pairs)
        return found

    json.loads(content, object_pairs_hook=once)
    return twice


def credentials(fields: Fields) -> bytes:
    """What tells callers apart who have no principal: a digest of the credentials they send."""
    sent = sorted((n.lower(), v) for n, v in fields if n.lower() in _CREDENTIALS)
    return blake2b(repr(sent).encode(), digest_size=16).hexdigest().encode() if sent else b""
