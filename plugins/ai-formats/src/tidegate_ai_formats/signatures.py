"""Proofs of thought on their way through formats of other families.

A provider that signs or encrypts its thoughts wants them back with the next turn. A caller of
another format keeps what it does not understand as an opaque string: so a foreign proof is packed
as `tg1.<origin>.<kind>.<id>.<proof>` (kind `s`: it signs the text beside it; `e`: it is the
thought, encrypted), and unpacked when the caller sends it back. A provider never gets the proof of
another one.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from .model import Part, Reasoning, Text, ToolCall

_MARK: Final = "tg1."
_MARK_64: Final = base64.b64encode(_MARK.encode()).decode()[:5]


@dataclass(slots=True)
class Proof:
    """A signature, or encrypted thought, of `origin`."""

    signature: str
    encrypted: str
    origin: str
    id: str = ""

    def put(self, part: Reasoning) -> None:
        """Give it to a thought."""
        part.signature, part.encrypted, part.origin = self.signature, self.encrypted, self.origin
        part.id = self.id or part.id


def pack(part: Reasoning | Text | ToolCall, family: str) -> str:
    """The proof of a part as `family` carries it; "" where it has none."""
    id, kind, proof = "", "e", part.signature
    if isinstance(part, Reasoning):
        id = part.id
        kind, proof = ("s", part.signature) if part.signature else ("e", part.encrypted)
    if not proof or not part.origin or part.origin == family:
        return proof
    return f"{_MARK}{part.origin}.{kind}.{id}.{proof}"


def unpack(value: str, family: str, *, encrypted: bool = False) -> Proof:
    """What came in a format of `family`; `encrypted`: what is not packed is encrypted thought."""
    if value.startswith(_MARK):
        pieces = value[len(_MARK) :].split(".", 3)
        if len(pieces) == 4:
            origin, kind, id, proof = pieces
            return Proof(proof, "", origin, id) if kind == "s" else Proof("", proof, origin, id)
    return Proof("", value, family) if encrypted else Proof(value, "", family)


def pack_base64(part: Reasoning | Text | ToolCall, family: str) -> str:
    """The same for formats that insist on base64."""
    packed = pack(part, family)
    if packed.startswith(_MARK):
        return base64.b64encode(packed.encode()).decode()
    return packed


def unpack_base64(value: str, family: str, *, encrypted: bool = False) -> Proof:
    """The same for formats that insist on base64."""
    if value.startswith(_MARK_64):
        try:
            value = base64.b64decode(value, altchars=b"-_").decode()
        except (binascii.Error, UnicodeDecodeError):
            pass
    return unpack(value, family, encrypted=encrypted)


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
