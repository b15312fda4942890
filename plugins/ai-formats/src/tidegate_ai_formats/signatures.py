"""Proofs of thought on their way through formats of other families.

A provider that signs or encrypts its thoughts wants them back with the next turn. A caller of
another format keeps what it does not understand as an opaque string: so a foreign signature is
packed as `tg1.<origin>.<id>.<payload>`, and unpacked when the caller sends it back. A provider
never gets the signature of another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .model import Part, Reasoning, Text, ToolCall

_MARK = "tg1."


def pack(signature: str, origin: str, family: str, id: str = "") -> str:
    """`signature` as `family` carries it; `id` is that of the thought, where it has one."""
    if not signature or not origin or origin == family:
        return signature
    return f"{_MARK}{origin}.{id}.{signature}"


def unpack(signature: str, family: str) -> tuple[str, str, str]:
    """(signature, origin, id) of what came in a format of `family`."""
    if signature.startswith(_MARK):
        pieces = signature[len(_MARK) :].split(".", 2)
        if len(pieces) == 3:
            return pieces[2], pieces[0], pieces[1]
    return signature, family, ""


def hoist(parts: Sequence[Part]) -> Sequence[Part]:
    """Signatures of texts and tool calls (Gemini's) as thoughts of their own before them."""
    if not any(isinstance(part, Text | ToolCall) and part.signature for part in parts):
        return parts
    out: list[Part] = []
    for part in parts:
        if isinstance(part, Text | ToolCall) and part.signature:
            out.append(Reasoning(encrypted=part.signature, origin=part.origin))
        out.append(part)
    return out


def lower(parts: Sequence[Part], origin: str) -> list[Part]:
    """The reverse of `hoist`: encrypted thoughts of `origin` hang on the part that follows."""
    out: list[Part] = []
    waiting = ""
    for part in parts:
        if isinstance(part, Reasoning) and part.origin == origin and part.encrypted:
            if not part.text:
                waiting = part.encrypted
                continue
        elif waiting and isinstance(part, Text | ToolCall):
            part = replace(part, signature=waiting, origin=origin)
            waiting = ""
        out.append(part)
    if waiting:
        out.append(Text("", signature=waiting, origin=origin))
    return out
