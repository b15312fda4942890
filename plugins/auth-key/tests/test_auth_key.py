"""The addon on exchanges: positions, refusals, life."""

import asyncio
import json
import logging
import re
import stat
import tomllib
from datetime import UTC, date, datetime
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import ValidationError
from tidegate_auth_key import AuthKey, AuthKeyConfig
from tidegate_auth_key.keys import Key, KeyRing, expiry, hash_key, principal

from tidegate.api import AddonContext, Client, Denial, Exchange, Node, Principal
from tidegate.api.keys import new_key, well_formed
from tidegate.api.platform import CONSUMER
from tidegate.runtime.lifecycle import Host, Runtime
from tidegate.runtime.messages import make_request
from tidegate.runtime.pipeline import strip_credentials
from tidegate.runtime.settings import parse
from tidegate.testing import Platform, make_consumer, make_exchange
from tidegate.testing.contracts import AuthContract, PluginContract

PEPPER = "a pepper of some length"


def ask(*fields: tuple[str, str], path: str = "/v1/x", now: float = 1_000.0) -> Exchange:
    raw = tuple((n.encode(), v.encode()) for n, v in (("Host", "gw"), *fields))
    request = make_request(b"GET", b"http", b"", "gw", 80, path.encode(), raw, b"", now)
    return Exchange("id", request, Client("127.0.0.1", 1, "127.0.0.1"), now=now)


def addon(tmp_path: Path, **options: object) -> AuthKey:
    config = AuthKeyConfig.model_validate({"pepper": PEPPER, **options})
    return AuthKey(config, AddonContext("auth-key", tmp_path / "state", base=tmp_path))


@pytest.fixture
def key() -> str:
    return new_key()


@pytest.fixture
async def auth(tmp_path, key):
    plugin = addon(
        tmp_path,
        keys=[{"name": "dev", "team": "core", "hash": hash_key(PEPPER.encode(), key)}],
        query=["key"],
    )
    await plugin.startup(None)
    yield plugin
    await plugin.shutdown()


def upstream_sees(exchange: Exchange) -> str:
    strip_credentials(exchange)
    return repr(exchange.request.data.path) + repr(exchange.request.headers.fields)


@pytest.mark.parametrize("field", ["x-api-key", "Api-Key", "X-Goog-Api-Key"])
async def test_a_known_key_in_a_field_is_its_holder_and_goes_no_further(auth, key, field):
    exchange = ask((field, key))
    assert auth.authenticate(exchange) == Principal("dev", "core")
    assert key not in upstream_sees(exchange)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_known_bearer_key_is_its_holder_and_goes_no_further(auth, key, scheme):
    exchange = ask(("Authorization", f"{scheme} {key}"))
    assert auth.authenticate(exchange) == Principal("dev", "core")
    assert "uthorization" not in upstream_sees(exchange)


async def test_a_key_in_a_listed_parameter_passes_and_the_rest_of_the_query_stays(auth, key):
    exchange = ask(path=f"/v1/x?a=1&key={key}&b=2")
    assert isinstance(auth.authenticate(exchange), Principal)
    strip_credentials(exchange)
    assert exchange.request.data.path == b"/v1/x?a=1&b=2"


async def test_a_parameter_that_is_not_listed_is_not_read(auth, key):
    assert auth.authenticate(ask(path=f"/v1/x?api_key={key}")) is None


async def test_a_field_that_is_not_listed_is_not_read(tmp_path, key):
    plugin = addon(tmp_path, header=["x-api-key"])
    assert plugin.authenticate(ask(("authorization", f"Bearer {key}"))) is None


@pytest.mark.parametrize(
    "credential",
    [
        new_key(),
        new_key()[:-1] + "!",
        new_key()[:-6] + "000000",
        "tg_",
        "' OR 1=1 --",
        "tg_" + "a" * 10_240,
        "",
    ],
    ids=["unknown", "bad character", "bad checksum", "prefix only", "SQL", "oversized", "empty"],
)
async def test_every_wrong_key_gets_the_same_answer(auth, credential):
    denial = auth.authenticate(ask(("x-api-key", credential)))
    assert denial == auth.authenticate(ask(("x-api-key", "wrong")))
    assert isinstance(denial, Denial)
    assert (denial.status, denial.code) == (401, "invalid_api_key")
    assert ("www-authenticate", "Bearer") in denial.headers


@pytest.mark.parametrize(
    "value", ["Basic dXNlcjpwYXNz", "Bearer eyJhbGciOi.eyJzdWIi.c2ln", "Bearer", "Digest a=b"]
)
async def test_another_kind_of_authorization_is_left_to_other_addons(auth, value):
    exchange = ask(("Authorization", value))
    assert auth.authenticate(exchange) is None
    assert exchange.credentials == []


