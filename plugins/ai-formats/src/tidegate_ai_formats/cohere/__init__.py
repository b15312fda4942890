"""Cohere Chat, version 2. Source: docs.cohere.com, "Chat" and "Chat with streaming"."""

from .format import FORMAT, CohereFormat

__all__ = ["FORMAT", "CohereFormat"]
