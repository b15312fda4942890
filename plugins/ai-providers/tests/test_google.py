"""Vertex AI: access tokens that a service account gets, beside the calls."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any
from urllib.parse import parse_qs

import httpx
import openai
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from tidegate_ai_providers.google import GRANT, SCOPE, GoogleCredentials

from tidegate.testing import ScriptedUpstream
from tidegate.testing import script as scripts

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
ANSWER = {
    "candidates": [
        {"content": {"role": "model", "parts": [{"text": "Hi"}]}, "finishReason": "STOP"}
    ],
    "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 1, "totalTokenCount": 4},
}


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def account(key, tmp_path):
    """Writes the file of a service account whose tokens come from `uri`."""

    def write(uri: str):
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        row = {
            "type": "service_account",
            "client_email": "gateway@project.iam.gserviceaccount.com",
            "private_key_id": "key-1",
            "private_key": pem.decode(),
            "token_uri": uri,
        }
        file = tmp_path / "account.json"
        file.write_text(json.dumps(row))
        return file

    return write


def vertex(upstream, file):
    return {
        "name": "vertex",
        "url": f"{upstream.url}/v1/projects/p/locations/l/publishers/google",
        "credentials": str(file),
    }


def part(text: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


async def test_a_call_carries_the_token_that_the_account_was_given(lane, account, key):
    async with ScriptedUpstream() as tokens, ScriptedUpstream() as upstream:
        tokens.answer(*scripts.json({"access_token": "ya29.canary", "expires_in": 3600}))
        upstream.answer(*scripts.json(ANSWER))
        async with (
            lane(vertex(upstream, account(tokens.url))) as node,
            openai.AsyncOpenAI(base_url=f"{node.url}/v1", api_key="x", max_retries=0) as sdk,
        ):
            for _ in range(3):
                said = await sdk.chat.completions.create(
                    model="vertex/gemini-2.5-flash", messages=HELLO
                )
                assert said.choices[0].message.content == "Hi"
        assert len(tokens.requests) == 1
        assert upstream.requests[0].values("authorization") == ["Bearer ya29.canary"]
        assert upstream.requests[0].target == (
            "/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-flash:generateContent"
        )
        form = parse_qs(tokens.requests[0].body.decode())
        assert form["grant_type"] == [GRANT]
        header, claims, signature = form["assertion"][0].split(".")
        assert part(header) == {"alg": "RS256", "typ": "JWT", "kid": "key-1"}
        said = part(claims)
        assert said["exp"] - said["iat"] == 3600
        assert (said["aud"], said["scope"]) == (tokens.url, SCOPE)
        raw = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
        signed = f"{header}.{claims}".encode()
        key.public_key().verify(raw, signed, padding.PKCS1v15(), hashes.SHA256())


async def test_a_token_is_renewed_before_it_ends(lane, account):
    async with ScriptedUpstream() as tokens, ScriptedUpstream() as upstream:
        tokens.answer(*scripts.json({"access_token": "short", "expires_in": 2}))
        async with lane(vertex(upstream, account(tokens.url))):
            await tokens.until(lambda: len(tokens.requests) >= 2)


async def test_without_a_token_callers_are_told_that_the_provider_can_not_be_called(
    lane, account, caplog
):
    async with ScriptedUpstream() as tokens, ScriptedUpstream() as upstream:
        tokens.answer(*scripts.json({"error": "invalid_grant"}, 400))
        async with lane(vertex(upstream, account(tokens.url))) as node:
            async with httpx.AsyncClient() as client:
                body = {"model": "vertex/gemini-2.5-flash", "messages": HELLO}
                said = await client.post(f"{node.url}/v1/chat/completions", json=body)
            assert (said.status_code, said.json()["error"]["code"]) == (503, "provider_unavailable")
            tokens.answer(*scripts.json({"access_token": "late", "expires_in": 3600}))
            upstream.answer(*scripts.json(ANSWER))
            async with asyncio.timeout(30):
                while not node.addon.catalog.credentials["vertex"].value:
                    await asyncio.sleep(0.05)
            async with httpx.AsyncClient() as client:
                said = await client.post(f"{node.url}/v1/chat/completions", json=body)
            assert said.status_code == 200
        assert "no access token: invalid_grant (HTTP 400)" in caplog.text
        assert "PRIVATE KEY" not in caplog.text


def test_a_users_own_credentials_get_a_token_by_refreshing(tmp_path):
    row = {"client_id": "i", "client_secret": "s", "refresh_token": "r"}
    file = tmp_path / "user.json"
    file.write_text(json.dumps({"type": "authorized_user", **row}))
    assert GoogleCredentials(file).form(0.0) == {"grant_type": "refresh_token", **row}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"type": "external_account"}',
        '{"type": "service_account", "client_email": "x"}',
        '{"type": "service_account", "client_email": "x", "private_key": "none"}',
    ],
)
def test_a_file_that_holds_no_credentials_is_refused(tmp_path, text):
    file = tmp_path / "account.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"account\.json"):
        GoogleCredentials(file)
