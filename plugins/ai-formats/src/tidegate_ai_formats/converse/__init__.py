"""Amazon Bedrock Converse and ConverseStream. Source: the Bedrock API reference, "Converse"."""

from .format import FORMAT, ConverseFormat

__all__ = ["FORMAT", "ConverseFormat"]
