"""The addon on exchanges: signatures, replays, bodies."""

import asyncio
import base64
import hashlib
import hmac
import itertools
import logging
import re
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError
from tidegate_auth_hmac import AuthHmac, AuthHmacConfig
from tidegate_auth_hmac.nonces import Nonces, NoncesFull
from tidegate_auth_hmac.signature import authority

from tidegate.api import AddonContext, Denial, Principal
from tidegate.runtime.pipeline import strip_credentials
from tidegate.testing import Harness, Use, make_exchange
from tidegate.testing.contracts import AuthContract, PluginContract

NOW = 1_750_000_000
SECRET = "a secret of more than thirty-two bytes"
KEY = {"id": "k1", "secret": SECRET, "name": "batch", "team": "ml", "roles": ["dev"]}
HEAD = ("@method", "@authority", "@path", "@query")
numbers = itertools.count()


def digest(body):
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def signed(
    method="GET", target="/v1/x?a=1", body=b"", *, names=None, secret=SECRET, params=None,
    values=None, sent=None, now=NOW, headers=None,
):  # fmt: skip
    """An exchange; `values` are signed, `sent` (default: the same) is what goes on the wire."""
    path, _, query = target.partition("?")
    names = names or (*HEAD, *(["content-digest"] if body else []))
    known = {"@method": method, "@authority": "api.test", "@path": path, "@query": f"?{query}",
             "@scheme": "http", "@request-target": target, "@target-uri": f"http://api.test{target}",
             "content-digest": digest(body), **(headers or {}), **(values or {})}  # fmt: skip
    said = {"created": NOW, "keyid": '"k1"', "nonce": f'"nonce-{next(numbers):04}"',
            "alg": '"hmac-sha256"', "tag": '"tidegate"', **(params or {})}  # fmt: skip
    inner = "(" + " ".join(f'"{n}"' for n in names) + ")"
    inner += "".join(f";{k}={v}" for k, v in said.items() if v is not None)
    base = "\n".join([*(f'"{n}": {known[n]}' for n in names), f'"@signature-params": {inner}'])
    mac = base64.b64encode(hmac.digest(secret.encode(), base.encode(), "sha256")).decode()
    fields = {"signature-input": f"sig={inner}", "signature": f"sig=:{mac}:", **(headers or {})}
    if body:
        fields["content-digest"] = digest(body)
    method, target, body = sent or (method, target, body)
    return make_exchange(method, f"http://api.test{target}", fields, body, now=now)


@pytest.fixture
async def auth(tmp_path):
    config = AuthHmacConfig.model_validate({"keys": [KEY]})
    plugin = AuthHmac(config, AddonContext("auth-hmac", tmp_path))
    await plugin.startup(None)
    yield plugin
    plugin.shutdown()


def code(result) -> str:
    assert isinstance(result, Denial), result
    return result.code


@pytest.mark.parametrize(
    "names",
    [
        HEAD,
        (*HEAD, "x-extra"),
        ("@method", "@target-uri"),
        ("@method", "@authority", "@request-target"),
        ("@query", "@path", "@scheme", "@authority", "@method"),
    ],
)
async def test_a_signed_request_is_its_keys_holder_and_the_signature_goes_no_further(auth, names):
    exchange = signed(names=names, headers={"x-extra": "a, b"})
    who = auth.authenticate(exchange)
    assert who == Principal("batch", "ml")
    assert dict(who.attributes) == {"key": "k1", "roles": ("dev",)}
    strip_credentials(exchange)
    assert exchange.header("signature") is exchange.header("signature-input") is None


def other_label(exchange):
    fields = dict(exchange.request.headers.items())
    fields["signature"] = fields["signature"].replace("sig=", "gis=")
    return make_exchange("GET", "http://api.test/v1/x?a=1", fields, now=NOW)


