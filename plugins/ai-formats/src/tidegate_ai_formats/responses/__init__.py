"""OpenAI Responses. Source: the OpenAI API reference, "Responses" and "Streaming events"."""

from .format import FORMAT, ResponsesFormat

__all__ = ["FORMAT", "ResponsesFormat"]
