"""The addon on exchanges: what it takes, what it refuses, and its issuer's bad days."""

import asyncio
import base64
import hashlib
import hmac
import json
import warnings
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from pydantic import ValidationError
from tidegate_auth_jwt import AuthJwt, AuthJwtConfig
from tidegate_auth_jwt.issuer import FetchError

from tidegate.api import AddonContext, Denial, Exchange, Principal
from tidegate.runtime.pipeline import strip_credentials
from tidegate.testing import ScriptedUpstream, make_exchange, script
from tidegate.testing.contracts import AuthContract, PluginContract

pytestmark = pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")

NOW = 1_750_000_000
ISSUER = "https://login.test"
RSA = RSAKey.generate_key(2048, parameters={"kid": "rsa", "use": "sig"})
EC = ECKey.generate_key("P-256", parameters={"kid": "ec"})
ED = OKPKey.generate_key("Ed25519", parameters={"kid": "ed"})
OTHER = RSAKey.generate_key(2048, parameters={"kid": "rsa"})
PUBLIC = {"keys": [key.as_dict(private=False) for key in (RSA, EC, ED)]}
CLAIMS = {"iss": ISSUER, "aud": "api", "sub": "ada", "exp": NOW + 600, "iat": NOW, "tenant": "ml"}


def token(key=RSA, alg="RS256", header=None, **claims):
    said = {k: v for k, v in {**CLAIMS, **claims}.items() if v is not None}
    head = {"alg": alg, "kid": key.kid, **(header or {})}
    head = {k: v for k, v in head.items() if v is not None}
    return jwt.encode(head, said, key, algorithms=[alg])


def raw(header, claims=CLAIMS, signature=b"x"):
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return b".".join(base64.urlsafe_b64encode(p).rstrip(b"=") for p in parts).decode()


def signed(**header):
    """Rightly signed, whatever its head says."""
    head = raw({"alg": "RS256", "kid": "rsa", **header}).rpartition(".")[0]
    signature = RSA.private_key.sign(head.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{head}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def hs256_with_the_public_key(secret):
    head = raw({"alg": "HS256", "kid": "rsa"}).rpartition(".")[0]
    signature = hmac.digest(secret, head.encode(), hashlib.sha256)
    return f"{head}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def ask(text, now=NOW, field="authorization"):
    value = f"Bearer {text}" if field == "authorization" else text
    return make_exchange(headers={field: value}, now=now)


def addon(folder: Path, **options) -> AuthJwt:
    (folder / "keys.json").write_text(json.dumps(PUBLIC))
    entry = {"issuer": ISSUER, "audience": ["api"], "jwks_file": "keys.json",
             **options.pop("issuer", {})}  # fmt: skip
    config = AuthJwtConfig.model_validate({"issuers": [entry], **options})
    return AuthJwt(config, AddonContext("auth-jwt", folder / "state", base=folder))


@asynccontextmanager
async def running(plugin, previous=None):
    await plugin.startup(previous)
    try:
        yield plugin
    finally:
        await plugin.shutdown()


async def say(plugin, exchange: Exchange):
    result = plugin.authenticate(exchange)
    return await result if asyncio.iscoroutine(result) else result


def code(result) -> str:
    assert isinstance(result, Denial), result
    return result.code


# -- tokens -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "alg"),
    [(RSA, "RS256"), (RSA, "PS384"), (EC, "ES256"), (ED, "EdDSA"), (ED, "Ed25519")],
    ids=lambda v: v if isinstance(v, str) else "",
)
async def test_a_signed_token_is_its_subject_and_goes_no_further(tmp_path, key, alg):
    async with running(addon(tmp_path)) as plugin:
        exchange = ask(token(key, alg))
        assert await say(plugin, exchange) == Principal("ada")
        strip_credentials(exchange)
        assert exchange.header("authorization") is None


