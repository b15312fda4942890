"""JSON as it comes and goes: exact where orjson is not, and helpers of parsers."""

from __future__ import annotations

import json
import re
from typing import Any, Final, cast

import orjson

from .model import Json

_LONG: Final = 19
"""Digits from which a number may be too large for orjson, which then makes a float of it."""
_LONG_INTEGER: Final = re.compile(r"(?<![\w.])-?\d{19,}(?![\d.eE])")
DATA_URL: Final = re.compile(r"data:([^;,]*)((?:;[^;,]+)*?)(;base64)?,")


def loads(data: bytes | str) -> Any:
    """JSON to values. ValueError where it is none.

    orjson refuses lone surrogates, which providers send where they cut a character in two
    events; the standard library takes them.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return json.loads(data)


def dumps(value: Any) -> str:
    """Values to JSON text, in UTF-8 where it can be."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # a lone surrogate, or an integer beyond 64 bits
        return json.dumps(value, separators=(",", ":"))


def arguments_object(text: str) -> Json | None:
    """The object that a tool call's arguments are; {} of nothing; None where they are none."""
    if not text or text == "{}":
        return {}
    try:
        if len(text) > _LONG and _LONG_INTEGER.search(text):
            value = json.loads(text)
        else:
            value = loads(text)
    except ValueError:
        return None
    return cast(Json, value) if isinstance(value, dict) else None


def arguments_text(value: Any) -> str:
    """The JSON text of a call's input that came as a value."""
    return dumps(value) if value else "{}"


def complete(text: str) -> bool:
    """Whether a tool call's arguments are whole JSON already."""
    if not text.rstrip().endswith("}"):
        return False
    try:
        loads(text)
    except ValueError:
        return False
    return True


def take_str(obj: Json, key: str) -> str:
    """Take the string `key` out of `obj`; "" (and `obj` as it was) where it is none."""
    value = obj.get(key)
    if type(value) is str:
        del obj[key]
        return value
    return ""


def take_int(obj: Json, key: str) -> int | None:
    """Take the integer `key` out of `obj`, or leave `obj` as it was."""
    value = obj.get(key)
    if type(value) is int:
        del obj[key]
        return value
    return None


def take_number(obj: Json, key: str) -> float | None:
    """Take the number `key` out of `obj`, or leave `obj` as it was."""
    value = obj.get(key)
    if type(value) is int or type(value) is float:
        del obj[key]
        return cast(float, value)
    return None


def take_bool(obj: Json, key: str) -> bool | None:
    """Take the boolean `key` out of `obj`, or leave `obj` as it was."""
    value = obj.get(key)
    if type(value) is bool:
        del obj[key]
        return value
    return None


def take_dict(obj: Json, key: str) -> Json | None:
    """Take the object `key` out of `obj`, or leave `obj` as it was."""
    value = obj.get(key)
    if type(value) is dict:
        del obj[key]
        return value
    return None


def take_list(obj: Json, key: str) -> list[Any] | None:
    """Take the array `key` out of `obj`, or leave `obj` as it was."""
    value = obj.get(key)
    if type(value) is list:
        del obj[key]
        return value
    return None


def count(obj: Json | None, key: str) -> int:
    """The number of tokens that `obj` says under `key`; 0 where it says none."""
    value = obj.get(key) if obj else None
    return value if type(value) is int else 0


def split_data_url(url: str) -> tuple[str, str] | None:
    """(media type, base64) of a `data:` URL; None where it is another URL."""
    if not url.startswith("data:"):
        return None
    match = DATA_URL.match(url)
    if match is None or not match[3]:
        return None
    return match[1], url[match.end() :]


def merged(out: Json, extras: Json | None) -> Json:
    """`out` with the extras of its family put back, into objects where both are. Changes `out`."""
    if extras:
        for key, value in extras.items():
            kept = out.get(key)
            both = isinstance(kept, dict) and isinstance(value, dict)
            out[key] = merged(dict(kept), value) if both else value  # type: ignore[arg-type]
    return out
