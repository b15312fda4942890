"""OpenAI Chat Completions, and the many APIs that are dialects of it.

Source: the OpenAI API reference, "Chat Completions"; fields of dialects from recorded traffic.
"""

from .format import FORMAT, ChatFormat

__all__ = ["FORMAT", "ChatFormat"]
