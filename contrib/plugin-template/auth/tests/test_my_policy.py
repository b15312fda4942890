"""The addon in a real pipeline: what every plugin keeps, and what this one does."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from tidegate.api import Exchange
from tidegate.testing import AuthContract, PluginContract, make_exchange

TOKEN = "correct-horse-battery-staple"
HASH = sha256(TOKEN.encode()).hexdigest()


class TestMyPolicy(AuthContract, PluginContract):
    """The contract suites; this plugin has no backend that could be down."""

    name = "my-policy"

    def options(self) -> Mapping[str, Any]:
        return {"callers": [{"name": "ci", "team": "platform", "sha256": HASH}]}

    def good_exchange(self) -> Exchange:
        return make_exchange(headers={"x-token": TOKEN})

    def bad_exchanges(self) -> Sequence[Exchange]:
        return [make_exchange(headers={"x-token": token}) for token in ("", "wrong", TOKEN + "x")]

    def secrets(self) -> Sequence[str]:
        return [TOKEN, "wrong"]

    async def test_a_token_names_its_holder_and_team(self) -> None:
        async with self.harness() as harness:
            exchange = await harness.send(self.good_exchange())
        assert exchange.principal is not None
        assert exchange.principal.id == "platform/ci"
