"""The addon on exchanges: who may use which service, and what of it."""

import pytest
from tidegate_access_grant import AccessGrant, AccessGrantConfig

from tidegate.api import AddonContext, Client, Denial, Plugin, Principal, hook
from tidegate.api.caching import CACHE_HINTS
from tidegate.api.formats import format_names
from tidegate.api.models import MODELS, Model
from tidegate.api.platform import CONSUMER, Policy, Service, Team
from tidegate.testing import Harness, Platform, Use, make_consumer, make_exchange
from tidegate.testing.contracts import AuthorizeContract, PluginContract

WEB, CORE = Team("web", "web"), Team("core", "core")
SHOP = make_consumer("shop", "web")


def service(name="orders", team=CORE, **fields):
    fields = {"visibility": "internal", **fields}
    return Service(f"{team.name}/{name}", name, team, path=f"/{name}", **fields)


ORDERS = service()
PRIVATE = service("ledger", visibility="private")
OPEN = service("status", anonymous=True, visibility="private")
READ = service("docs", methods=frozenset({"GET"}))
OWN = service("cart", WEB, visibility="private")
SECRET = service("vault", visibility="private", methods=frozenset({"GET", "PUT"}))
PLATFORM = Platform(
    ORDERS, PRIVATE, OPEN, READ, OWN, SECRET, grants=[(SHOP.application, ORDERS)],
    keys={"shop": SHOP, "blog": make_consumer("blog", "web"), "ops": make_consumer("ops", "core")},
)  # fmt: skip


@pytest.fixture
def addon(tmp_path):
    def make(**options):
        config = AccessGrantConfig.model_validate(options)
        return AccessGrant(config, AddonContext("access-grant", tmp_path))

    return make


def ask(path="/orders", caller=SHOP, method="GET", platform=PLATFORM, **rest):
    """A request of a key's application, of a principal of another addon, or of nobody."""
    exchange = platform.put(make_exchange(method, f"http://api.test{path}", **rest))
    if isinstance(caller, Principal) or caller is None:
        exchange.principal = caller
    else:
        exchange.principal, exchange.stash[CONSUMER] = caller.principal, caller
    return exchange


def code(plugin, exchange) -> str:
    for phase in (plugin.authorize, plugin.transform_request):
        result = phase(exchange)
        if isinstance(result, Denial):
            return f"{result.status} {result.code}"
    return "passes"


# -- who --------------------------------------------------------------------------------------

NOT_SUBSCRIBED, NOT_FOUND = "403 not_subscribed", "404 no_route"


@pytest.mark.parametrize(
    ("path", "caller", "says"),
    [
        ("/orders", SHOP, "passes"),
        ("/orders", make_consumer("blog", "web"), NOT_SUBSCRIBED),
        ("/orders", make_consumer("ops", "core"), NOT_SUBSCRIBED),
        ("/orders", Principal("shop", "web"), "passes"),
        ("/orders", Principal("eve", "web"), NOT_SUBSCRIBED),
        ("/orders", Principal("shop", "core"), "passes"),
        ("/orders", Principal("blog", "web"), NOT_SUBSCRIBED),
        ("/orders", Principal("ops", "core"), NOT_SUBSCRIBED),
        ("/orders", Principal("shop"), NOT_SUBSCRIBED),
        ("/orders", None, "401 unauthenticated"),
        ("/ledger", SHOP, NOT_FOUND),
        ("/ledger", Principal("eve", "web"), NOT_FOUND),
        ("/ledger", Principal("ledger"), NOT_FOUND),
        ("/ledger", None, NOT_FOUND),
        ("/ledger", make_consumer("ops", "core"), NOT_SUBSCRIBED),
        ("/ledger", Principal("ada", "core"), "passes"),
        ("/cart", SHOP, NOT_SUBSCRIBED),
        ("/cart", Principal("eve", "web"), "passes"),
        ("/status", None, "passes"),
        ("/status", SHOP, "passes"),
        ("/nothing", SHOP, NOT_FOUND),
        ("/nothing", None, NOT_FOUND),
    ],
)
def test_who_may_use_a_service(addon, path, caller, says):
    assert code(addon(), ask(path, caller)) == says


def test_another_teams_private_service_is_as_if_it_was_not_there(addon):
    assert addon().authorize(ask("/ledger")) == addon().authorize(ask("/nothing"))


