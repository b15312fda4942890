"""The addon in a real pipeline: what every plugin keeps, and what this one does."""

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from tidegate.api import Exchange
from tidegate.testing import PluginContract, RouteContract, make_exchange


class TestMyPolicy(RouteContract, PluginContract):
    """The contract suites; an upstream that can't be reached is the backend that is down."""

    name = "my-policy"

    def options(self) -> Mapping[str, Any]:
        return {"upstreams": {"blue": "http://blue.test", "green": "http://green.test:81/v1"}}

    def good_exchange(self) -> Exchange:
        return make_exchange(headers={"x-stage": "green"})

    def unrouted_exchange(self) -> Exchange:
        return make_exchange(headers={"x-stage": "red"})

    async def test_the_field_names_the_upstream(self) -> None:
        async with self.harness() as harness:
            exchange = await harness.send(self.good_exchange())
        assert exchange.attempts[0].upstream.url == "http://green.test:81/v1"

    async def test_what_is_not_a_url_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="starts with http"):
            self.plugin().Config.model_validate({"upstreams": {"blue": "blue.test"}})
