"""Sets, adds and removes header fields."""

from .plugin import TransformHeaders, TransformHeadersConfig

__all__ = ["TransformHeaders", "TransformHeadersConfig"]
