"""What callers are told where no provider is asked."""

from __future__ import annotations

from typing import Final

from tidegate.api import ErrorCode

MODEL_NOT_FOUND: Final = ErrorCode("model_not_found", 404, "There is no such model here.")
INVALID_REQUEST: Final = ErrorCode("invalid_request", 400, "The body is not a request of this API.")
UNSUPPORTED: Final = ErrorCode(
    "unsupported_by_model", 400, "The model can't do what this request asks for."
)
UNTRANSLATABLE: Final = ErrorCode(
    "format_not_available", 501, "No installed format translates this call for its provider."
)
RATE_LIMITED: Final = ErrorCode(
    "provider_rate_limited", 429, "The model's provider takes no more calls for a while."
)
UNAVAILABLE: Final = ErrorCode(
    "provider_unavailable", 503, "The model's provider can't be called: its keys are refused."
)
KEY_REJECTED: Final = ErrorCode(
    "provider_key_rejected", 502, "The model's provider does not take the gateway's key for it."
)
CODES: Final = (
    MODEL_NOT_FOUND,
    INVALID_REQUEST,
    UNSUPPORTED,
    UNTRANSLATABLE,
    RATE_LIMITED,
    UNAVAILABLE,
    KEY_REJECTED,
)
NO_RETRY: Final = (("x-should-retry", "false"),)
"""Tells the clients of OpenAI and Anthropic that asking again at once is of no use."""
