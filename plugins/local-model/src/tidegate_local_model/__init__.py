"""A real language model on the CPU, without network."""

from .plugin import LocalModel, LocalModelConfig

__all__ = ["LocalModel", "LocalModelConfig"]