@pytest.mark.parametrize(
    ("path", "caller", "says"),
    [
        ("/docs", SHOP, ("405 method_not_allowed", "GET")),
        ("/vault", SHOP, (NOT_FOUND, None)),
        ("/vault", None, (NOT_FOUND, None)),
        ("/vault", Principal("ada", "core"), ("405 method_not_allowed", "GET, PUT")),
    ],
)
def test_a_method_that_no_service_takes_is_told_to_those_who_may_know(addon, path, caller, says):
    denial = addon().authorize(ask(path, caller, "DELETE"))
    told = (f"{denial.status} {denial.code}", dict(denial.headers).get("allow"))
    assert told == says


def test_requests_for_no_service_pass_where_the_option_says_so(addon):
    exchange = ask("/nothing")
    assert code(addon(unmatched="pass"), exchange) == "passes"
    assert code(addon(unmatched="pass"), ask("/ledger")) == NOT_FOUND


def test_a_key_is_limited_to_its_services(addon):
    for only, says in (
        ({ORDERS.id}, "passes"),
        ({OWN.id}, "403 service_not_allowed"),
        ((), "403 service_not_allowed"),
    ):
        caller = make_consumer("shop", "web", services=frozenset(only))
        assert code(addon(), ask(caller=caller)) == says
        assert code(addon(), ask("/ledger", caller)) == NOT_FOUND


def test_without_a_snapshot_nobody_passes(addon):
    exchange = make_exchange(principal=SHOP.principal)
    assert code(addon(), exchange) == "503 platform_unavailable"


# -- what -------------------------------------------------------------------------------------


def granted(offered):
    """A platform with one service, to which the shop is subscribed."""
    return Platform(offered, keys={"shop": SHOP}, grants=[(SHOP.application, offered)])


@pytest.mark.parametrize(
    ("method", "path", "says"),
    [
        ("GET", "/orders", "passes"),
        ("GET", "/orders/", "passes"),
        ("GET", "/orders/7", "passes"),
        ("HEAD", "/orders/7", "passes"),
        ("DELETE", "/orders/7", "passes"),
        ("PUT", "/orders/7", "405 method_not_allowed"),
        ("POST", "/orders", "405 method_not_allowed"),
        ("GET", "/orders/7/lines", "403 operation_not_allowed"),
        ("get", "/orders/7", "405 method_not_allowed"),
    ],
)
def test_only_its_operations_are_offered(addon, method, path, says):
    offered = service(operations=("GET /", "GET /{id}", "HEAD /{id}", "DELETE /{id}"))
    assert code(addon(), ask(path, method=method, platform=granted(offered))) == says


def test_operations_are_below_a_path_with_parameters_of_the_same_name(addon):
    offered = Service("s", "s", CORE, path="/t/{id}/*", operations=("GET /x/{id}",))
    platform = granted(offered)
    assert code(addon(), ask("/t/1/x/2", platform=platform)) == "passes"
    assert code(addon(), ask("/t/1/y/2", platform=platform)) == "403 operation_not_allowed"


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ('method == "GET" && team == "web"', "passes"),
        ('address.startsWith("10.")', "403 policy_denied"),
        ("now.getFullYear() < 2020", "403 policy_denied"),
        ("attributes.plan == 'pro'", "403 policy_denied"),
        ("  ", "passes"),
    ],
)
def test_its_policy_must_hold(addon, policy, says):
    assert code(addon(), ask(platform=granted(service(policy=policy)))) == says


def test_a_policy_that_fails_or_makes_no_sense_denies_and_is_counted(addon, caplog):
    plugin = addon()
    assert code(plugin, ask(platform=granted(service(policy="attributes.x == 1")))) != "passes"
    for _ in range(2):
        broken = ask(platform=granted(service(policy="nme == 1")))
        assert code(plugin, broken) == "503 service_unusable"
    assert plugin.context.counters.values == {
        "policy_errors_total": 1, "policy_denials_total": 1, "unusable_services_total": 2,
    }  # fmt: skip
    assert "do you mean `name`" in caplog.text


HOURS = Policy("hours", "now.getFullYear() > 2020", "Office hours")
INSIDE = Policy("inside", 'address.startsWith("10.")')
SHUT = Policy("shut", "now.getFullYear() < 2020", "Office hours")


@pytest.mark.parametrize(
    ("own", "policies", "says"),
    [
        ("", (HOURS,), None),
        ("true", (HOURS,), None),
        ("", (INSIDE,), 'The policy "inside" of this API denies the request.'),
        ("", (HOURS, INSIDE), 'The policy "inside" of this API denies the request.'),
        ("true", (SHUT, INSIDE), 'The policy "Office hours" of this API denies the request.'),
        ("false", (SHUT,), "A policy of this API denies the request."),
        ("", (Policy("x", "attributes.x == 1"),), 'The policy "x" of this API denies the request.'),
    ],
)
def test_the_policies_of_its_team_must_hold_and_deny_by_their_names(addon, own, policies, says):
    plugin = addon()
    denial = plugin.authorize(ask(platform=granted(service(policy=own, policies=policies))))
    told = None if denial is None else (denial.status, denial.code, denial.message)
    assert told == (None if says is None else (403, "policy_denied", says))
    assert plugin.context.counters.values.get("policy_denials_total", 0) == (says is not None)


