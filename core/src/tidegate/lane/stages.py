"""The stages of an exchange on the lane, in order. An answer made here skips the middle ones."""

from __future__ import annotations

from typing import Final

HOOKS: Final = 0
"""The request hooks run."""
GATHER: Final = 1
"""The request body is awaited, because a hook or a codec needs it whole."""
WAIT: Final = 2
"""A retry is held back for a while."""
CONNECT: Final = 3
"""A connection to the upstream is awaited."""
SEND: Final = 4
"""The request is being sent, or the head of the answer awaited."""
COLLECT: Final = 5
"""The body of the answer is awaited, because a hook or a codec needs it whole."""
RESPOND: Final = 6
"""The response hooks run."""
STREAM: Final = 7
"""The answer passes."""
DONE: Final = 8
"""The exchange has ended."""

NEVER: Final = float("inf")
"""A deadline that does not come."""
