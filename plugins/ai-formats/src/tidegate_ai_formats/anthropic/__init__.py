"""Anthropic Messages. Source: Anthropic's API reference, "Messages" and "Streaming"."""

from .format import FORMAT, AnthropicFormat

__all__ = ["FORMAT", "AnthropicFormat"]
