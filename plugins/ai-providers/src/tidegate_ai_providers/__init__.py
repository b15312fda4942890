"""Providers of language models: where they are, their keys, their models."""

from .config import AiProvidersConfig
from .plugin import AiProviders

__all__ = ["AiProviders", "AiProvidersConfig"]