def test_a_policy_of_its_team_that_fails_is_named_in_the_log(addon, caplog):
    offered = service(policies=(Policy("plans", "attributes.plan == 'pro'"),))
    assert code(addon(), ask(platform=granted(offered))) == "403 policy_denied"
    assert "service core/orders: policy plans: KeyError" in caplog.text


def test_a_policy_holds_for_all_callers(addon):
    closed = service(policies=(INSIDE,), anonymous=True)
    for caller in (SHOP, Principal("ada", "core"), None):
        assert code(addon(), ask(caller=caller, platform=granted(closed))) == "403 policy_denied"


def test_a_policy_is_compiled_once_and_anew_when_its_service_changes(addon):
    plugin, first = addon(), service(policy='method == "GET"')
    assert code(plugin, ask(platform=granted(first))) == "passes"
    compiled = plugin._offers.of(first)
    assert code(plugin, ask(platform=granted(first))) == "passes"
    assert plugin._offers.of(first) is compiled
    changed = service(policy='method == "POST"')
    assert code(plugin, ask(platform=granted(changed))) == "403 policy_denied"


# -- models -----------------------------------------------------------------------------------

needs_formats = pytest.mark.skipif(not format_names(), reason="install tidegate-ai-formats")


def chat(model, platform, caller=SHOP, path="/v1/chat/completions"):
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    return ask(path, caller, "POST", platform, body=body)


def models_platform(**fields):
    return granted(Service("ai", "ai", CORE, kind="ai", path="/v1", **fields))


@needs_formats
@pytest.mark.parametrize(
    ("of_service", "of_key", "model", "says"),
    [
        (None, None, "any", "passes"),
        (("openai/*",), None, "openai/gpt-4o", "passes"),
        (("openai/*",), None, "anthropic/x", "403 model_not_allowed"),
        (("openai/*",), None, "gpt-4o", "403 model_not_allowed"),
        (("fast", "x"), None, "fast", "passes"),
        ((), None, "fast", "403 model_not_allowed"),
        (None, ("openai/*",), "openai/gpt-4o", "passes"),
        (None, ("openai/*",), "anthropic/x", "403 model_not_allowed"),
        (("openai/*",), ("anthropic/*",), "openai/gpt-4o", "403 model_not_allowed"),
    ],
)
def test_a_model_must_be_the_services_and_the_keys(addon, of_service, of_key, model, says):
    platform = models_platform(models=of_service)
    caller = make_consumer("shop", "web", models=of_key)
    assert code(addon(), chat(model, platform, caller)) == says
    assert code(addon(), ask("/v1/models", caller, platform=platform)) == "passes"


class Known:
    """A plugin's `Models`: what the names of two models stand for."""

    def find(self, name, kind="chat"):
        ids = {("fast", "chat"): ("openai", "gpt-4o"), ("fast", "embeddings"): ("mistral", "embed")}
        found = ids.get((name, kind))
        return None if found is None else Model(*found, format="openai-chat", kind=kind)


@needs_formats
@pytest.mark.parametrize(
    ("path", "pattern", "says"),
    [
        ("chat/completions", "openai/*", "passes"),
        ("chat/completions", "mistral/*", "403 model_not_allowed"),
        ("embeddings", "mistral/*", "passes"),
        ("embeddings", "openai/*", "403 model_not_allowed"),
    ],
)
def test_a_name_is_allowed_by_the_model_that_it_stands_for(addon, path, pattern, says):
    exchange = chat("fast", models_platform(models=(pattern,)), path=f"/v1/{path}")
    exchange.request.content = b'{"model": "fast", "messages": [], "input": "x"}'
    exchange.stash[MODELS] = Known()
    assert code(addon(), exchange) == says


@needs_formats
def test_a_policy_may_ask_for_the_model(addon):
    frugal = Policy("frugal", 'model != "big"')
    platform = models_platform(policy='model != "dear"', policies=(frugal, HOURS))
    plugin, cheap = addon(), chat("cheap", platform)
    assert code(plugin, cheap) == "passes"
    assert plugin.explain("authorize", cheap).endswith("core/ai; policy hours holds")
    told = plugin.explain("transform_request", cheap)
    assert told == "the model is allowed on core/ai; its policy holds; policy frugal holds"
    assert code(plugin, chat("dear", platform)) == "403 policy_denied"
    big = chat("big", platform)
    assert plugin.authorize(big) is None
    assert '"frugal"' in plugin.transform_request(big).message


