"""What rules cost, without an expression and with one."""

import pytest
from tidegate_access_policy import AccessPolicy, AccessPolicyConfig

from tidegate.api import AddonContext, Client, Principal
from tidegate.testing import make_exchange

RULE = {
    "name": "all",
    "for": {"roles": ["dev"]},
    "operations": ["POST /v1/chat/completions", "GET /v1/models"],
    "networks": ["10.0.0.0/8"],
    "hours": [{"days": ["mon-sun"], "to": "24:00", "zone": "Europe/Berlin"}],
}
WHEN = {
    "none": {},
    "head": {"when": 'method == "POST" && path.startsWith("/v1/")'},
    "attributes": {"when": 'attributes.plan == "pro" || "dev" in roles'},
    "query": {"when": '!("debug" in query) && now.getHours() >= 0'},
}


@pytest.mark.parametrize("when", WHEN)
def test_access_policy(benchmark, tmp_path, when):
    config = AccessPolicyConfig.model_validate({"rules": [{**RULE, **WHEN[when]}]})
    addon = AccessPolicy(config, AddonContext("access-policy", tmp_path))
    principal = Principal("ada", "ml", {"roles": ["dev"], "plan": "free"})
    client = Client("10.1.2.3", 1, "10.1.2.3")
    exchange = make_exchange(
        "POST", "http://gw/v1/chat/completions", client=client, principal=principal
    )
    assert addon.authorize(exchange) is None
    benchmark(addon.authorize, exchange)
