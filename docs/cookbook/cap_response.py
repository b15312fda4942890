"""Bounds the size of answers: of bodies, and of event streams while they flow."""

from tidegate.api import (
    AddonConfig,
    Body,
    ByteSize,
    Event,
    Exchange,
    Plugin,
    SseEvent,
    StashKey,
    hook,
)

SENT = StashKey[int]("sent")


class Options(AddonConfig):
    """Decoded bytes."""

    limit: ByteSize = 1024 * 1024


class CapResponse(Plugin[Options]):
    """A body that is too long is 502 `upstream_body_too_large`; a stream is cut."""

    Config = Options

    @hook(needs=lambda options: Body(response=True, limit=options.limit))
    def transform_response(self, exchange: Exchange) -> None:
        """Nothing to do: core gathers no more than a hook says it needs."""

    @hook
    def transform_event(self, exchange: Exchange, event: Event) -> None:
        """What this raises cuts the stream: a caller sees that it is not whole."""
        size = len(event.data.encode() if isinstance(event, SseEvent) else event.content)
        exchange.stash[SENT] = sent = exchange.stash.get(SENT, 0) + size
        if sent > self.config.limit:
            raise ValueError(f"the stream is longer than {self.config.limit} bytes")