ATTACKS = {
    "no algorithm": raw({"alg": "none"}, signature=b""),
    "no algorithm, in capitals": raw({"alg": "NoNe", "kid": "rsa"}),
    "the public key as a secret (PEM)": hs256_with_the_public_key(RSA.as_pem(private=False)),
    "the public key as a secret (DER)": hs256_with_the_public_key(RSA.as_der(private=False)),
    "another key under a known id": token(OTHER),
    "an unknown key": token(OTHER, header={"kid": "other"}),
    "a key of its own in the head": token(OTHER, header={"jwk": OTHER.as_dict(private=False)}),
    "keys from elsewhere": token(OTHER, header={"jku": "http://127.0.0.1:1/keys"}),
    "a path as key id": token(OTHER, header={"kid": "../../dev/null"}),
    "SQL as key id": token(OTHER, header={"kid": "' OR 1=1 --"}),
    "a key of another kind": raw({"alg": "ES256", "kid": "rsa"}, signature=b"\0" * 64),
    "a signature of zeros": raw({"alg": "ES256", "kid": "ec"}, signature=b"\0" * 64),
    "an algorithm that is a list": raw({"alg": ["RS256"], "kid": "rsa"}),
    "a key id that is a number": raw({"alg": "RS256", "kid": 1}),
    "an extension that must be understood": signed(crit=["exp"], exp=1),
    "an empty list of extensions": signed(crit=[]),
    "a payload that is not encoded": signed(b64=False),
    "another issuer": token(iss="https://evil.test"),
    "an issuer with a slash more": token(iss=f"{ISSUER}/"),
    "no issuer": token(iss=None),
    "an issuer that is a list": token(iss=[ISSUER]),
    "no end": token(exp=None),
    "an end that is a text": raw({"alg": "RS256", "kid": "rsa"}, {**CLAIMS, "exp": "9999999999"}),
    "no name": token(sub=None),
    "a name with a line break": token(sub="ada\r\nx-admin: 1"),
    "no signature": token().rpartition(".")[0] + ".",
    "another payload": ".".join([token().split(".")[0], raw({}).split(".")[1], "eA"]),
    "a changed signature": token()[:-8] + "AAAAAAAA",
    "white space inside": token().replace(".", " .", 1),
    "a wrong letter": token().replace(".", ".!", 1),
    "four parts": raw({"alg": "RS256"})[:-1] + "é",
    "claims that are a list": raw({"alg": "RS256", "kid": "rsa"}, [CLAIMS]),
    "oversized": "ey" + "a" * 20_000 + ".b.c",
    "cut": "eyJhbGciOiJSUzI1NiJ9",
}


async def test_every_attack_gets_the_same_refusal(tmp_path):
    async with running(addon(tmp_path)) as plugin:
        answers = {name: await say(plugin, ask(text)) for name, text in ATTACKS.items()}
        good = await say(plugin, ask(signed()))
    assert good == Principal("ada")
    assert {n: a for n, a in answers.items() if not isinstance(a, Denial)} == {}
    assert {n: a.code for n, a in answers.items() if a.code != "token_invalid"} == {}
    assert len(set(answers.values())) == 1
    (challenge,) = next(iter(answers.values())).headers
    assert challenge[1].startswith('Bearer error="invalid_token"')


@pytest.mark.parametrize(
    ("claims", "now", "wanted"),
    [
        ({}, NOW + 629, None),
        ({}, NOW + 630, "token_expired"),
        ({"exp": NOW - 31}, NOW, "token_expired"),
        ({"nbf": NOW + 30}, NOW, None),
        ({"nbf": NOW + 31}, NOW, "token_not_active"),
        ({"iat": NOW + 31}, NOW, "token_not_active"),
        ({"nbf": "soon"}, NOW, "token_invalid"),
        ({"exp": NOW + 0.5}, NOW, None),
        ({"exp": True}, NOW, "token_invalid"),
        ({"exp": 10**300}, NOW, "token_invalid"),
        ({"aud": ["x", "api"]}, NOW, None),
        ({"aud": "API"}, NOW, "token_wrong_audience"),
        ({"aud": None}, NOW, "token_wrong_audience"),
        ({"aud": {"api": 1}}, NOW, "token_wrong_audience"),
    ],
)
async def test_times_and_audience(tmp_path, claims, now, wanted):
    async with running(addon(tmp_path)) as plugin:
        result = await say(plugin, ask(token(**claims), now))
        assert (result.code if isinstance(result, Denial) else None) == wanted