async def test_no_credential_is_nothing_to_say(auth):
    assert auth.authenticate(ask()) is None


async def test_a_key_of_ours_in_a_second_place_goes_no_further_either(auth, key):
    exchange = ask(("x-api-key", new_key()), ("Authorization", f"Bearer {key}"))
    assert isinstance(auth.authenticate(exchange), Principal), "authorization comes first"
    assert "tg_" not in upstream_sees(exchange)


async def test_a_callers_own_credential_for_the_upstream_stays(auth, key):
    exchange = ask(("x-api-key", "provider-key"), ("Authorization", f"Bearer {key}"))
    assert isinstance(auth.authenticate(exchange), Principal)
    assert "provider-key" in upstream_sees(exchange)


async def test_a_key_behind_a_second_authorization_field_goes_no_further(auth, key):
    exchange = ask(("Authorization", "Basic eA=="), ("Authorization", f"Bearer {key}"))
    auth.authenticate(exchange)
    assert key not in upstream_sees(exchange)


async def test_bytes_that_are_not_utf8_are_just_a_wrong_key(auth):
    exchange = ask()
    exchange.request.headers.fields += ((b"x-api-key", b"tg_\xff\xfe"),)
    assert auth.authenticate(exchange).code == "invalid_api_key"


async def test_an_expired_key_is_denied_with_its_own_code(tmp_path, key):
    ends = datetime(2026, 1, 31, 12, tzinfo=UTC)
    hashed = hash_key(PEPPER.encode(), key)
    plugin = addon(tmp_path, keys=[{"name": "dev", "hash": hashed, "expires": ends}])
    await plugin.startup(None)
    before = ask(("x-api-key", key), now=ends.timestamp() - 1)
    after = ask(("x-api-key", key), now=ends.timestamp())
    assert isinstance(plugin.authenticate(before), Principal)
    assert plugin.authenticate(after).code == "api_key_expired"
    await plugin.shutdown()


async def test_keys_of_any_form_pass_where_the_option_says_so(tmp_path):
    plugin = addon(tmp_path, form="any", keys=[{"name": "old", "key": "sk-of-another-gateway"}])
    await plugin.startup(None)
    exchange = ask(("Authorization", "Bearer sk-of-another-gateway"))
    assert plugin.authenticate(exchange) == Principal("old")
    assert plugin.authenticate(ask(("x-api-key", "no"))).code == "invalid_api_key"
    await plugin.shutdown()


async def test_a_clear_key_in_the_file_warns_and_one_from_the_environment_does_not(
    tmp_path, key, caplog, monkeypatch
):
    plugin = addon(tmp_path, keys=[{"name": "dev", "key": key}])
    with caplog.at_level(logging.WARNING):
        await plugin.startup(None)
        await plugin.shutdown()
        assert '"dev" stands in the file' in caplog.text
        assert key not in caplog.text
        caplog.clear()
        monkeypatch.setenv("DEV_KEY", key)
        await plugin.startup(None)
        await plugin.shutdown()
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"keys": [{"name": "a"}]}, "either `hash` or `key`"),
        ({"keys": [{"name": "a", "hash": "0" * 64, "key": "x"}]}, "either `hash` or `key`"),
        ({"keys": [{"name": "a", "hash": "xyz"}]}, "pattern"),
        ({"keys": [{"name": "a", "key": "not-one-of-ours-at-all"}]}, "not a key of ours"),
        ({"keys": [{"name": "a", "key": "short"}], "form": "any"}, "16 to 512"),
        ({"pepper": "short"}, "at least 16"),
        ({"key": []}, "Extra inputs"),
    ],
)
def test_wrong_options_are_refused_without_telling_a_secret(options, reason):
    with pytest.raises(ValidationError) as caught:
        AuthKeyConfig.model_validate(options)
    message = str(caught.value.errors(include_input=False))
    assert reason in message
    assert "not-one-of-ours-at-all" not in message


# -- keys of the platform's store -----------------------------------------------------------

STORED = new_key()


def stored(credential: str = STORED, **limits: object) -> Exchange:
    """A request with a key that the platform knows."""
    platform = Platform(keys={STORED: make_consumer("shop", "web", **limits)})
    return platform.put(ask(("x-api-key", credential), now=1_000.0))


def networks(*texts: str) -> tuple[object, ...]:
    return tuple(ip_network(text) for text in texts)


