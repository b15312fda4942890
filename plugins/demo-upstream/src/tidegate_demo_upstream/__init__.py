"""A small model that needs no model: speaks the OpenAI chat format on loopback."""

from tidegate.api import Plugin


class DemoUpstream(Plugin):
    """A small model that needs no model: speaks the OpenAI chat format on loopback."""
