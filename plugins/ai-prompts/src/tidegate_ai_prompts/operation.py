"""One version of a prompt as an operation: variables in, a chat call out; an answer in, output out.

Sans-I/O: values in, values out.
"""

from __future__ import annotations

import re
from typing import Any, Final

import jsonschema_rs
import orjson

from .options import Json, Prompt, Version
from .templates import RenderError, Templates

_FENCE: Final = re.compile(r"^\s*```(?:json)?\s*\n(.*?)\n\s*```\s*$", re.DOTALL)
_ERRORS: Final = 16
"""Faults that a caller is told of at once."""


class InvalidVariables(ValueError):
    """A call whose variables are wrong: (field, what is wrong with it)."""

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field}: {text}" if field else text for field, text in faults))
        self.faults = faults


class InvalidOutput(ValueError):
    """An answer that is not of the prompt's schema."""


class Operation:
    """A version that is ready to be called. Raises BrokenTemplate, ValueError."""

    def __init__(self, prompt: Prompt, version: Version, fuel: int) -> None:
        self.prompt = prompt
        self.version = version
        self.templates = Templates(version, fuel)
        self.input_schema = input_schema(version)
        try:
            self._input = jsonschema_rs.validator_for(self.input_schema, mask="the value")
            schema = version.output.schema_
            self._output = (
                jsonschema_rs.validator_for(schema, mask="the value")
                if schema is not None
                else None
            )
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            raise ValueError(f"a schema is not valid: {_first_line(error)}") from None
        self._shown = [message for example in version.examples for message in self._show(example)]

    def _show(self, example: Any) -> list[Json]:
        try:
            user = self.templates.render("user", self.variables(dict(example.variables)))
        except (InvalidVariables, RenderError) as error:
            raise ValueError(f"an example can't be used: {error}") from None
        output = example.output
        said = output if isinstance(output, str) else orjson.dumps(output).decode()
        return [{"role": "user", "content": user}, {"role": "assistant", "content": said}]

    # -- calls ----------------------------------------------------------------------------------

    def variables(self, body: Json) -> Json:
        """The variables of a call, defaults filled in. Raises InvalidVariables."""
        faults = [(_field(e), e.message) for e in self._input.iter_errors(body)][:_ERRORS]
        if faults:
            raise InvalidVariables(faults)
        defaults = {
            n: v.default for n, v in self.version.variables.items() if v.default is not None
        }
        return defaults | body

    def messages(self, variables: Json) -> list[Json]:
        """The messages of the chat. Raises RenderError."""
        out: list[Json] = []
        if self.version.system is not None:
            out.append({"role": "system", "content": self.templates.render("system", variables)})
        user = self.templates.render("user", variables)
        return [*out, *self._shown, {"role": "user", "content": user}]

    def chat(self, variables: Json, *, stream: bool) -> Json:
        """The body of the call, as OpenAI's Chat Completions have it."""
        version = self.version
        body: Json = {"model": version.model, "messages": self.messages(variables)}
        body |= version.parameters
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        if version.output.schema_ is not None:
            schema = {
                "name": re.sub(r"[^A-Za-z0-9_-]", "_", self.prompt.name),
                "schema": version.output.schema_,
                "strict": version.output.strict,
            }
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    # -- answers --------------------------------------------------------------------------------

    def output(self, text: str) -> Any:
        """The output in a model's text. Raises InvalidOutput.

        JSON that a model put between fences or words is taken out of them.
        """
        if self._output is None:
            return text
        value = _json_in(text)
        error = next(iter(self._output.iter_errors(value)), None)
        if error is not None:
            where = _field(error)
            raise InvalidOutput(f"{where}: {error.message}" if where else error.message)
        return value


def input_schema(version: Version) -> Json:
    """What a call's variables must be, as JSON Schema."""
    variables = version.variables
    return {
        "type": "object",
        "properties": {name: v.schema_object() for name, v in variables.items()},
        "required": [name for name, v in variables.items() if v.is_required],
        "additionalProperties": False,
    }


def _field(error: jsonschema_rs.ValidationError) -> str:
    """The field that an error is about: the one that is missing, or where the value stands."""
    path = [str(step) for step in error.instance_path]
    kind: Any = error.kind
    missing = getattr(kind, "property", None)
    if missing:
        path.append(str(missing).strip('"'))
    unexpected = getattr(kind, "unexpected", None)
    if unexpected:
        path.append(str(unexpected[0]))
    return ".".join(path)


def _json_in(text: str) -> Any:
    fenced = _FENCE.match(text)
    inner = fenced[1] if fenced else text
    for start, end in ((0, len(inner)), *_brackets(inner)):
        try:
            return orjson.loads(inner[start:end])
        except ValueError:
            continue
    raise InvalidOutput("the model's answer is not JSON")


def _brackets(text: str) -> list[tuple[int, int]]:
    """Where a JSON object or array may stand between words."""
    found = []
    for opening, closing in ("{}", "[]"):
        start, end = text.find(opening), text.rfind(closing)
        if 0 <= start < end:
            found.append((start, end + 1))
    return sorted(found)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0]
