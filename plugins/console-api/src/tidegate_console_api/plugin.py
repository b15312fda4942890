"""The addon: it has the console run beside the workers."""

from __future__ import annotations

from tidegate.api import AddonConfig, Plugin


class ConsoleApi(Plugin[AddonConfig]):
    """The console's admin API."""