async def test_a_key_of_the_store_is_its_application_and_goes_no_further(auth):
    exchange = stored()
    assert auth.authenticate(exchange) == Principal("shop", "web")
    assert exchange.stash[CONSUMER].application.name == "shop"
    assert STORED not in upstream_sees(exchange)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({}, "passes"),
        ({"expires": 1_000.1}, "passes"),
        ({"expires": 1_000.0}, "401 api_key_expired"),
        ({"revoked": 999.0}, "401 api_key_revoked"),
        ({"revoked": 2_000.0}, "401 api_key_revoked"),
        ({"revoked": 1.0, "expires": 1.0}, "401 api_key_revoked"),
        ({"networks": networks("127.0.0.0/8")}, "passes"),
        ({"networks": networks("10.0.0.0/8", "::/0")}, "403 address_not_allowed"),
        ({"networks": ()}, "403 address_not_allowed"),
    ],
)
async def test_a_key_of_the_store_is_good_where_and_as_long_as_it_says(auth, limits, says):
    exchange = stored(**limits)
    result = auth.authenticate(exchange)
    denied = isinstance(result, Denial)
    assert (f"{result.status} {result.code}" if denied else "passes") == says
    assert (CONSUMER in exchange.stash) is not denied


async def test_keys_of_the_addons_own_pass_beside_the_stores(auth, key):
    exchange = stored(key)
    assert auth.authenticate(exchange) == Principal("dev", "core")
    assert CONSUMER not in exchange.stash


async def test_a_key_that_nobody_knows_is_refused(auth):
    assert auth.authenticate(stored(new_key())).code == "invalid_api_key"


@pytest.mark.parametrize(
    "wrong",
    [STORED[:-1] + "!", STORED[:-6] + "000000", STORED.swapcase()],
    ids=["no digit", "wrong checksum", "swapped case"],
)
async def test_a_mistyped_key_is_refused_without_a_look_up(auth, wrong):
    class Asked(Platform):
        def consumer(self, credential):
            raise AssertionError("it was looked up")

    exchange = Asked().put(ask(("x-api-key", wrong)))
    assert auth.authenticate(exchange).code == "invalid_api_key"


async def test_keys_of_another_make_are_the_stores_too_where_the_option_says_so(tmp_path):
    old = "sk-of-another-gateway"
    for form, known in (("any", True), ("tidegate", False)):
        plugin = addon(tmp_path, form=form)
        await plugin.startup(None)
        exchange = Platform(keys={old: make_consumer()}).put(ask(("x-api-key", old)))
        assert isinstance(plugin.authenticate(exchange), Principal) is known
        await plugin.shutdown()


# -- the key file -----------------------------------------------------------------------------


async def eventually(check, seconds: float = 15.0) -> None:
    for _ in range(int(seconds / 0.05)):
        if check():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not come to that")


async def test_a_key_made_while_running_works_and_a_revoked_one_ends(auth):
    fresh = auth.create("new", "team")
    await eventually(lambda: isinstance(auth.authenticate(ask(("x-api-key", fresh))), Principal))
    auth.revoke("team/new")
    await eventually(lambda: isinstance(auth.authenticate(ask(("x-api-key", fresh))), Denial))


async def test_a_broken_key_file_leaves_the_keys_as_they_were(auth, caplog):
    fresh = auth.create("new")
    await eventually(lambda: isinstance(auth.authenticate(ask(("x-api-key", fresh))), Principal))
    auth.file.path.write_text('{"keys": [')
    await eventually(lambda: auth.context.counters.values.get("key_file_errors_total"))
    assert isinstance(auth.authenticate(ask(("x-api-key", fresh))), Principal)
    assert "keys.json is not JSON" in caplog.text


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"keys": [{"name": "a"}]}', "nonsense", '{"keys": 1}']
)
async def test_a_broken_key_file_refuses_to_start(tmp_path, content):
    plugin = addon(tmp_path, file="own.json")
    (tmp_path / "own.json").write_text(content)
    with pytest.raises(Exception, match=r"own\.json"):
        await plugin.startup(None)


def test_the_files_are_private_and_hold_no_key(tmp_path):
    config = AuthKeyConfig()
    plugin = AuthKey(config, AddonContext("auth-key", tmp_path / "state"))
    key = plugin.create("dev")
    for name in ("keys.json", "pepper"):
        mode = stat.S_IMODE((tmp_path / "state" / name).stat().st_mode)
        assert mode == 0o600, name
    text = (tmp_path / "state" / "keys.json").read_text()
    assert key not in text
    assert key[8:] not in text
    assert json.loads(text)["keys"][0]["prefix"] == key[:8]
    assert [p.name for p in (tmp_path / "state").iterdir() if p.name.startswith(".")] == []


