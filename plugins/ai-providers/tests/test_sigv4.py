"""Signatures, beside those of the AWS SDK."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote

import botocore.credentials
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from hypothesis import given
from hypothesis import strategies as st
from tidegate_ai_providers.aws import AwsCredentials
from tidegate_ai_providers.sigv4 import Credentials, sign

HOST = "bedrock-runtime.eu-west-1.amazonaws.com"
NAMES = st.text(
    st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=1
).filter(lambda name: name.strip("."))  # ai-formats escapes those
WORDS = st.text("abcXYZ019-_.~", min_size=1)


def sdk(method: str, target: str, body: bytes, keys: Credentials, when: float) -> str:
    """The authorization field that botocore makes."""
    request = AWSRequest(method, f"https://{HOST}{target}", data=body)
    stamp = datetime.fromtimestamp(when, UTC).strftime("%Y%m%dT%H%M%SZ")
    request.context["timestamp"] = stamp
    request.headers["X-Amz-Date"] = stamp
    if keys.token:
        request.headers["X-Amz-Security-Token"] = keys.token
    theirs = botocore.credentials.Credentials(keys.id, keys.secret, keys.token or None)
    signer = SigV4Auth(theirs, "bedrock", "eu-west-1")
    text = signer.string_to_sign(request, signer.canonical_request(request))
    signer._inject_signature_to_request(request, signer.signature(text, request))
    return str(request.headers["Authorization"])


@given(
    st.sampled_from(["POST", "GET", "PUT"]),
    NAMES,
    st.dictionaries(WORDS, WORDS, max_size=3),
    st.binary(max_size=200),
    st.sampled_from(["", "a/long+token=="]),
    st.floats(1.7e9, 1.9e9),
)
def test_a_request_is_signed_as_the_sdk_signs_it(method, model, query, body, token, when):
    keys = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG", token)
    target = f"/model/{quote(model, safe='')}/converse"
    if query:
        target += "?" + "&".join(f"{name}={value}" for name, value in query.items())
    own = sign(method, HOST, target, body, keys, region="eu-west-1", service="bedrock", now=when)
    assert dict(own)[b"authorization"].decode() == sdk(method, target, body, keys, when)
    assert (b"x-amz-security-token" in dict(own)) == bool(token)


def test_secrets_are_not_shown():
    shown = repr(Credentials("AKIDEXAMPLE", "canary", "canary"))
    assert "AKIDEXAMPLE" in shown
    assert "canary" not in shown


def test_credentials_of_the_environment_come_before_those_of_the_file(tmp_path):
    file = tmp_path / "credentials"
    file.write_text(
        "[default]\naws_access_key_id = A1\naws_secret_access_key = s1\n"
        "[work]\naws_access_key_id = A2\naws_secret_access_key = s%2\naws_session_token = t2\n"
    )
    env = {"AWS_SHARED_CREDENTIALS_FILE": str(file)}
    assert AwsCredentials(env).current() == Credentials("A1", "s1")
    assert AwsCredentials(env, "work").current() == Credentials("A2", "s%2", "t2")
    assert AwsCredentials(env, "nobody").current() is None
    own = {**env, "AWS_ACCESS_KEY_ID": "A3", "AWS_SECRET_ACCESS_KEY": "s3"}
    assert AwsCredentials(own).current() == Credentials("A3", "s3")


def test_a_file_that_is_not_there_or_is_none_gives_nothing(tmp_path):
    file = tmp_path / "credentials"
    env = {"AWS_SHARED_CREDENTIALS_FILE": str(file)}
    assert AwsCredentials(env).current() is None
    file.write_text("nonsense")
    assert AwsCredentials(env).current() is None
