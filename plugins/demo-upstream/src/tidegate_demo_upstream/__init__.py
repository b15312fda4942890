"""A small model that needs no model: speaks the OpenAI chat format on loopback."""

from .plugin import DemoUpstream, DemoUpstreamConfig

__all__ = ["DemoUpstream", "DemoUpstreamConfig"]
