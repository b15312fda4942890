"""The addon."""

from __future__ import annotations

from tidegate.api import AddonConfig, Plugin


class StoreSqlConfig(AddonConfig):
    """The options."""


class StoreSql(Plugin[StoreSqlConfig]):
    """The platform's memory."""

    Config = StoreSqlConfig
