"""The base of all suites: what a plugin's tests supply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from tidegate.api import Exchange, Plugin
from tidegate.api.errors import CORE_CODES
from tidegate.runtime.registry import available
from tidegate.testing.exchanges import make_exchange
from tidegate.testing.harness import Harness, Use


class Contract:
    """Base of the suites. A subclass sets `name` and overrides what differs; never a test."""

    pytestmark = pytest.mark.asyncio

    name: ClassVar[str]
    """The plugin's entry-point name, such as `auth-key`."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for attribute in vars(cls):
            held = attribute.startswith("test_") and any(
                attribute in vars(base) for base in cls.__mro__[1:] if issubclass(base, Contract)
            )
            if held:
                raise TypeError(f"{cls.__name__}: {attribute} is the contract's, not to override")

    # -- what a subclass supplies -------------------------------------------------------------

    def plugin(self) -> type[Plugin[Any]]:
        """The plugin's class; by default what its entry point names."""
        found: type[Plugin[Any]] = available()[self.name].load()
        return found

    def options(self) -> Mapping[str, Any]:
        """Options under which the exchanges of this suite mean what they say."""
        return {}

    def others(self) -> tuple[Use, ...]:
        """Addons that stand before the plugin, such as one that authenticates."""
        return ()

    def good_exchange(self) -> Exchange:
        """An exchange that the plugin lets pass."""
        return make_exchange()

    # -- what the suites use ------------------------------------------------------------------

    def use(self, mode: str = "enforce", **options: Any) -> Use:
        """The plugin as an addon, with further options."""
        return Use(self.plugin(), {**self.options(), **options}, mode=mode, name=self.name)

    def harness(self, mode: str = "enforce", **settings: Any) -> Harness:
        """A harness of the plugin, behind `others()`."""
        return Harness(*self.others(), self.use(mode), **settings)

    def codes(self) -> set[str]:
        """The error codes that the plugin may deny with: declared, so that they are documented."""
        return {code.code for code in (*CORE_CODES, *self.plugin().codes)}


def on_the_wire(message: Any) -> bytes:
    """Head and body of a message, for searches."""
    data = message.data
    lines = [getattr(data, "path", b""), *(b"%b: %b" % field for field in data.headers.fields)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + (data.content or b"")
