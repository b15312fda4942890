"""Prompts as APIs: a versioned template becomes a REST operation."""

from .options import AiPromptsConfig
from .plugin import AiPrompts

__all__ = ["AiPrompts", "AiPromptsConfig"]
