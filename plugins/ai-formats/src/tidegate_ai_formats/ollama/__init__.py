"""Ollama's own chat. Source: docs.ollama.com/api, "Generate a chat message"."""

from .format import FORMAT, OllamaFormat

__all__ = ["FORMAT", "OllamaFormat"]
