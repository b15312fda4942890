"""The addon on exchanges: rules, whom they are for, what they ask."""

import logging
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError
from tidegate_access_policy import AccessPolicy, AccessPolicyConfig

from tidegate.api import AddonContext, Client, Denial, Plugin, Principal, hook
from tidegate.api.expression import Expression, ExpressionError
from tidegate.api.formats import format_names
from tidegate.testing import Use, make_exchange
from tidegate.testing.contracts import AuthorizeContract, PluginContract

ADA = Principal("ada", "ml", {"roles": ["reader", "dev"], "plan": "free", "level": 2})


def addon(tmp_path, *rules, **options):
    named = [{"name": f"rule {n}", **rule} for n, rule in enumerate(rules)]
    config = AccessPolicyConfig.model_validate({"rules": named, **options})
    return AccessPolicy(config, AddonContext("access-policy", tmp_path))


def code(plugin, exchange) -> str:
    result = plugin.authorize(exchange)
    return result.code if isinstance(result, Denial) else "passes"


def ask(method="GET", path="/", principal=ADA, address="10.1.2.3", now=1_750_000_000.0, **rest):
    client = Client(address, 1, address)
    url = f"http://api.test{path}"
    return make_exchange(method, url, principal=principal, client=client, now=now, **rest)


# -- whom -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("whom", "meant"),
    [
        (None, True),
        ({"principals": ["ml/ada"]}, True),
        ({"principals": ["ada"]}, False),
        ({"teams": ["x", "ml"]}, True),
        ({"teams": ["x"]}, False),
        ({"roles": ["dev"]}, True),
        ({"roles": ["de"]}, False),
        ({"attributes": {"plan": ["pro", "free"]}}, True),
        ({"attributes": {"plan": ["pro"]}}, False),
        ({"attributes": {"level": [2]}}, True),
        ({"attributes": {"level": ["2"]}}, False),
        ({"attributes": {"level": [True]}}, False),
        ({"attributes": {"roles": ["reader"]}}, True),
        ({"attributes": {"none": ["x"]}}, False),
        ({"teams": ["ml"], "roles": ["admin"]}, False),
        ({"anonymous": True}, False),
    ],
)
def test_whom_a_rule_is_for(tmp_path, whom, meant):
    rule = {"operations": [], **({"for": whom} if whom else {})}
    plugin = addon(tmp_path, rule)
    assert code(plugin, ask()) == ("operation_not_allowed" if meant else "passes")


def test_anonymous_callers_have_rules_of_their_own_and_those_for_everyone(tmp_path):
    own = addon(tmp_path, {"operations": [], "for": {"anonymous": True}})
    everyone = addon(tmp_path, {"operations": []})
    others = addon(tmp_path, {"operations": [], "for": {"roles": ["dev"]}})
    nobody = ask(principal=None)
    assert [code(p, nobody) for p in (own, everyone, others)] == [
        "operation_not_allowed", "operation_not_allowed", "passes",
    ]  # fmt: skip


def test_equal_principals_with_other_roles_have_other_rules(tmp_path):
    plugin = addon(tmp_path, {"operations": [], "for": {"roles": ["dev"]}})
    other = Principal("ada", "ml", {"roles": ["none"]})
    assert other == ADA
    for _ in range(2):
        assert code(plugin, ask()) == "operation_not_allowed"
        assert code(plugin, ask(principal=other)) == "passes"


def test_all_rules_must_hold_and_the_first_that_does_not_decides(tmp_path):
    plugin = addon(
        tmp_path,
        {"operations": ["/*"]},
        {"networks": ["192.0.2.0/24"]},
        {"operations": []},
    )
    exchange = ask()
    assert code(plugin, exchange) == "address_not_allowed"
    assert exchange.notes["policy"] == {"rule": "rule 1", "option": "networks"}