async def test_a_remembered_token_ends_as_any_other(tmp_path):
    async with running(addon(tmp_path)) as plugin:
        text = token()
        assert await say(plugin, ask(text)) == Principal("ada")
        plugin.issuers[ISSUER].keys, keys = None, plugin.issuers[ISSUER].keys
        assert await say(plugin, ask(text)) == Principal("ada"), "it needs no key"
        plugin.issuers[ISSUER].keys = keys
        assert code(await say(plugin, ask(text, NOW + 630))) == "token_expired"


async def test_memory_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("tidegate_auth_jwt.plugin.KEPT", 2)
    async with running(addon(tmp_path)) as plugin:
        for name in "abc":
            await say(plugin, ask(token(ED, "EdDSA", sub=name)))
        assert len(plugin._known) == 2
        assert plugin._size == sum(map(len, plugin._known))


async def test_algorithm_and_type_can_be_narrowed(tmp_path):
    issuer = {"algorithms": ["ES256"], "type": "at+jwt"}
    async with running(addon(tmp_path, issuer=issuer)) as plugin:
        right = token(EC, "ES256", {"typ": "application/AT+JWT"})
        assert await say(plugin, ask(right)) == Principal("ada")
        assert code(await say(plugin, ask(token(EC, "ES256")))) == "token_invalid"
        assert code(await say(plugin, ask(token(header={"typ": "at+jwt"})))) == "token_invalid"


@pytest.mark.parametrize("value", ["Basic eA==", "Bearer tg_x", "Bearer", "Bearer ey.a.b.c.d"])
async def test_what_is_no_signed_token_is_left_to_others(tmp_path, value):
    async with running(addon(tmp_path)) as plugin:
        exchange = make_exchange(headers={"authorization": value})
        assert plugin.authenticate(exchange) is None
        assert exchange.credentials == []


async def test_another_field_and_its_token_alone(tmp_path):
    async with running(addon(tmp_path, header=["x-assertion", "authorization"])) as plugin:
        assert await say(plugin, ask(token(), field="X-Assertion")) == Principal("ada")
        assert code(await say(plugin, ask("nonsense", field="X-Assertion"))) == "token_invalid"


# -- claims -----------------------------------------------------------------------------------


async def test_claims_become_the_principal(tmp_path):
    claims = {"name": "user.id", "team": "tenant", "roles": "https://x.test/roles",
              "attributes": {"scopes": "scope", "plan": "no.such"}}  # fmt: skip
    async with running(addon(tmp_path, issuer={"claims": claims})) as plugin:
        text = token(user={"id": 7}, scope="a b", **{"https://x.test/roles": ["dev", 1]})
        who = await say(plugin, ask(text))
        assert who == Principal("7", "ml")
        assert dict(who.attributes) == {"issuer": ISSUER, "roles": ("dev",), "scopes": "a b"}
        for team in (None, "a/b", "", 7.5):
            assert code(await say(plugin, ask(token(user={"id": 7}, tenant=team)))) == (
                "token_invalid"
            )


async def test_no_name_is_that_of_another_team(tmp_path):
    async with running(addon(tmp_path)) as plugin:
        assert (await say(plugin, ask(token(sub="ml/ada")))).id == "ml%2Fada"


# -- keys -------------------------------------------------------------------------------------


class Web:
    """An issuer's two documents over real sockets; `down`: it answers nothing but 500."""

    def __init__(self, server: ScriptedUpstream) -> None:
        self.url = server.url
        self.keys = [RSA]
        self.down = False
        self.described = server.url
        self.asked: list[str] = []
        server.handle(self.answer)

    def answer(self, request):
        self.asked.append(request.target)
        if self.down:
            return script.json({}, 500)
        if request.target == "/.well-known/openid-configuration":
            return script.json({"issuer": self.described, "jwks_uri": f"{self.url}/keys"})
        return script.json({"keys": [k.as_dict(private=False) for k in self.keys]})

    def token(self, key=RSA, **claims):
        return token(key, iss=self.url, **claims)


