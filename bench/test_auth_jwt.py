"""What a token costs: the first time, with its signature, and when it is known."""

import json

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from tidegate_auth_jwt import AuthJwt, AuthJwtConfig
from tidegate_auth_jwt.keys import KeySet

from tidegate.api import AddonContext, Principal
from tidegate.testing import make_exchange

ISSUER = "https://login.test"
NOW = 1_750_000_000
FIELDS = {
    "user-agent": "OpenAI/Python 2.0",
    "accept": "application/json",
    "content-type": "application/json",
    "content-length": "300",
}


@pytest.mark.parametrize("algorithm", ["known", "RS256", "ES256"])
def test_auth_jwt(benchmark, tmp_path, algorithm):
    signs = "RS256" if algorithm == "known" else algorithm
    make = RSAKey.generate_key(2048) if signs == "RS256" else ECKey.generate_key("P-256")
    make.ensure_kid()
    entry = {"issuer": ISSUER, "audience": ["api"]}
    config = AuthJwtConfig.model_validate({"issuers": [entry]})
    addon = AuthJwt(config, AddonContext("auth-jwt", tmp_path))
    addon.issuers[ISSUER].keys = KeySet(
        json.dumps({"keys": [make.as_dict(private=False)]}).encode()
    )
    claims = {"iss": ISSUER, "aud": "api", "sub": "ada", "iat": NOW, "exp": NOW + 600}
    token = jwt.encode({"alg": signs, "kid": make.kid}, claims, make)
    exchange = make_exchange(headers={**FIELDS, "authorization": f"Bearer {token}"}, now=NOW)

    def check():
        exchange.credentials.clear()
        if algorithm != "known":
            addon._forget()
        return addon.authenticate(exchange)

    assert check() == Principal("ada")
    benchmark(check)
