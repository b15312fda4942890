"""The options, and what a prompt consists of. `[[addon.prompts]]` and a prompt's file say the same.

A prompt has versions. One that has a single version may write the version's fields beside its own.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from tidegate.api import AddonConfig, ByteSize, Model

NAME = r"^[a-z0-9][a-z0-9_-]{0,63}$"
RESERVED = frozenset({"stream"})
"""Names that stand beside the variables in a call."""

type Json = dict[str, Any]
type VariableType = Literal["string", "integer", "number", "boolean", "array", "object"]


def _prefix(path: str) -> str:
    if not path.startswith("/") or path != path.rstrip("/") or "{" in path:
        raise ValueError(f'{path!r}: write a path such as "/prompts"')
    return path


class Variable(Model):
    """One variable of a prompt. Without a `default` it is required, unless `required = false`."""

    type: VariableType = "string"
    required: bool | None = None
    default: Any = None
    enum: tuple[Any, ...] | None = Field(default=None, min_length=1)
    max_length: int | None = Field(default=None, ge=1)
    minimum: float | None = None
    maximum: float | None = None
    items: Json | None = None
    description: str = ""
    example: Any = None

    @property
    def is_required(self) -> bool:
        """Whether a call must say it."""
        return self.default is None if self.required is None else self.required

    def schema_object(self) -> Json:
        """What values it takes, as JSON Schema (2020-12)."""
        out: Json = {"type": self.type}
        limit = {"string": "maxLength", "array": "maxItems"}.get(self.type, "maxProperties")
        said = {
            "enum": list(self.enum) if self.enum is not None else None,
            limit: self.max_length,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "items": self.items,
            "description": self.description or None,
            "default": self.default,
            "examples": [self.example] if self.example is not None else None,
        }
        return out | {name: value for name, value in said.items() if value is not None}


class Example(Model):
    """An answered call, shown to the model before the question."""

    variables: Json = Field(default_factory=dict)
    output: Any


class Expectation(Model):
    """What the output of a test case must be. All that is said must hold."""

    equals: Any = None
    contains: str | tuple[str, ...] = ()
    matches: str | None = None
    excludes: str | tuple[str, ...] = ()
    schema_: Json | None = Field(default=None, alias="schema")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("say `equals`, `contains`, `excludes`, `matches` or `schema`")
        return self


class Case(Model):
    """A saved call and what is expected of its answer."""

    name: str = Field(min_length=1)
    variables: Json = Field(default_factory=dict)
    expect: Expectation


class Output(Model):
    """What the answer must be: text, or JSON of a schema."""

    type: Literal["text", "json"] = "text"
    schema_: Json | None = Field(default=None, alias="schema")
    strict: bool = True
    """Whether the provider is asked to hold the model to the schema."""

    @model_validator(mode="before")
    @classmethod
    def _json_by_schema(cls, value: Any) -> Any:
        if isinstance(value, dict) and "schema" in value and "type" not in value:
            return {**value, "type": "json"}
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.type == "json") != (self.schema_ is not None):
            raise ValueError("an output of type json has a `schema`, one of type text has none")
        return self


class Version(Model):
    """One version of a prompt: what is sent, with which model, and what comes back."""

    version: int = Field(default=1, ge=1)
    model: str = Field(min_length=1)
    parameters: Json = Field(default_factory=dict)
    system: str | None = None
    user: str = Field(min_length=1)
    variables: dict[str, Variable] = Field(default_factory=dict)
    examples: tuple[Example, ...] = ()
    output: Output = Output()
    tests: tuple[Case, ...] = ()
    deprecated: bool = False

    @field_validator("variables")
    @classmethod
    def _named(cls, variables: dict[str, Variable]) -> dict[str, Variable]:
        for name in variables:
            if not name.isidentifier() or name in RESERVED:
                raise ValueError(f"a variable can't be called {name!r}")
        return variables

    @field_validator("parameters")
    @classmethod
    def _free(cls, parameters: Json) -> Json:
        ours = {"model", "messages", "stream", "stream_options", "response_format", "n"}
        for name in sorted(ours & set(parameters)):
            raise ValueError(f"`{name}` is set by the prompt itself")
        return parameters


class Prompt(Model):
    """A prompt. `latest`: the version of its short path; default: the highest."""

    name: str = Field(pattern=NAME)
    description: str = ""
    latest: int | None = None
    versions: tuple[Version, ...]

    @model_validator(mode="before")
    @classmethod
    def _single(cls, value: Any) -> Any:
        if isinstance(value, dict) and "versions" not in value:
            own = {"name", "description", "latest"}
            version = {key: inner for key, inner in value.items() if key not in own}
            return {key: inner for key, inner in value.items() if key in own} | {
                "versions": [version]
            }
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.versions:
            raise ValueError("a prompt has at least one version")
        numbers = [version.version for version in self.versions]
        if len(set(numbers)) != len(numbers):
            raise ValueError("two versions have the same number")
        if self.latest is not None and self.latest not in numbers:
            raise ValueError(f"`latest`: there is no version {self.latest}")
        return self

    @property
    def current(self) -> Version:
        """The version of the short path."""
        wanted = self.latest or max(version.version for version in self.versions)
        return next(version for version in self.versions if version.version == wanted)


class AiPromptsConfig(AddonConfig):
    """Options of `ai-prompts`. `fuel` bounds the work of one template, `max_body` a call."""

    folder: str | None = None
    prompts: tuple[Prompt, ...] = ()
    prefix: Annotated[str, AfterValidator(_prefix)] = "/prompts"
    max_body: ByteSize = Field(default=1024 * 1024, gt=0)
    fuel: int = Field(default=1_000_000, ge=1000)

    @model_validator(mode="after")
    def _has_prompts(self) -> Self:
        if self.folder is None and not self.prompts:
            raise ValueError("give a `folder`, or prompts in [[addon.prompts]]")
        return self