@pytest.fixture
def web(upstream):
    return Web(upstream)


@pytest.fixture
def online(web, tmp_path):
    def make(**options):
        issuers = [{"issuer": web.url, "audience": ["api"], **options.pop("issuer", {})}]
        config = AuthJwtConfig.model_validate({"issuers": issuers, **options})
        return AuthJwt(config, AddonContext("auth-jwt", tmp_path))

    return make


async def eventually(check):
    async with asyncio.timeout(20):
        while not check():
            await asyncio.sleep(0.02)


async def test_keys_are_discovered_and_the_first_token_waits_for_them(web, online):
    async with running(online()) as plugin:
        both = await asyncio.gather(*(say(plugin, ask(web.token())) for _ in range(5)))
    assert both == [Principal("ada")] * 5
    assert web.asked == ["/.well-known/openid-configuration", "/keys"]


async def test_a_new_key_works_at_once_and_made_up_ones_cause_one_fetch(web, online):
    url = {"jwks_url": f"{web.url}/keys"}
    async with running(online(issuer=url)) as plugin:
        assert await say(plugin, ask(web.token())) == Principal("ada")
        issuer = plugin.issuers[web.url]
        issuer._tried -= 60  # the first fetch was a minute ago
        web.keys = [EC]
        assert await say(plugin, ask(web.token(EC, alg="ES256"))) == Principal("ada")
        assert code(await say(plugin, ask(web.token()))) == "token_invalid", "its key is gone"
        for n in range(20):
            text = web.token(OTHER, header={"kid": f"made-up-{n}"})
            assert code(await say(plugin, ask(text))) == "token_invalid"
    assert web.asked == ["/keys"] * 2


async def test_a_key_that_is_withdrawn_ends_also_for_remembered_tokens(web, online):
    async with running(online(issuer={"jwks_url": f"{web.url}/keys"}, refresh=1)) as plugin:
        text = web.token()
        assert await say(plugin, ask(text)) == Principal("ada")
        web.keys = [ED]
        await eventually(lambda: len(web.asked) > 1 and not plugin._known)
        assert code(await say(plugin, ask(text))) == "token_invalid"


async def test_while_the_issuer_is_down_its_keys_stay_up_to_a_bound(web, online, caplog):
    url = {"jwks_url": f"{web.url}/keys"}
    async with running(online(issuer=url, refresh=1, max_stale=3)) as plugin:
        assert await say(plugin, ask(web.token())) == Principal("ada")
        web.down = True
        await eventually(lambda: plugin.context.counters.values.get("key_fetch_errors_total"))
        assert await say(plugin, ask(web.token(sub="bob"))) == Principal("bob")
        await eventually(lambda: plugin.issuers[web.url].keys is None)
        assert code(await say(plugin, ask(web.token()))) == "issuer_unavailable"
        web.down = False
        await eventually(lambda: plugin.issuers[web.url].keys is not None)
        assert await say(plugin, ask(web.token())) == Principal("ada")
    assert "answered 500" in caplog.text


async def test_an_issuer_that_is_down_from_the_start_is_503_and_asked_seldom(web, online):
    web.down = True
    async with running(online()) as plugin:
        for _ in range(5):
            denial = await say(plugin, ask(web.token()))
            assert (denial.status, denial.code) == (503, "issuer_unavailable")
        assert denial.retry_after
    assert len(web.asked) <= 3


async def test_discovery_that_describes_another_issuer_is_refused(web, online, caplog):
    web.described = "https://other.test"
    async with running(online()) as plugin:
        assert code(await say(plugin, ask(web.token()))) == "issuer_unavailable"
    assert "another issuer" in caplog.text


