"""Content codings, where the carriers look for them: see `tidegate.api.coding`."""

from tidegate.api.coding import (
    PIECE,
    Decoder,
    TooLarge,
    Undecodable,
    coding_of,
    decode,
    within,
)

__all__ = ["PIECE", "Decoder", "TooLarge", "Undecodable", "coding_of", "decode", "within"]