def test_whom_no_rule_is_for_meets_the_default(tmp_path):
    rule = {"operations": ["/*"], "for": {"teams": ["other"]}}
    assert code(addon(tmp_path, rule), ask()) == "passes"
    assert code(addon(tmp_path, rule, default="deny"), ask()) == "policy_denied"
    assert code(addon(tmp_path, default="deny"), ask()) == "policy_denied"


# -- what -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/users/7", True),
        ("HEAD", "/users/7", True),
        ("POST", "/users/7", False),
        ("GET", "/users/7/keys", False),
        ("GET", "/users/", False),
        ("GET", "/users", False),
        ("DELETE", "/files/a/b", True),
        ("DELETE", "/files", True),
        ("DELETE", "/filesystem", False),
        ("get", "/users/7", False),
        ("GET", "/users/7?x=/files/", True),
    ],
)
def test_operations(tmp_path, method, path, allowed):
    plugin = addon(tmp_path, {"operations": ["GET /users/{id}", "/files/*"]})
    assert (code(plugin, ask(method, path)) == "passes") is allowed


def test_on_limits_a_rule_to_operations(tmp_path):
    plugin = addon(tmp_path, {"on": ["POST /v1/*"], "networks": ["192.0.2.1"]})
    assert code(plugin, ask("GET", "/v1/x")) == "passes"
    assert code(plugin, ask("POST", "/v1/x")) == "address_not_allowed"


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("10.255.0.1", True),
        ("11.0.0.1", False),
        ("192.0.2.7", True),
        ("fd00::1", True),
        ("::ffff:10.0.0.1", True),
        ("fe80::1%eth0", False),
        ("unix", False),
    ],
)
def test_networks(tmp_path, address, allowed):
    plugin = addon(tmp_path, {"networks": ["10.0.0.0/8", "192.0.2.7", "fd00::/8"]})
    for _ in range(2):
        assert (code(plugin, ask(address=address)) == "passes") is allowed


FORMATS = pytest.mark.skipif(
    not format_names(), reason="needs tidegate-ai-formats: uv pip install tidegate-ai-formats"
)
OFFICE = {"days": ["mon-fri"], "from": "08:00", "to": "18:00", "zone": "Europe/Berlin"}
NIGHT = {"days": ["fri"], "from": "22:00", "to": "06:00", "zone": "Europe/Berlin"}


@pytest.mark.parametrize(
    ("window", "when", "is_open"),
    [
        (OFFICE, "2026-03-27 08:00", True),
        (OFFICE, "2026-03-27 07:59", False),
        (OFFICE, "2026-03-27 18:00", False),
        (OFFICE, "2026-03-28 12:00", False),
        (OFFICE, "2026-03-30 08:00", True),  # summer time began in between
        (NIGHT, "2026-03-27 22:00", True),
        (NIGHT, "2026-03-28 05:59", True),
        (NIGHT, "2026-03-28 06:00", False),
        (NIGHT, "2026-03-27 05:00", False),
        ({"days": ["sat-mon"]}, "2026-03-29 23:00", True),
        ({"days": ["sat-mon"]}, "2026-03-31 12:00", False),
    ],
)
def test_hours(tmp_path, window, when, is_open):
    now = datetime.fromisoformat(when).replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
    plugin = addon(tmp_path, {"hours": [window]})
    assert code(plugin, ask(now=now)) == ("passes" if is_open else "outside_hours")


@FORMATS
@pytest.mark.parametrize(
    ("path", "body", "allowed"),
    [
        ("/v1/chat/completions", {"model": "openai/gpt-5", "messages": []}, True),
        ("/v1/chat/completions", {"model": "openai/gpt-5\n", "messages": []}, True),
        ("/v1/chat/completions", {"model": "openai/o3", "messages": []}, False),
        ("/v1/chat/completions", {"model": "xopenai/gpt-5", "messages": []}, False),
        ("/v1/embeddings", {"model": "embed", "input": "x"}, True),
        ("/v1/embeddings", {"model": "openai/o3", "input": "x"}, False),
        ("/v1/chat/completions", b"nonsense", False),
        ("/v1/chat/completions", b"[]", False),
        ("/v1/chat/completions", {"messages": []}, False),
        ("/other", b"nonsense", True),
    ],
)
def test_models(tmp_path, path, body, allowed):
    plugin = addon(tmp_path, {"models": ["openai/gpt-*", "embed"]})
    exchange = ask("POST", path, body=body)
    assert code(plugin, exchange) == ("passes" if allowed else "model_not_allowed")


