"""The neutral model: what a chat with a language model consists of, whatever API says it.

Theory. Each format has a parser into this model and a writer out of it, for requests, whole
answers, streams and errors: n formats need 2n translators, not n². Three rules keep exactness:

1. A parser *takes* what it understands out of the JSON object; what remains is `extras`. So
   nothing is lost by being forgotten: it is either neutral, or in `extras`, or the parser is
   wrong. A field of a shape that the parser does not know stays in `extras` as well.
2. A writer of the same family puts `extras` back, as they were. A writer of another family
   reports them: each becomes a warning (or, of a request under the policy `strict`, an error).
3. What only one family can say at all (a server's own tool, a search result) is an `Opaque`
   part: the same rule, for a whole part.

`family` names whose extras they are. Formats that are dialects of one another share a family.

Tool arguments are kept as the JSON *text* that the model wrote, because that is what streams
carry and what parsing could change. Figures of usage have one meaning (see `Usage`); the
provider's own object is kept beside them and is what its own family writes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

type Json = dict[str, Any]
type Role = Literal["system", "developer", "user", "assistant", "tool"]
type MediaKind = Literal["image", "audio", "video", "file"]
type FinishReason = Literal[
    "stop", "stop_sequence", "length", "tool_calls", "content_filter", "refusal", "pause", "error"
]


@dataclass(slots=True)
class Citation:
    """Where a piece of text comes from. `start` and `end` count characters of the part's text.

    `raw` is the provider's own object, which its own family writes.
    """

    url: str = ""
    title: str = ""
    text: str = ""
    """The words that are cited, of the source."""
    start: int | None = None
    end: int | None = None
    family: str = ""
    raw: Json | None = None


@dataclass(slots=True)
class Text:
    """Text, said or asked. `signature` is a provider's proof of thought that hangs on it."""

    text: str
    citations: list[Citation] | None = None
    logprobs: list[Json] | None = None
    """One object per token, as OpenAI writes them: token, logprob, bytes, top_logprobs."""
    signature: str = ""
    origin: str = ""
    cache: Json | None = None
    """A cache breakpoint after this part: `{"type": "ephemeral", "ttl": …}`."""
    id: str = ""
    """The id of the item that it belongs to, where a format has such (Responses)."""
    item: Json | None = None
    extras: Json | None = None


@dataclass(slots=True)
class Reasoning:
    """Thought. `signature` proves it, `encrypted` is thought that only `origin` can read.

    `origin` names the family that made the signature: no other takes it back.
    """

    text: str = ""
    signature: str = ""
    encrypted: str = ""
    origin: str = ""
    id: str = ""
    summary: bool = False
    """True where the text is a summary, False where it is the thought itself."""
    carrier: str = ""
    """The field that carried it, in families that know several."""
    raw: Any = None
    """The provider's own form of this and the thoughts after it, for its own family."""
    extras: Json | None = None


@dataclass(slots=True)
class ToolCall:
    """The model calls a tool. `arguments` is the JSON text as the model wrote it, or ""."""

    id: str
    name: str
    arguments: str = ""
    signature: str = ""
    origin: str = ""
    custom: bool = False
    """True where `arguments` is free text for a tool without a schema."""
    item_id: str = ""
    cache: Json | None = None
    extras: Json | None = None


@dataclass(slots=True)
class ToolResult:
    """What a tool gave back, as parts."""

    call_id: str
    parts: list[Part]
    name: str = ""
    is_error: bool = False
    custom: bool = False
    raw: Any = None
    """The provider's own form of `parts`, for its own family."""
    cache: Json | None = None
    extras: Json | None = None


@dataclass(slots=True)
class Media:
    """An image, sound, film or file: one of `data` (base64), `url`, `file_id`, `text`."""

    kind: MediaKind
    mime: str = ""
    data: str = ""
    url: str = ""
    file_id: str = ""
    text: str = ""
    """The content of a plain-text document that is sent as text."""
    name: str = ""
    detail: str = ""
    transcript: str = ""
    cache: Json | None = None
    extras: Json | None = None


@dataclass(slots=True)
class Refusal:
    """The model declines, in words of its own."""

    text: str
    id: str = ""
    item: Json | None = None
    extras: Json | None = None


