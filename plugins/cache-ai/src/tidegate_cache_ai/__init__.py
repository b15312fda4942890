"""Answers of language models from a cache, where the same was asked before."""

from .options import CacheAiConfig
from .plugin import CacheAi

__all__ = ["CacheAi", "CacheAiConfig"]