def test_a_cut_pepper_is_told_and_not_replaced(tmp_path):
    plugin = AuthKey(AuthKeyConfig(), AddonContext("auth-key", tmp_path))
    (tmp_path / "pepper").write_bytes(b"short")
    with pytest.raises(ValueError, match="restore it"):
        _ = plugin.pepper
    assert (tmp_path / "pepper").read_bytes() == b"short"


def test_a_taken_name_is_refused_and_the_file_stays(tmp_path):
    plugin = addon(tmp_path)
    plugin.create("dev")
    before = plugin.file.path.read_bytes()
    with pytest.raises(ValueError, match="already"):
        plugin.create("dev")
    assert plugin.file.path.read_bytes() == before
    assert plugin.create("dev", "another team")


# -- the first start --------------------------------------------------------------------------


async def test_the_first_start_makes_one_key_and_shows_it_once(tmp_path):
    config = AuthKeyConfig()
    context = AddonContext("auth-key", tmp_path / "state")
    node = Node(tmp_path, tmp_path, "development")
    AuthKey(config, context).bootstrap(node)
    key = node.announcements["api_key"]
    again = Node(tmp_path, tmp_path, "development")
    AuthKey(config, context).bootstrap(again)
    assert again.announcements == {}
    worker = AuthKey(config, context)
    await worker.startup(None)
    assert worker.authenticate(ask(("x-api-key", key))) == Principal("default")
    await worker.shutdown()


def test_no_key_is_made_where_the_configuration_has_one_or_all_were_revoked(tmp_path):
    node = Node(tmp_path, tmp_path, "development")
    addon(tmp_path, keys=[{"name": "a", "hash": "0" * 64}]).bootstrap(node)
    plugin = addon(tmp_path)
    plugin.create("only")
    plugin.revoke("only")
    plugin.bootstrap(node)
    assert node.announcements == {}


# -- values -----------------------------------------------------------------------------------


def test_keys_are_long_distinct_and_recognised():
    keys = {new_key() for _ in range(1000)}
    assert len(keys) == 1000
    assert all(well_formed(k) and len(k) == 52 for k in keys)


def test_any_single_changed_character_is_noticed():
    key = new_key()
    for at in range(3, len(key)):
        other = "A" if key[at] != "A" else "B"
        assert not well_formed(key[:at] + other + key[at + 1 :]), at


def test_digits_of_other_scripts_are_not_digits():
    assert not well_formed(new_key()[:-1] + "٣")


def test_a_date_ends_with_its_day_and_a_time_is_exact():
    assert expiry(date(2027, 1, 31)) == datetime(2027, 2, 1, tzinfo=UTC).timestamp()
    assert expiry(datetime(2027, 1, 31, 6)) == datetime(2027, 1, 31, 6, tzinfo=UTC).timestamp()
    assert expiry(None) is None


def test_the_hash_of_nobody_is_not_a_key():
    ring = KeyRing([Key(hash_key(b"p", "k"), principal("a", "", ""))])
    assert ring.find("0" * 64) is None


async def test_the_readmes_example_loads(tmp_path):
    text = (Path(__file__).parents[1] / "README.md").read_text()
    example = re.search(r"```toml\n(.*?)```", text, re.S)[1]
    assert tomllib.loads(example)["addon"][0]["use"] == "auth-key"
    runtime = Runtime(Host(tmp_path))
    runtime.commit(await runtime.prepare(parse(example)))
    pipeline = runtime.begin("gateway", "gw", "/v1/x", "GET")
    exchange = ask(("x-api-key", "wrong"))
    assert not await pipeline.request(exchange)
    assert exchange.denial.code == "invalid_api_key"
    pipeline.finish(exchange)
    await runtime.close()


SECRETS = [new_key() for _ in range(3)]


class TestPlugin(PluginContract):
    name = "auth-key"


class TestAuth(AuthContract):
    name = "auth-key"

    def options(self):
        hashed = hash_key(PEPPER.encode(), SECRETS[0])
        return {"pepper": PEPPER, "query": ["key"], "keys": [{"name": "dev", "hash": hashed}]}

    def good_exchange(self):
        return make_exchange(headers={"authorization": f"Bearer {SECRETS[0]}"})

    def bad_exchanges(self):
        return [
            make_exchange(headers={"authorization": f"Bearer {SECRETS[1]}"}),
            make_exchange(headers={"x-api-key": SECRETS[2][:-1] + "!"}),
            make_exchange(url=f"http://api.test/?key={SECRETS[2]}"),
        ]

    def secrets(self):
        return [secret[8:-1] for secret in SECRETS]