async def test_a_reload_keeps_the_keys(web, online):
    async with running(online()) as old:
        await say(old, ask(web.token()))
        web.down = True
        async with running(online(leeway=1), old) as new:
            assert await say(new, ask(web.token())) == Principal("ada")


async def test_a_changed_file_of_keys_is_taken_and_a_broken_one_is_not(tmp_path):
    async with running(addon(tmp_path)) as plugin:
        (tmp_path / "keys.json").write_text("{")
        await eventually(lambda: plugin.context.counters.values.get("key_fetch_errors_total"))
        assert await say(plugin, ask(token())) == Principal("ada")
        (tmp_path / "keys.json").write_text(json.dumps({"keys": [OTHER.as_dict(private=False)]}))
        await eventually(lambda: not plugin._known)
        assert code(await say(plugin, ask(token()))) == "token_invalid"
        assert await say(plugin, ask(token(OTHER))) == Principal("ada")


with warnings.catch_warnings(action="ignore"):
    SMALL = RSAKey.generate_key(1024)
USELESS = [
    "{}",
    "[]",
    "nonsense",
    '{"keys": []}',
    json.dumps({"keys": [OctKey.generate_key(256).as_dict(private=True)]}),
    json.dumps({"keys": [SMALL.as_dict(private=False)]}),
    json.dumps({"keys": [{**RSA.as_dict(private=False), "use": "enc"}]}),
    json.dumps({"keys": [{"kty": "RSA", "n": "!", "e": 1}, 7]}),
]


@pytest.mark.parametrize("content", USELESS, ids=range(len(USELESS)))
async def test_a_file_without_a_usable_key_refuses_to_load(tmp_path, content):
    plugin = addon(tmp_path)
    (tmp_path / "keys.json").write_text(content)
    with pytest.raises(FetchError):
        await plugin.startup(None)
    await plugin.shutdown()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"issuers": []}, "at least 1"),
        ({"issuers": [{"issuer": "x", "audience": ["a"]}]}, "not a URL"),
        ({"issuers": [{"issuer": ISSUER, "audience": []}]}, "at least 1"),
        ({"issuers": [{"issuer": ISSUER, "audience": ["a"], "algorithms": ["HS256"]}]}, "RS256"),
        ({"issuers": [{"issuer": ISSUER, "audience": ["a"], "algorithms": ["none"]}]}, "RS256"),
        ({"issuers": [{"issuer": ISSUER, "audience": ["a"]}] * 2}, "twice"),
        ({"issuers": [{"issuer": f"{ISSUER}/{n}", "audience": ["a"]} for n in "ab"]}, "several"),
        ({"issuers": [{"issuer": ISSUER, "audience": ["a"], "jwks_file": "a",
                       "jwks_url": "http://a"}]}, "not both"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options, reason):
    with pytest.raises(ValidationError, match=reason):
        AuthJwtConfig.model_validate(options)


# -- the contract -----------------------------------------------------------------------------


class TestPlugin(PluginContract):
    name = "auth-jwt"

    def options(self):
        return {"issuers": [{"issuer": "http://127.0.0.1:9", "audience": ["api"]}]}

    def good_exchange(self):
        return make_exchange()


@pytest.fixture(scope="module", autouse=True)
def keys_file(tmp_path_factory):
    TestAuth.file = tmp_path_factory.mktemp("keys") / "keys.json"
    TestAuth.file.write_text(json.dumps(PUBLIC))


class TestAuth(AuthContract):
    name = "auth-jwt"
    file: Path

    def options(self):
        return {"issuers": [{"issuer": ISSUER, "audience": ["api"], "jwks_file": str(self.file)}]}

    def broken_options(self):
        return {"issuers": [{"issuer": ISSUER, "audience": ["api"],
                             "jwks_url": "http://127.0.0.1:9/"}]}  # fmt: skip

    def good_exchange(self):
        return ask(GOOD)

    def bad_exchanges(self):
        return [ask(ATTACKS[name]) for name in ("no algorithm", "an unknown key", "oversized")]

    def secrets(self):
        return [GOOD[-40:], ATTACKS["an unknown key"][-40:]]


GOOD = token()
