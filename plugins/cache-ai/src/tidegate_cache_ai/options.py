"""What stands in `addons.toml`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from tidegate.api import AddonConfig, ByteSize, Duration
from tidegate.api.fields import field_name

type Partition = Literal["principal", "team", "shared"]
type Finish = Literal["stop", "stop_sequence", "tool_calls", "length"]


class CacheAiConfig(AddonConfig):
    """Options of the addon. Its `scope` says for which paths answers are kept at all."""

    ttl: Duration = 86400.0
    partition: Partition = "principal"
    temperature: Annotated[float, Field(ge=0)] = 0.0
    finish: tuple[Finish, ...] = ("stop", "stop_sequence", "tool_calls")
    headers: tuple[str, ...] = ()
    size: ByteSize = 256 * 1024**2
    memory: ByteSize = 16 * 1024**2
    max_answer: ByteSize = 4 * 1024**2

    @field_validator("headers")
    @classmethod
    def _names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(field_name(name).lower() for name in names)
