"""Tokens and cost of every call to a model."""

from .config import AiUsageConfig
from .plugin import AiUsage

__all__ = ["AiUsage", "AiUsageConfig"]
