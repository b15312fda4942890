"""A second, slow reading of the RFCs, for the tests only. It shares no code with the rules.

Where the rules work on what they prepared when a response was stored, this works on the two
messages each time, sentence by sentence of RFC 9111.
"""

from __future__ import annotations

import calendar
import email.utils
import re

type Message = dict[str, str]


def directives(text: str) -> dict[str, str | None]:
    """Read a list of directives character by character (§5.2)."""
    members, current, quoted, escaped = [], "", False, False
    for char in text:
        if escaped:
            escaped = False
        elif quoted and char == "\\":
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif char == "," and not quoted:
            members.append(current)
            current = ""
            continue
        current += char
    members.append(current)
    found: dict[str, str | None] = {}
    for member in members:
        name, equals, argument = member.strip().partition("=")
        if name and name.lower() not in found:
            found[name.lower()] = argument if equals else None
    return found


def number(found: dict[str, str | None], name: str) -> int | None:
    if name not in found:
        return None
    text = found[name]
    if text is None or not re.fullmatch("[0-9]+", text):
        return 0  # "consider responses with invalid freshness information to be stale" (§4.2.1)
    return min(int(text), 2**31)


def moment(text: str | None) -> int | None:
    parsed = email.utils.parsedate(text) if text else None
    return None if parsed is None else calendar.timegm(parsed)


def lifetime(response: Message, received: int) -> int:
    """§4.2.1 and §4.2.2."""
    control = directives(response.get("cache-control", ""))
    if "s-maxage" in control:
        return number(control, "s-maxage") or 0
    if "max-age" in control:
        return number(control, "max-age") or 0
    date = moment(response.get("date"))
    date = received if date is None else date
    if "expires" in response:
        expires = moment(response["expires"])
        return 0 if expires is None else max(0, expires - date)
    modified = moment(response.get("last-modified"))
    if modified is not None and modified < date:
        return min(86400, (date - modified) // 10)
    return 0


def age(response: Message, asked: int, now: int) -> int:
    """§4.2.3, with Age taken at its word."""
    text = response.get("age", "0").split(",")[0].strip()
    value = min(int(text), 2**31) if re.fullmatch("[0-9]+", text) else 0
    return value + (now - asked)


def may_be_stored(request: Message, response: Message, received: int) -> bool:
    """§3, for a 200 to a GET."""
    ours = directives(request.get("cache-control", ""))
    theirs = directives(response.get("cache-control", ""))
    if "no-store" in ours or "no-store" in theirs or "private" in theirs:
        return False
    if "authorization" in request:
        return any(d in theirs for d in ("must-revalidate", "public", "s-maxage"))
    return response.get("vary") != "*"


def may_be_reused(
    request: Message, stored_for: Message, response: Message, asked: int, now: int
) -> bool:
    """§4, §4.1, §4.2.4, §5.2.1: whether it may answer `request` without asking the origin."""
    ours = directives(request.get("cache-control", ""))
    theirs = directives(response.get("cache-control", ""))
    for name in response.get("vary", "").split(","):
        nominated = name.strip().lower()
        if nominated and request.get(nominated) != stored_for.get(nominated):
            return False
    if "no-cache" in theirs or "no-cache" in ours or "no-store" in ours:
        return False
    old = age(response, asked, now)
    fresh_for = lifetime(response, asked)
    limit = number(ours, "max-age")
    if limit is not None and (old > limit or limit == 0):
        return False
    left = number(ours, "min-fresh")
    if left is not None and fresh_for > old and fresh_for - old < left:
        return False
    if fresh_for > old:
        return True
    if any(d in theirs for d in ("must-revalidate", "proxy-revalidate", "s-maxage")):
        return False
    stale_for = old - fresh_for
    if "max-stale" in ours and (
        ours["max-stale"] is None or stale_for <= (number(ours, "max-stale") or 0)
    ):
        return True
    window = number(theirs, "stale-while-revalidate") or 0
    return window > 0 and stale_for <= window


def conditions_hold(request: Message, response: Message, received: int) -> bool:
    """§4.3.2: whether the client has it already (304)."""
    if "if-none-match" in request:
        wanted = request["if-none-match"]
        if wanted.strip() == "*":
            return True
        tag = response.get("etag")
        return tag is not None and tag.removeprefix("W/") in [
            part.strip().removeprefix("W/") for part in wanted.split(",")
        ]
    since = moment(request.get("if-modified-since"))
    if since is None:
        return False
    known = moment(response.get("last-modified"))
    if known is None:
        known = moment(response.get("date"))
    return (received if known is None else known) <= since
