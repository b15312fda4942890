"""The scripts that Redis runs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final


class Script:
    """A Lua script of this package, and the name that Redis knows it by (`EVALSHA`)."""

    def __init__(self, file: str) -> None:
        self.text = Path(__file__).with_name(file).read_text(encoding="utf-8")
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    async def load(self, client: Any) -> None:
        """Have Redis know it."""
        await client.script_load(self.text)


LEND: Final = Script("lend.lua")
RESET: Final = Script("reset.lua")
