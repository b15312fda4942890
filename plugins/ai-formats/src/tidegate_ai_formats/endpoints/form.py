"""The field `model` of a form (`multipart/form-data`, RFC 7578), found and replaced in place."""

from __future__ import annotations

import re
from typing import Final

_BOUNDARY: Final = re.compile(r'boundary="?([^";,\s]{1,70})"?', re.IGNORECASE)
_MODEL: Final = re.compile(
    rb'^content-disposition:[^\r\n]*;\s*name="?model"?\s*(;|$)', re.IGNORECASE | re.MULTILINE
)


def is_form(content_type: str) -> bool:
    """Whether a body of that type is a form."""
    return content_type[:19].lower() == "multipart/form-data"


def model_span(content: bytes, content_type: str) -> tuple[int, int]:
    """Where the value of the one field `model` stands.

    ValueError where there is none, or where there are several: one reader might take the first
    and another the last.
    """
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise ValueError("the form has no boundary")
    mark = b"\r\n--" + found[1].encode()
    spans = []
    start = 0
    body = b"\r\n" + content
    while (at := body.find(mark, start)) >= 0:
        start = at + len(mark)
        end = body.find(mark, start)
        head, split, _ = body[start : max(end, start)].partition(b"\r\n\r\n")
        if split and _MODEL.search(head.replace(b"\r\n", b"\n")):
            spans.append((start + len(head) + 4 - 2, end - 2))
    if len(spans) != 1:
        raise ValueError("the form has no field `model`, or several")
    return spans[0]


def renamed(content: bytes, content_type: str, model: str) -> bytes:
    """The form with another model. ValueError as above."""
    start, end = model_span(content, content_type)
    return content[:start] + model.encode() + content[end:]