@dataclass(slots=True)
class Opaque:
    """A part that only `family` can say; `value` is its JSON object."""

    family: str
    value: Json
    item: Json | None = None
    """What the item around it says besides, where a format has such (Responses)."""


type Part = Text | Reasoning | ToolCall | ToolResult | Media | Refusal | Opaque


@dataclass(slots=True)
class Message:
    """What one role says."""

    role: Role
    parts: list[Part]
    name: str = ""
    extras: Json | None = None


@dataclass(slots=True)
class Tool:
    """A tool that the model may call. `schema` None and `extras`: a tool of the provider's own.

    `custom`: a tool whose input is free text.
    """

    name: str
    description: str | None = None
    schema: Json | None = None
    strict: bool | None = None
    builtin: bool = False
    custom: bool = False
    raw: Json | None = None
    """The provider's own form of the schema, under its own key, for its own family."""
    cache: Json | None = None
    extras: Json | None = None


@dataclass(slots=True)
class ToolChoice:
    """Whether tools are called: `auto`, `none`, `required`, or one by `name`."""

    mode: Literal["auto", "none", "required", "named"]
    name: str = ""


@dataclass(slots=True)
class OutputFormat:
    """What the text of the answer must be: text, any JSON, or JSON of a schema."""

    kind: Literal["text", "json", "schema"]
    schema: Json | None = None
    name: str = ""
    description: str | None = None
    strict: bool | None = None
    raw: Json | None = None
    """The provider's own form of the schema, under its own key, for its own family."""
    extras: Json | None = None


@dataclass(slots=True)
class Thinking:
    """How much the model shall think. None: not said.

    `effort` is a word (none, minimal, low, medium, high, xhigh, max), `budget` is in tokens.
    """

    enabled: bool | None = None
    effort: str | None = None
    budget: int | None = None
    summary: str | None = None
    """Whether thought is shown: "none", "auto", "concise", "detailed"."""
    extras: Json | None = None


@dataclass(slots=True)
class Request:
    """A request for one turn of a chat. None: not said."""

    family: str
    model: str
    messages: list[Message]
    stream: bool = False
    tools: list[Tool] = field(default_factory=list)
    tool_choice: ToolChoice | None = None
    parallel_tools: bool | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: list[str] | None = None
    seed: int | None = None
    n: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    output: OutputFormat | None = None
    thinking: Thinking | None = None
    user: str | None = None
    metadata: Json | None = None
    service_tier: str | None = None
    stream_usage: bool = False
    """Whether the caller asked for usage at the end of a stream, where a format has a say."""
    extras: Json | None = None


@dataclass(slots=True)
class Usage:
    """Tokens. `input` counts all that went in (cached and written to cache too), `output` all
    that came out (reasoning too).

    `cache_write_1h` is the part of `cache_write` with the longer time to live. `raw` is the
    provider's own object, written as it is by formats of `family`.
    """

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    reasoning: int = 0
    audio_input: int = 0
    audio_output: int = 0
    family: str = ""
    raw: Json | None = None

    @property
    def total(self) -> int:
        """Input and output together."""
        return self.input + self.output

    def figures(self) -> tuple[int, ...]:
        """The numbers, for comparison: without the provider's own object."""
        return (
            self.input,
            self.output,
            self.cache_read,
            self.cache_write,
            self.cache_write_1h,
            self.reasoning,
            self.audio_input,
            self.audio_output,
        )


@dataclass(slots=True)
class Finish:
    """Why the answer ended. `native` is the provider's own word; `stop` the sequence it met."""

    reason: FinishReason
    native: str = ""
    stop: str | None = None


@dataclass(slots=True)
class Candidate:
    """One answer of `n`."""

    parts: list[Part]
    finish: Finish | None = None
    index: int = 0
    extras: Json | None = None


@dataclass(slots=True)
class Response:
    """A whole answer. `created` is in Unix seconds; 0: not said."""

    family: str
    id: str
    model: str
    candidates: list[Candidate]
    usage: Usage | None = None
    created: int = 0
    extras: Json | None = None

    @property
    def finishes(self) -> tuple[str, ...]:
        """Why each candidate ended; "" where it did not, `refusal` where it declines in words."""
        return tuple(
            "refusal"
            if any(isinstance(part, Refusal) for part in one.parts)
            else one.finish.reason
            if one.finish is not None
            else ""
            for one in self.candidates
        )
