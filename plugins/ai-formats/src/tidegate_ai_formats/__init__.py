"""Translators between the API formats of language models, without I/O."""

from .format import Format
from .losses import Failure, InvalidRequest, Losses, Untranslatable, Warning
from .plugin import AiFormats, AiFormatsConfig
from .registry import NAMES, get_format
from .streaming import StreamTranslator
from .translation import Translation

__all__ = [
    "NAMES",
    "AiFormats",
    "AiFormatsConfig",
    "Failure",
    "Format",
    "InvalidRequest",
    "Losses",
    "StreamTranslator",
    "Translation",
    "Untranslatable",
    "Warning",
    "get_format",
]
