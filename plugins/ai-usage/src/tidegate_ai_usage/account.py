"""What one call has used: from the provider's figures, else from its words. No I/O.

`Account` is made when a call is seen, fed by a `Reader`, and settled once, at the end.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from tidegate.api import Exchange, StashKey
from tidegate.api.formats import AI_CALL, AiCall

from .figures import BESIDES, Usage, usage_of
from .providers import Api, Provider
from .reader import Reader
from .texts import Prompt, prompt_of
from .tokens import rough, tokenizer_for

_JSON_SHARE: Final = 5
"""Bytes of a request body for each token of its prompt, roughly: JSON is more than words."""
_COUNTED: Final = ("chat", "embeddings")
"""Kinds of calls whose tokens can be counted from their words."""


class Account:
    """One call to a model.

    Attributes:
        provider: its name; "" where it is not known.
        asked: the provider that the host is of, or None.
        model: as the answer says, else as it was asked for.
        usage, estimated, finish: hold once settled.
        told: whether a translator has read the whole answer, and found its usage in it.
        uncounted: the words whose tokens are only roughly known, for `count`; or None.
    """

    __slots__ = (
        "api", "asked", "cached", "cost", "estimated", "failed", "finish", "model", "provider",
        "reader", "settled", "told", "uncounted", "usage", "waiting",
    )  # fmt: skip

    def __init__(self, api: Api) -> None:
        self.api = api
        self.reader: Reader | None = None
        self.provider = ""
        self.asked: Provider | None = None
        self.model = api.model
        self.usage = Usage()
        self.cost: int | None = None
        """Femto-dollars."""
        self.estimated = False
        self.finish = ""
        self.cached = False
        self.failed = False
        self.settled = False
        self.told = False
        self.uncounted: Uncounted | None = None
        self.waiting: Any = None

    def settle(self, exchange: Exchange, provider: Provider | None) -> bool:
        """Add up what has crossed the wire; False where this was no call to a model after all.

        `provider` is told by the host that was asked.
        """
        self.settled, self.asked = True, provider
        call = exchange.stash.get(AI_CALL)
        reader = self.reader
        self.provider = _provider_of(exchange, call, provider)
        if call is not None:
            self.model = call.model or call.request.model or self.model
        response = exchange.response
        answered = response is not None and response.data.status_code < 400
        whole = exchange.outcome in ("", "answered") and (reader is None or reader.complete)
        whole = whole or self.told
        said = call.usage if call is not None else None
        ended = call is not None and (call.finish or not call.request.stream)
        if said is not None and call is not None and whole and ended:
            self.usage, self.finish = _copied(said), call.finish
            return True
        if reader is None and self.cached and response is not None:
            reader = _reader_of(response.headers.get("content-type", ""), response.content or b"")
        if reader is not None:
            reader.settle()
        elif not answered and exchange.outcome != "client_cancelled":
            self.failed, self.finish = True, "error"
            return provider is not None or call is not None
        if provider is None and call is None and not (reader is not None and reader.alike):
            return False
        if reader is not None:
            self._read(reader, translated=call is not None and bool(call.provider_format))
        if said is not None:
            self.usage = _copied(said)
        final = reader is not None and reader.final and (whole or bool(self.finish))
        if not final or not (said or (reader is not None and reader.usage)):
            self._estimate(exchange, reader)
        return True

    def _read(self, reader: Reader, *, translated: bool) -> None:
        self.finish = reader.finish
        if reader.usage is not None:
            self.usage = reader.usage
        if reader.model and not (translated and self.model):
            self.model = reader.model

    def _estimate(self, exchange: Exchange, reader: Reader | None) -> None:
        """Figures from characters, and what to count for better ones."""
        if self.api.kind not in _COUNTED:
            return
        body = b""
        if not self.usage.input:
            try:
                body = exchange.request.content or b""
            except ValueError:  # encoded, and not as it says
                body = b""
        uncounted = Uncounted(body, self.model)
        if reader is not None:
            uncounted.words = "".join(reader.words)
            uncounted.more = reader.more
        uncounted.said = self.usage
        self.estimated = True
        size = len(body) or exchange.bytes_in
        spoken = rough(len(uncounted.words) + uncounted.more)
        usage = _copied(self.usage)
        usage.input = usage.input or -(-size // _JSON_SHARE)
        usage.output = max(usage.output, spoken)
        self.usage = usage
        if body or uncounted.words:
            self.uncounted = uncounted


class Uncounted:
    """Words whose tokens are to be counted. `count` may be called in a thread."""

    __slots__ = ("body", "model", "more", "said", "words")

    def __init__(self, body: bytes, model: str) -> None:
        self.body = body
        self.model = model
        self.words = ""
        self.more = 0
        self.said = Usage()

    @property
    def size(self) -> int:
        """Bytes and characters to be looked at."""
        return len(self.body) + len(self.words)

    def count(self) -> tuple[int, int, bool, str]:
        """Tokens of input and output, whether they are exact, and the model that was asked for.

        Input is 0 where there was no request body to look at.
        """
        prompt = _prompt_of(self.body)
        model = self.model or prompt.model
        tokenizer = tokenizer_for(model)
        input = self.said.input
        exact = tokenizer.exact and not self.more
        if not input:
            input = tokenizer.prompt(prompt) if self.body else 0
            exact = exact and bool(self.body) and not prompt.media
        output = max(self.said.output, tokenizer.answer(self.words) + rough(self.more))
        return input, output, exact, model


def _prompt_of(body: bytes) -> Prompt:
    try:
        return prompt_of(orjson.loads(body)) if body else Prompt()
    except ValueError:
        return Prompt()


def _provider_of(exchange: Exchange, call: AiCall | None, provider: Provider | None) -> str:
    if call is not None and call.provider:
        return call.provider
    if provider is not None:
        return provider.name
    attempts = exchange.attempts
    upstream = attempts[-1].upstream if attempts else exchange.upstream
    return "" if upstream is None else upstream.name.partition("/")[0]


def _copied(said: Any) -> Usage:
    """A usage of whatever class, as one of ours; with what its provider's own object tells."""
    raw = getattr(said, "raw", None)
    usage = usage_of(raw) if type(raw) is dict and not BESIDES.isdisjoint(raw) else Usage()
    if type(said) is Usage:
        usage.billed, usage.searches = said.billed, said.searches
        usage.cost, usage.tier = said.cost, said.tier
    usage.input, usage.output = said.input, said.output
    usage.cache_read, usage.cache_write = said.cache_read, said.cache_write
    usage.cache_write_1h, usage.reasoning = said.cache_write_1h, said.reasoning
    usage.audio_input, usage.audio_output = said.audio_input, said.audio_output
    return usage


def _reader_of(content_type: str, content: bytes) -> Reader:
    reader = Reader(content_type)
    reader.write(content)
    reader.close(complete=True, trailers=None)
    return reader


ACCOUNT: Final = StashKey[Account]("ai-usage.account")