@needs_formats
def test_a_call_that_cannot_be_read_is_denied_where_its_model_is_limited(addon):
    twice = b'{"model": "b", "messages": [], "model": "a"}'
    for body in (b"{", b"[]", b"", b'"x"', twice, twice.replace(b"odel", rb"\u006fdel", 1)):
        exchange = ask(
            "/v1/chat/completions", method="POST", platform=models_platform(models=("a",)),
            body=body,
        )  # fmt: skip
        assert code(addon(), exchange) == "403 model_not_allowed", body


@needs_formats
def test_the_word_model_may_stand_elsewhere_in_a_call(addon):
    said = rb'[{"role": "user", "content": "a \u006dodel"}]'
    body = b'{"model": "a", "metadata": {"model": "b"}, "messages": ' + said + b"}"
    platform = models_platform(models=("a",))
    exchange = ask("/v1/chat/completions", method="POST", platform=platform, body=body)
    assert code(addon(), exchange) == "passes"


class Store(Plugin):
    """Stands for the store and for the addon that authenticates."""

    platform = PLATFORM
    caller = SHOP

    @hook
    def authenticate(self, exchange):
        self.platform.put(exchange)
        if self.caller is None:
            return None
        exchange.stash[CONSUMER] = self.caller
        return self.caller.principal


@needs_formats
async def test_only_the_bodies_of_calls_whose_model_is_limited_are_gathered():
    seen = []

    class Later(Plugin):
        @hook
        def transform_request(self, exchange):
            seen.append(exchange.request.data.content is not None)

    limited = Service("ai", "ai", CORE, path="/v1", models=("fast",))

    class Both(Store):
        platform = Platform(
            ORDERS, limited, keys={"shop": SHOP},
            grants=[(SHOP.application, ORDERS), (SHOP.application, limited)],
        )  # fmt: skip

    async with Harness(Use(Both), Use(AccessGrant), Use(Later)) as harness:
        for path, model in (("/orders", "x"), ("/v1/chat/completions", "fast")):
            body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
            exchange = make_exchange("POST", f"http://api.test{path}", body=body)
            assert (await harness.send(exchange)).status == 200
            assert harness.sent[-1].content == exchange.request.content
    assert seen == [False, True]


# -- in a pipeline ----------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "status"), [("/status", 200), ("/orders", 401), ("/x", 401)])
async def test_without_a_credential_only_what_is_anonymous_is_served(path, status):
    class Nobody(Store):
        caller = None

    async with Harness(Use(Nobody), Use(AccessGrant)) as harness:
        exchange = await harness.send(make_exchange(url=f"http://api.test{path}"))
        assert exchange.status == status


def test_caches_keep_services_apart(addon):
    plugin, other = addon(), service("other")
    first, second = ask(), ask("/other", platform=granted(other))
    assert (code(plugin, first), code(plugin, second)) == ("passes", "passes")
    hints = [exchange.stash[CACHE_HINTS] for exchange in (first, second)]
    assert hints[0].key != hints[1].key
    assert hints[0].tags == ["service:core/orders"]


@pytest.mark.parametrize(
    ("exchange", "says"),
    [
        (ask(), "web/shop is subscribed to core/orders"),
        (ask("/status", None), "everyone may use core/status"),
        (ask("/ledger", Principal("ada", "core")), "core/ledger is of the caller's own team"),
        (ask("/nothing"), "the request is for no service: others may route it"),
        (
            ask(platform=granted(service(policy="true", operations=("GET /",)))),
            "web/shop is subscribed to core/orders; the operation is one of its; its policy holds",
        ),
        (
            ask(platform=granted(service(policies=(HOURS, Policy("all", "true"))))),
            "web/shop is subscribed to core/orders; policy hours holds; policy all holds",
        ),
    ],
)
def test_it_explains_by_what_right(addon, exchange, says):
    plugin = addon(unmatched="pass")
    assert code(plugin, exchange) == "passes"
    assert plugin.explain("authorize", exchange) == says


class TestPlugin(PluginContract):
    name = "access-grant"


class TestAuthorize(AuthorizeContract):
    name = "access-grant"

    def others(self):
        return [Use(Store)]

    def good_exchange(self):
        return make_exchange(url="http://api.test/orders")

    def denied(self):
        client = Client("192.0.2.1", 1, "192.0.2.1")
        return [make_exchange(url=f"http://api.test{p}", client=client) for p in ("/ledger", "/x")]