WRONG = {
    "another secret": lambda: signed(secret="x" * 40),
    "an empty secret and an unknown key": lambda: signed(secret="", params={"keyid": '"k2"'}),
    "another method": lambda: signed(sent=("DELETE", "/v1/x?a=1", b"")),
    "another path": lambda: signed(sent=("GET", "/v1/y?a=1", b"")),
    "another query": lambda: signed(sent=("GET", "/v1/x?a=2", b"")),
    "a query more": lambda: signed(sent=("GET", "/v1/x?a=1&b=2", b"")),
    "another host": lambda: signed(values={"@authority": "other.test"}),
    "the query is not signed": lambda: signed(names=HEAD[:3]),
    "nothing is signed": lambda: signed(names=("@scheme",)),
    "the body is not signed": lambda: signed("POST", body=b"x", names=HEAD),
    "a body was added": lambda: signed(sent=("GET", "/v1/x?a=1", b"x")),
    "a component twice": lambda: signed(names=(*HEAD, "@method")),
    "an unknown component": lambda: signed(names=(*HEAD, "@status"), values={"@status": "200"}),
    "a field that is not there": lambda: signed(names=(*HEAD, "x-a"), values={"x-a": ""}),
    "no key": lambda: signed(params={"keyid": None}),
    "no time": lambda: signed(params={"created": None}),
    "a time that is a text": lambda: signed(params={"created": '"1750000000"'}),
    "no nonce": lambda: signed(params={"nonce": None}),
    "a short nonce": lambda: signed(params={"nonce": '"a"'}),
    "another algorithm": lambda: signed(params={"alg": '"hmac-sha512"'}),
    "another label": lambda: other_label(signed()),
    "no signature": lambda: make_exchange(headers={"signature-input": 'sig=();tag="tidegate"'}),
    "nonsense": lambda: make_exchange(headers={"signature-input": 'tag="tidegate"(',
                                               "signature": "x"}),
    "oversized": lambda: signed(params={"x": '"' + "a" * 5_000 + '"'}),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
async def test_every_wrong_signature_gets_the_same_answer(auth, wrong):
    denial = auth.authenticate(WRONG[wrong]())
    assert code(denial) == "signature_invalid"
    assert denial == auth.authenticate(WRONG["another secret"]())
    assert dict(denial.headers)["accept-signature"].endswith('tag="tidegate"')


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"signature": "sig=:eA==:"},
        {"signature-input": 'sig=("@method");keyid="k1";tag="web-bot-auth"', "signature": "x"},
        {"authorization": "Bearer x"},
    ],
)
async def test_what_has_not_the_tag_is_left_to_others(auth, headers):
    exchange = make_exchange(headers=headers)
    assert auth.authenticate(exchange) is None
    assert exchange.credentials == []


async def test_a_second_signature_of_another_kind_does_no_harm(auth):
    exchange = signed()
    headers = exchange.request.headers
    headers["signature-input"] = 'cdn=("@method");tag="cdn", ' + headers["signature-input"]
    headers["signature"] = "cdn=:eA==:, " + headers["signature"]
    assert auth.authenticate(exchange) == Principal("batch", "ml")


# -- time and replays -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "params", "wanted"),
    [
        (NOW + 330, {}, None),
        (NOW + 331, {}, "signature_expired"),
        (NOW - 30, {}, None),
        (NOW - 31, {}, "signature_expired"),
        (NOW, {"expires": NOW - 31}, "signature_expired"),
        (NOW, {"expires": NOW - 30}, None),
        (NOW, {"expires": '"x"'}, "signature_invalid"),
    ],
)
async def test_the_window(auth, now, params, wanted):
    result = auth.authenticate(signed(now=now, params=params))
    assert (result.code if isinstance(result, Denial) else None) == wanted


async def test_a_request_passes_once_and_a_wrong_one_uses_no_nonce_up(auth):
    nonce = {"nonce": '"the same one"'}
    assert code(auth.authenticate(signed(secret="x" * 40, params=nonce))) == "signature_invalid"
    assert auth.authenticate(signed(params=nonce)) == Principal("batch", "ml")
    assert code(auth.authenticate(signed(params=nonce))) == "signature_replayed"


async def test_workers_share_nonces_and_a_reload_keeps_them(auth, tmp_path):
    nonce = {"nonce": '"the same one"'}
    assert auth.authenticate(signed(params=nonce)) == Principal("batch", "ml")
    new = AuthHmac(auth.config, auth.context)
    await new.startup(auth)
    assert code(new.authenticate(signed(params=nonce))) == "signature_replayed"
    new.shutdown()
    assert code(auth.authenticate(signed(params=nonce))) == "signature_replayed"
    script = (
        "import sys, pathlib; from tidegate_auth_hmac.nonces import Nonces;"
        "n = Nonces(pathlib.Path(sys.argv[1]));"
        f"print(n.first('k1', 'the same one', {NOW}, 0), n.first('k1', 'another', {NOW}, 0))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path / "nonces"), stdout=asyncio.subprocess.PIPE
    )
    assert (await process.communicate())[0].split() == [b"False", b"True"]


def test_old_nonces_make_room_and_a_full_file_is_told(tmp_path, monkeypatch):
    nonces = Nonces(tmp_path / "a")
    for n in range(100):
        assert nonces.first("k", f"n{n}", n, oldest=n - 10)
    assert nonces._env.stat()["entries"] <= 12
    nonces.close()
    monkeypatch.setattr("tidegate_auth_hmac.nonces.MAP_SIZE", 64 << 10)
    small = Nonces(tmp_path / "b")
    with pytest.raises(NoncesFull):
        any(not small.first("k", f"n{n}", 1, oldest=0) for n in range(10_000))
    small.close()


