"""The addon: it has the console run beside the workers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tidegate.api import Node, Plugin, hook
from tidegate.api.store import Migrations

from .config import ConsoleApiConfig


class ConsoleApi(Plugin[ConsoleApiConfig]):
    """The console's admin API. What serves it is imported in its own process only."""

    Config = ConsoleApiConfig
    migrations = Migrations("console_api_", Path(__file__).with_name("migrations"))

    @hook
    def bootstrap(self, node: Node) -> None:
        """Listen, and make the first administrator."""
        from .passwords import SHORTEST
        from .users import Users

        tls = self.config.tls
        for file in () if tls is None else (tls.cert, tls.key):
            if not (self.context.base / file).is_file():
                raise ValueError(f"`tls`: there is no file {file}")
        scheme = "http" if tls is None else "https"
        node.announce("console", f"{scheme}://{node.serve(self.config.listen)}")
        given = self.config.admin_password
        password = given.get_secret_value() if given is not None else ""
        if password and len(password) < SHORTEST:
            raise ValueError(f"`admin_password` has at least {SHORTEST} characters")
        users = Users(self.context.platform_store())
        made = users.first(self.config.admin, password or None)
        if made is not None and not password:
            node.announce("admin_user", self.config.admin)
            node.announce("admin_password", made)

    @asynccontextmanager
    async def serve(self, listener: Any) -> AsyncIterator[None]:
        """Serve the admin API."""
        from .server import serving

        async with serving(self, listener):
            yield

    @hook
    def cli_commands(self, app: Any) -> None:
        """`tidegate console`."""
        from .verbs import add_verbs

        add_verbs(app, self)
