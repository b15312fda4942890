"""Error codes: every code that a caller of the gateway can meet, once.

The table in `docs/errors.md` is made from here and from the `codes` of the plugins.
"""

from __future__ import annotations

from dataclasses import dataclass

from .types import Denial


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """A stable code, its HTTP status, and the sentence a caller reads.

    >>> RATE = ErrorCode("rate_limited", 429, "Too many requests.")
    >>> RATE.denial(retry_after=2.0).status
    429
    """

    code: str
    status: int
    message: str

    def denial(
        self,
        message: str | None = None,
        *,
        headers: tuple[tuple[str, str], ...] = (),
        retry_after: float | None = None,
    ) -> Denial:
        """The denial that ends an exchange with this code."""
        return Denial(self.status, self.code, message or self.message, headers, retry_after)


UNAUTHENTICATED = ErrorCode("unauthenticated", 401, "This API needs a credential.")
NO_ROUTE = ErrorCode("no_route", 404, "Nothing is served at this host and path.")
METHOD_NOT_ALLOWED = ErrorCode("method_not_allowed", 405, "This path does not take that method.")

BAD_REQUEST_FRAMING = ErrorCode("bad_request_framing", 400, "The request is not well-formed HTTP.")
BAD_REQUEST_TARGET = ErrorCode(
    "bad_request_target", 400, "The request target or Host field is not acceptable."
)
BAD_REQUEST_BODY = ErrorCode("bad_request_body", 400, "The request body could not be decoded.")
UPGRADE_NOT_ALLOWED = ErrorCode(
    "upgrade_not_allowed", 400, "Protocol upgrades are not allowed here."
)
REQUEST_TIMEOUT = ErrorCode("request_timeout", 408, "The request did not arrive in time.")
BODY_TOO_LARGE = ErrorCode("body_too_large", 413, "The request body is larger than allowed here.")
URI_TOO_LONG = ErrorCode("uri_too_long", 414, "The request target is longer than allowed.")
HEADERS_TOO_LARGE = ErrorCode("headers_too_large", 431, "The request head is larger than allowed.")

INTERNAL_ERROR = ErrorCode("internal_error", 500, "The gateway failed to handle this request.")
PLUGIN_INVALID_OUTPUT = ErrorCode(
    "plugin_invalid_output", 500, "A policy of this gateway gave an answer that can't be used."
)
PLUGIN_FAILED = ErrorCode("plugin_failed", 503, "A policy of this gateway failed.")
PLUGIN_TRANSFORM_FAILED = ErrorCode("plugin_failed", 502, "A policy of this gateway failed.")
PLUGIN_TIMEOUT = ErrorCode("plugin_timeout", 503, "A policy of this gateway took too long.")
PLUGIN_TRANSFORM_TIMEOUT = ErrorCode(
    "plugin_timeout", 502, "A policy of this gateway took too long."
)
OVERLOADED = ErrorCode("overloaded", 503, "The gateway has too much to do. Try again shortly.")
DRAINING = ErrorCode("server_draining", 503, "The gateway is shutting down.")

UPSTREAM_ADDRESS_FORBIDDEN = ErrorCode(
    "upstream_address_forbidden", 403, "The upstream's address may not be called from here."
)
UPSTREAM_UNREACHABLE = ErrorCode("upstream_unreachable", 502, "The upstream can't be reached.")
UPSTREAM_PROTOCOL_ERROR = ErrorCode(
    "upstream_protocol_error", 502, "The upstream's answer was cut or is not well-formed HTTP."
)
UPSTREAM_TLS_INVALID = ErrorCode(
    "upstream_tls_invalid", 502, "The upstream's certificate could not be verified."
)
UPSTREAM_BODY_TOO_LARGE = ErrorCode(
    "upstream_body_too_large", 502, "The upstream's answer is larger than allowed here."
)
UNEXPECTED_UPGRADE = ErrorCode(
    "unexpected_upgrade", 502, "The upstream switched protocols without being asked."
)
UPSTREAM_BUSY = ErrorCode("upstream_busy", 503, "The upstream has too much to do.")
UPSTREAM_TIMEOUT = ErrorCode("upstream_timeout", 504, "The upstream did not answer in time.")

CORE_CODES: tuple[ErrorCode, ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, ErrorCode)
)
