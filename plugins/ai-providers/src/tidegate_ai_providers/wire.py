"""What stands nearest to the wire: a provider's own paths and credentials around a codec."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol
from urllib.parse import quote

from mitmproxy import http

from tidegate.api import Event, EventResult, Exchange
from tidegate.api.formats import AI_CALL, error_body, request_id_field
from tidegate.api.messages import Fields
from tidegate.api.upstream import BodyStream, Codec, StreamCodec

from .aws import AwsCredentials
from .google import AccessToken
from .limits import retry_after
from .pool import ASKED
from .refusals import KEY_REJECTED, NO_RETRY
from .sigv4 import sign

CALLERS: Final = frozenset(
    (
        b"api-key",
        b"authorization",
        b"cookie",
        b"openai-organization",
        b"openai-project",
        b"x-amz-content-sha256",
        b"x-amz-date",
        b"x-amz-security-token",
        b"x-api-key",
        b"x-goog-api-key",
        b"x-goog-user-project",
    )
)
"""Fields by which callers say who they are, or who pays: a provider hears that from us alone.

With an organization that is not the key's, a caller could have the key refused.
"""
QUERY: Final = ("key=", "access_token=", "api-version=")
"""Parameters of the same kind."""
_OF_THE_REFUSAL: Final = frozenset(
    (b"content-encoding", b"content-length", b"content-type", b"www-authenticate")
)
_NO_RETRY: Final = tuple((name.encode(), value.encode()) for name, value in NO_RETRY)


type DecodeFirst = Callable[[Exchange, bytes], http.Response | bool]


class Sender(Protocol):
    """What a provider asks of each request besides its format."""

    def prepare(self, request: http.Request, now: float) -> None:
        """Change path and fields of `request` as the provider wants them. `now`: Unix seconds."""


class Wire:
    """The codec of a leaf: that of the formats, and what a provider asks besides."""

    def __init__(self, inner: Codec, provider: str, senders: tuple[Sender, ...] = ()) -> None:
        self.inner = inner
        """Gives the provider's own words for every error."""
        self._streams = inner if isinstance(inner, StreamCodec) else None
        self._provider = provider
        self._senders = senders
        self.limit: int = getattr(inner, "limit", 0)
        """Bytes of a body that it may bear, where that is more than hooks do."""

    def encode(self, exchange: Exchange, request: http.Request) -> http.Request | http.Response:
        sent = self.inner.encode(exchange, request)
        if sent is not request:
            if isinstance(sent, http.Response):
                return sent
            request = sent
        call = exchange.stash.get(AI_CALL)
        if call is not None:
            call.provider = self._provider
        data = request.data
        fields = data.headers.fields
        kept = tuple([field for field in fields if field[0].lower() not in CALLERS])
        if len(kept) != len(fields):
            data.headers.fields = kept
        if b"?" in data.path:
            data.path = without_keys(data.path.decode("latin-1")).encode("latin-1")
        for sender in self._senders:
            sender.prepare(request, exchange.now)
        return request

    def decode(self, exchange: Exchange, response: http.Response) -> http.Response:
        name_request(exchange, response)
        data = response.data
        if data.status_code == 401:
            return key_rejected(exchange, response)
        if data.status_code == 429:
            wait = retry_after(data.headers.fields, data.content or b"", exchange.now)
            exchange.stash[ASKED] = wait
        return self.inner.decode(exchange, response)

    def decode_head(self, exchange: Exchange, response: http.Response) -> BodyStream | None:
        name_request(exchange, response)
        streams = self._streams
        return None if streams is None else streams.decode_head(exchange, response)

    def decode_first(self, exchange: Exchange, data: bytes) -> http.Response | bool:
        """Whether a stream has begun, or with which error (see `StreamCodec`)."""
        first: DecodeFirst | None = getattr(self.inner, "decode_first", None)
        found = True if first is None else first(exchange, data)
        if isinstance(found, http.Response) and found.status_code == 429:
            exchange.stash[ASKED] = None
        return found

    def decode_event(self, exchange: Exchange, event: Event) -> EventResult:
        return self.inner.decode_event(exchange, event)

    def decode_end(self, exchange: Exchange) -> EventResult:
        return self.inner.decode_end(exchange)


def name_request(exchange: Exchange, response: http.Response) -> None:
    """Say the id of a request where the caller's client looks for it; a provider's own stays."""
    name = request_id_field(exchange.path)
    if name is not None:
        headers = response.data.headers
        if not any(field[0].lower() == name for field in headers.fields):
            headers.fields += ((name, exchange.id.encode()),)


def key_rejected(exchange: Exchange, response: http.Response) -> http.Response:
    """A 401 is about our key: its words would have the caller look for a fault in his own."""
    denial = KEY_REJECTED.denial()
    data = response.data
    data.status_code, data.reason = denial.status, b""
    data.content = error_body(exchange.path, denial, exchange.id) or b""
    kept = (field for field in data.headers.fields if field[0].lower() not in _OF_THE_REFUSAL)
    data.headers.fields = (*kept, (b"content-type", b"application/json"), *_NO_RETRY)
    return response


def without_keys(path: str) -> str:
    """A request target without the parameters that say who calls."""
    bare, _, query = path.partition("?")
    kept = "&".join(part for part in query.split("&") if not part.startswith(QUERY))
    return f"{bare}?{kept}" if kept else bare


class AzureDeployment:
    """Azure OpenAI's older paths: they name the deployment, and a version of the API."""

    def __init__(self, deployment: str, version: str) -> None:
        self._before = f"/openai/deployments/{quote(deployment, safe='')}"
        self._query = f"api-version={quote(version, safe='')}"

    def prepare(self, request: http.Request, now: float) -> None:
        bare, _, query = request.data.path.decode("latin-1").partition("?")
        query = f"{query}&{self._query}" if query else self._query
        request.data.path = f"{self._before}{bare}?{query}".encode("latin-1")


class GoogleBearer:
    """The access token of the moment."""

    def __init__(self, token: AccessToken) -> None:
        self._token = token

    def prepare(self, request: http.Request, now: float) -> None:
        token = self._token.value
        if not token:
            raise RuntimeError("the access token has just ended")
        request.data.headers.fields += ((b"authorization", b"Bearer " + token),)


class AwsSigner:
    """SigV4 over the request as it is sent: after all translation, anew for each attempt."""

    def __init__(self, credentials: AwsCredentials, *, host: str, base: str, region: str) -> None:
        self._credentials = credentials
        self._host = host
        self._base = base
        self._region = region

    def prepare(self, request: http.Request, now: float) -> None:
        found = self._credentials.current()
        if found is None:
            raise RuntimeError("the AWS credentials are gone")
        data = request.data
        signed: Fields = tuple(
            sign(
                data.method.decode("ascii"),
                self._host,
                self._base + data.path.decode("latin-1"),
                data.content or b"",
                found,
                region=self._region,
                service="bedrock",
                now=now,
            )
        )
        data.headers.fields += signed