@FORMATS
def test_an_expression_sees_the_model(tmp_path):
    plugin = addon(tmp_path, {"when": 'model == "" || model == "gpt-5"'})
    calls = [
        ask("POST", "/v1/chat/completions", body={"model": m, "messages": []})
        for m in ("gpt-5", "o3")
    ]
    assert [code(plugin, exchange) for exchange in (ask(), *calls)] == [
        "passes", "passes", "policy_denied",
    ]  # fmt: skip


def test_bodies_are_gathered_only_where_a_rule_asks_for_models():
    needs = AccessPolicy.authorize.tidegate_hook.needs

    def gathers(rule):
        config = AccessPolicyConfig.model_validate({"rules": [{"name": "a", **rule}]})
        return needs(config) is not None

    assert gathers({"models": ["x"]})
    assert gathers({"when": 'model == "x"'})
    assert not gathers({"when": 'path == "model"', "operations": ["/x"]})


# -- expressions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        ('team == "ml" && "dev" in roles && name == "ada"', True),
        ('attributes.plan == "free" && attributes.level >= 2', True),
        ('method == "GET" && path.startsWith("/v1/") && host == "api.test"', True),
        ('query.tag == ["a", "b"] && !("x" in query)', True),
        ("anonymous", False),
        ('address == "10.1.2.3"', True),
        ('now < timestamp("2025-06-16T00:00:00Z")', True),
        ("now.getDayOfWeek() == 0 && now.getHours() == 12", True),
        ('roles.exists(r, r.matches("^re.*r$"))', True),
        ("has(attributes.none)", False),
        ('attributes.none == "x"', False),
        ("attributes.level", False),
        ('"text"', False),
        ("1 / 0 == 1", False),
        ('name + 1 == "x"', False),
    ],
)
def test_expressions(tmp_path, when, holds):
    plugin = addon(tmp_path, {"when": when})
    exchange = ask(path="/v1/x?tag=a&tag=b", now=1_749_990_000.0)
    assert code(plugin, exchange) == ("passes" if holds else "policy_denied")


def test_an_expression_sees_each_principal_as_it_is(tmp_path):
    plugin = addon(tmp_path, {"when": 'size(roles) == 1 && attributes.secret == "a"'})
    one, two = (Principal("a", "", {"roles": "x", "secret": s}) for s in "ab")
    for _ in range(2):
        assert code(plugin, ask(principal=one)) == "passes"
        assert code(plugin, ask(principal=two)) == "policy_denied"
        assert code(plugin, ask(principal=None)) == "policy_denied"


def test_a_failed_expression_denies_counts_and_tells_no_value(tmp_path, caplog):
    plugin = addon(tmp_path, {"when": "int(attributes.secret) > 1"})
    with caplog.at_level(logging.DEBUG):
        denied = code(plugin, ask(principal=Principal("a", "", {"secret": "canary"})))
    assert denied == "policy_denied"
    assert plugin.context.counters.values == {"expression_errors_total": 1}
    assert "rule 0" in caplog.text
    assert "canary" not in caplog.text


