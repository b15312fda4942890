"""How long a provider asks to be left alone."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidegate_ai_providers.limits import LONGEST, retry_after

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z
GEMINI = (
    b'{"error": {"code": 429, "details": ['
    b'{"@type": "type.googleapis.com/google.rpc.Help"},'
    b'{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "38.5s"}]}}'
)


@pytest.mark.parametrize(
    ("fields", "body", "wanted"),
    [
        ({}, b"", None),
        ({"retry-after": "20"}, b"", 20.0),
        ({"Retry-After": "1.5"}, b"", 1.5),
        ({"retry-after-ms": "350", "retry-after": "1"}, b"", 0.35),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:30 GMT"}, b"", 30.0),
        ({"retry-after": "Wed, 31 Dec 2025 00:00:00 GMT"}, b"", 0.0),
        ({"retry-after": "soon"}, b"", None),
        ({"retry-after": "nan"}, b"", None),
        ({"retry-after": "1e300"}, b"", LONGEST),
        ({"x-ratelimit-reset-requests": "6m0s"}, b"", 360.0),
        ({"x-ratelimit-reset-tokens": "120ms"}, b"", 0.12),
        (
            {
                "x-ratelimit-remaining-requests": "99",
                "x-ratelimit-reset-requests": "6m0s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "2s",
            },
            b"",
            2.0,
        ),
        (
            {
                "anthropic-ratelimit-requests-remaining": "49",
                "anthropic-ratelimit-requests-reset": "2026-01-01T00:10:00Z",
                "anthropic-ratelimit-tokens-remaining": "0",
                "anthropic-ratelimit-tokens-reset": "2026-01-01T00:00:12Z",
            },
            b"",
            12.0,
        ),
        ({"x-ratelimit-reset": "1767225605000"}, b"", 5.0),
        ({"x-ratelimit-reset": "1767225607"}, b"", 7.0),
        ({}, GEMINI, 38.5),
        ({}, b"[" + GEMINI + b"]", 38.5),
        ({}, b'{"retryDelay": ', None),
        ({}, b'{"retryDelay": 1}', None),
    ],
)
def test_each_provider_says_it_in_its_own_words(fields, body, wanted):
    raw = [(name.encode(), value.encode()) for name, value in fields.items()]
    found = retry_after(raw, body, NOW)
    assert found == (wanted if wanted is None else pytest.approx(wanted))


@given(
    st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset-tokens"]),
    st.text() | st.floats().map(str) | st.integers().map(str),
    st.binary(),
)
def test_no_answer_makes_it_fail_or_wait_for_ever(name, value, body):
    raw = [(name.encode(), value.encode("utf-8", "surrogatepass"))]
    found = retry_after(raw, b'{"retryDelay"' + body, NOW)
    assert found is None or (math.isfinite(found) and 0.0 <= found <= LONGEST)