async def test_with_its_nonces_gone_it_admits_no_one(auth):
    auth.shutdown()
    denial = auth.authenticate(signed())
    assert (denial.status, denial.code) == (503, "nonce_store_full")


# -- bodies -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [(b"the body", None), (b"the bodY", "content_digest_mismatch")],
)
async def test_the_body_is_the_one_that_was_signed(sent, wanted):
    async with Harness(Use(AuthHmac, {"keys": [KEY]})) as harness:
        exchange = signed("POST", body=b"the body", sent=("POST", "/v1/x?a=1", sent))
        await harness.send(exchange)
        assert (exchange.denial.code if exchange.denial else None) == wanted
        assert len(harness.sent) == (wanted is None)


async def test_a_body_that_no_head_announced_is_refused():
    async with Harness(Use(AuthHmac, {"keys": [KEY]})) as harness:
        exchange = signed()
        exchange.request.data.content = b"slipped in, as HTTP/2 lets one"
        await harness.send(exchange)
        assert exchange.denial.code == "content_digest_mismatch"
        assert (await harness.send(signed())).outcome == "answered"


async def test_bodies_stream_where_they_are_not_compared():
    needs = AuthHmac.authorize.tidegate_hook.needs
    config = AuthHmacConfig.model_validate({"keys": [KEY], "digest": False})
    assert needs(config) is None
    async with Harness(Use(AuthHmac, {"keys": [KEY], "digest": False})) as harness:
        other = ("POST", "/v1/x?a=1", b"the bodY")
        exchange = await harness.send(signed("POST", body=b"the body", sent=other))
        assert exchange.outcome == "answered"


@pytest.mark.parametrize("value", ["sha-256=:eA==:", "md5=:eA==:", "nonsense("])
async def test_a_signed_digest_that_is_none_is_a_mismatch(value):
    async with Harness(Use(AuthHmac, {"keys": [KEY]})) as harness:
        exchange = signed("POST", body=b"x", values={"content-digest": value})
        exchange.request.headers["content-digest"] = value
        await harness.send(exchange)
        assert exchange.denial.code == "content_digest_mismatch"


# -- values -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "scheme", "wanted"),
    [("API.test:80", "http", "api.test"), ("a:443", "http", "a:443"), ("a:443", "https", "a")],
)
def test_the_authority_is_normalised(host, scheme, wanted):
    exchange = make_exchange()
    exchange.request.headers["host"] = host
    assert authority(exchange, scheme) == wanted


async def test_a_secret_in_the_file_warns_and_is_not_told(tmp_path, caplog, monkeypatch):
    for known in (False, True):
        if known:
            monkeypatch.setenv("HMAC_SECRET", SECRET)
        config = AuthHmacConfig.model_validate({"keys": [KEY]})
        plugin = AuthHmac(config, AddonContext("auth-hmac", tmp_path))
        with caplog.at_level(logging.WARNING):
            await plugin.startup(None)
        plugin.shutdown()
        assert ("stands in the file" in caplog.text) is not known
        assert SECRET not in caplog.text + repr(config)
        caplog.clear()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"keys": []}, "at least 1"),
        ({"keys": [{**KEY, "secret": "short"}]}, "at least 32"),
        ({"keys": [KEY, KEY]}, "same id"),
        ({"keys": [KEY], "tag": 'a"b'}, "pattern"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, reason):
    with pytest.raises(ValidationError, match=reason):
        AuthHmacConfig.model_validate(options)


def test_the_python_example_signs_rightly(tmp_path):
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    source = re.search(r"```python\n(.*?)```", readme, re.S)[1].partition("\nurl, body = ")[0]
    scope: dict = {}
    exec(source, scope)
    fields = scope["signed"]("GET", "http://api.test/v1/x?a=1", "k1", SECRET)
    config = AuthHmacConfig.model_validate({"keys": [KEY]})
    plugin = AuthHmac(config, AddonContext("auth-hmac", tmp_path))
    plugin._nonces = Nonces(tmp_path / "nonces")
    created = int(re.search(r"created=(\d+)", fields["signature-input"])[1])
    exchange = make_exchange("GET", "http://api.test/v1/x?a=1", fields, now=created)
    assert plugin.authenticate(exchange) == Principal("batch", "ml")
    plugin.shutdown()


class TestPlugin(PluginContract):
    name = "auth-hmac"

    def options(self):
        return {"keys": [KEY]}

    def readme_env(self):
        return {"BATCH_SECRET": SECRET}


class TestAuth(AuthContract):
    name = "auth-hmac"

    def options(self):
        return {"keys": [KEY]}

    def good_exchange(self):
        return signed()

    def bad_exchanges(self):
        return [WRONG[name]() for name in ("another secret", "another path", "no nonce")]

    def secrets(self):
        return [SECRET, "sig=:"]