def test_too_many_values_make_an_expression_fail(tmp_path):
    query = addon(tmp_path, {"when": "size(query) >= 0"})
    assert code(query, ask(path="/?" + "&".join(f"p{n}=" for n in range(100)))) == "passes"
    assert code(query, ask(path="/?" + "&".join(f"p{n}=" for n in range(600)))) == "policy_denied"
    roles = addon(tmp_path, {"when": "roles.all(r, r in roles)"})
    many = Principal("a", "", {"roles": [str(n) for n in range(600)]})
    assert code(roles, ask(principal=many)) == "policy_denied"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("name ==", "column 8"),
        ("nam == 'a'", "no value `nam`: do you mean `name`"),
        ("name.startWith('a')", "no function `startWith`: do you mean `startsWith`"),
        ("roles.all(a, roles.all(b, a == b))", "column 23: a macro within a macro"),
        ("roles.all(a, // )\n roles.all(b, a == b))", "a macro within a macro"),
        ("roles.all(a, a == ')' && roles . exists (b, a == b))", "a macro within a macro"),
        ("roles.map(a, (roles.filter(b, b != a))).size() > 0", "a macro within a macro"),
        ("path.matches(name)", "must be written out"),
        ("path.matches('a' + name)", "must be written out"),
        ("path.matches('(')", "no pattern"),
        ("path.matches('" + "a" * 2000 + "')", "longer than 2000"),
        ("(" * 400 + "true" + ")" * 400, "parse|column"),
    ],
)
def test_expressions_that_are_wrong_or_unbounded_are_refused(source, reason):
    with pytest.raises(ExpressionError, match=reason):
        Expression(source)


@pytest.mark.parametrize(
    "source",
    ["roles.all(a, a != '') && roles.exists(b, b == 'x.all(')", "path.matches(r'^/v\\d')"],
)
def test_expressions_that_only_look_so_are_taken(source):
    Expression(source)


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({"when": "nam"}, r'rules\.0 \("rule 0"\): when: there is no value'),
        ({"operations": ["GET users"]}, r"rule 0.*operations"),
        ({"operations": ["G@T /users"]}, "not a method"),
        ({"networks": ["10.0.0.1/8"]}, "networks: .*host bits"),
    ],
)
def test_a_rule_that_can_not_be_compiled_is_named(tmp_path, rule, reason):
    with pytest.raises(ValueError, match=reason):
        addon(tmp_path, rule)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "asks nothing"),
        ({"rules": [{"name": "a"}]}, "asks nothing"),
        ({"rules": [{"name": "a", "models": []}] * 2}, "two rules"),
        ({"rules": [{"name": "a", "models": [], "for": {}}]}, "names nobody"),
        ({"rules": [{"name": "a", "models": [], "for": {"anonymous": True, "teams": ["a"]}}]},
         "anonymous callers"),
        ({"rules": [{"name": "a", "hours": []}]}, "at least 1"),
        ({"rules": [{"name": "a", "hours": [{"days": ["monday"]}]}]}, "mon-fri"),
        ({"rules": [{"name": "a", "hours": [{"from": "8:00"}]}]}, "08:30"),
        ({"rules": [{"name": "a", "hours": [{"from": "08:00", "to": "08:00"}]}]}, "no time"),
        ({"rules": [{"name": "a", "hours": [{"zone": "Mars"}]}]}, "time zone"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options, reason):
    with pytest.raises(ValidationError, match=reason):
        AccessPolicyConfig.model_validate(options)


def test_explain_names_rules_and_no_value(tmp_path):
    plugin = addon(tmp_path, {"networks": ["10.0.0.0/8"]}, {"when": 'name == "ada"'})
    assert plugin.explain("authorize", ask()) == "held: rule 0, rule 1"
    empty = addon(tmp_path, {"models": [], "for": {"teams": ["x"]}})
    assert empty.explain("authorize", ask()) == "no rule is for this caller"


# -- the contract -----------------------------------------------------------------------------


class Ada(Plugin):
    """Everyone is Ada."""

    @hook
    def authenticate(self, exchange):
        return ADA


OPTIONS = {"rules": [{"name": "a", "operations": ["GET /*"], "for": {"roles": ["dev"]}}]}


class TestPlugin(PluginContract):
    name = "access-policy"

    def options(self):
        return OPTIONS


class TestAuthorize(AuthorizeContract):
    name = "access-policy"

    def options(self):
        return OPTIONS

    def others(self):
        return (Use(Ada),)

    def denied(self):
        return [make_exchange(), make_exchange("POST")]
