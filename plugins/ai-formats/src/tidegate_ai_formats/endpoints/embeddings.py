"""Embeddings as OpenAI has them, its dialects (Mistral, Voyage, Jina, Perplexity); and Ollama's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tidegate_ai_formats.losses import Losses
from tidegate_ai_formats.model import Json, Usage
from tidegate_ai_formats.wire import count, take_bool, take_dict, take_int, take_list, take_str

from .base import Endpoint, EndpointAnswer, EndpointRequest
from .vectors import Embeddings, Purpose, encoded, floats, take_inputs, texts_of


@dataclass(frozen=True, slots=True)
class Dialect:
    """The names of what providers call differently; "": they have no such field."""

    dimensions: str = "dimensions"
    purpose: str = ""
    query: str = ""
    document: str = ""
    truncate: str = ""
    user: str = ""
    int8: bool = False
    """Whether vectors come as base64 of signed bytes, and in no other form."""


_DIALECTS: Final = {
    "openai": Dialect(user="user"),
    "mistral": Dialect("output_dimension"),
    "voyage": Dialect("output_dimension", "input_type", "query", "document", "truncation"),
    "perplexity": Dialect(int8=True),
    "jina": Dialect("dimensions", "task", "retrieval.query", "retrieval.passage", "truncate"),
}
_PURPOSES: Final[dict[str, Purpose]] = {
    "query": "query",
    "document": "document",
    "retrieval.query": "query",
    "retrieval.passage": "document",
    "classification": "classification",
    "separation": "clustering",
    "text-matching": "similarity",
}
_JINA: Final = {
    "classification": "classification",
    "clustering": "separation",
    "similarity": "text-matching",
}


class OpenAiEmbeddings(Endpoint):
    """`/v1/embeddings`."""

    name = "openai-embeddings"
    family = "openai"
    kind = "embeddings"

    def __init__(self, dialect: str = "openai") -> None:
        self.dialect = _DIALECTS[dialect]

    def in_dialect(self, dialect: str) -> Endpoint:
        if dialect not in _DIALECTS:
            raise LookupError(f"the format {self.name!r} has no dialect {dialect!r}")
        return OpenAiEmbeddings(dialect)

    def path(self, request: EndpointRequest) -> str:
        return "/embeddings"

    def parse_request(self, body: Json, path: str = "") -> EndpointRequest:
        inputs, single = take_inputs(body.pop("input", None), "input")
        value = Embeddings(inputs, single)
        value.dimensions = take_int(body, "dimensions") or take_int(body, "output_dimension")
        encoding = body.get("encoding_format")
        if encoding in ("base64", "float", None):
            body.pop("encoding_format", None)
            value.base64 = encoding == "base64"
        for key in ("input_type", "task"):
            if body.get(key) in _PURPOSES:
                value.purpose = _PURPOSES[body.pop(key)]
        truncate = take_bool(body, "truncation")
        value.truncate = take_bool(body, "truncate") if truncate is None else truncate
        value.user = take_str(body, "user") or None
        return EndpointRequest(self.family, take_str(body, "model"), value, extras=body or None)

    def write_request(self, request: EndpointRequest, losses: Losses) -> Json:
        value: Embeddings = request.value
        names = self.dialect
        inputs = value.inputs if request.family == self.family else texts_of(value)
        out: Json = {"model": request.model, "input": inputs[0] if value.single else inputs}
        if value.dimensions is not None:
            out[names.dimensions] = value.dimensions
        if value.base64 and not names.int8:
            out["encoding_format"] = "base64"
        self._purpose(value, out, losses)
        for field, name in (("truncate", names.truncate), ("user", names.user)):
            said = getattr(value, field)
            if said is not None and name:
                out[name] = said
            elif said is not None:
                losses.note(field, f"{losses.target} has no such field")
        if value.title:
            losses.drop("title")
        if request.family == self.family:
            out |= request.extras or {}
        else:
            losses.extras(request.extras)
        return out

    def _purpose(self, value: Embeddings, out: Json, losses: Losses) -> None:
        names = self.dialect
        words = {"query": names.query, "document": names.document}
        if names.purpose == "task":
            words |= _JINA
        word = words.get(value.purpose or "", "")
        if names.purpose and word:
            out[names.purpose] = word
        elif value.purpose is not None:
            losses.note("input_type", f"{losses.target} knows no purposes")

    def parse_answer(self, body: Json) -> EndpointAnswer:
        data = take_list(body, "data")
        if data is None:
            raise ValueError("an answer without data")
        ordered = sorted(enumerate(data), key=lambda item: item[1].get("index", item[0]))
        vectors = [floats(one["embedding"], int8=self.dialect.int8) for _, one in ordered]
        body.pop("object", None)
        usage = take_dict(body, "usage")
        found = None
        if usage is not None:
            tokens = count(usage, "prompt_tokens") or count(usage, "total_tokens")
            found = Usage(tokens, family=self.family, raw=usage)
        id, model = take_str(body, "id"), take_str(body, "model")
        return EndpointAnswer(vectors, id, model, found, body or None)

    def write_answer_of(
        self, answer: EndpointAnswer, asked: EndpointRequest, losses: Losses
    ) -> Json:
        packed = asked.value.base64
        data = [
            {"object": "embedding", "index": n, "embedding": encoded(one) if packed else one}
            for n, one in enumerate(answer.value)
        ]
        tokens = answer.usage.input if answer.usage is not None else 0
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": data, "model": answer.model, "usage": usage}


class OllamaEmbeddings(Endpoint):
    """Ollama's `/api/embed`."""

    name = "ollama-embeddings"
    family = "ollama"
    kind = "embeddings"
    errors = "ollama-chat"

    def path(self, request: EndpointRequest) -> str:
        return "/api/embed"

    def parse_request(self, body: Json, path: str = "") -> EndpointRequest:
        inputs, single = take_inputs(body.pop("input", None), "input")
        value = Embeddings(inputs, single, take_int(body, "dimensions"))
        value.truncate = take_bool(body, "truncate")
        return EndpointRequest(self.family, take_str(body, "model"), value, extras=body or None)

    def write_request(self, request: EndpointRequest, losses: Losses) -> Json:
        value: Embeddings = request.value
        inputs = texts_of(value)
        out: Json = {"model": request.model, "input": inputs[0] if value.single else inputs}
        if value.dimensions is not None:
            out["dimensions"] = value.dimensions
        if value.truncate is not None:
            out["truncate"] = value.truncate
        for field in ("purpose", "user"):
            if getattr(value, field) is not None:
                losses.note(field, f"{losses.target} has no such field")
        if request.family == self.family:
            out |= request.extras or {}
        else:
            losses.extras(request.extras)
        return out

    def parse_answer(self, body: Json) -> EndpointAnswer:
        vectors = take_list(body, "embeddings")
        if vectors is None:
            raise ValueError("an answer without embeddings")
        tokens = count(body, "prompt_eval_count")
        usage = Usage(tokens) if "prompt_eval_count" in body else None
        return EndpointAnswer(vectors, "", take_str(body, "model"), usage, body or None)

    def write_answer_of(
        self, answer: EndpointAnswer, asked: EndpointRequest, losses: Losses
    ) -> Json:
        tokens = answer.usage.input if answer.usage is not None else 0
        vectors = answer.value
        return {"model": answer.model, "embeddings": vectors, "prompt_eval_count": tokens}


OPENAI = OpenAiEmbeddings()
OLLAMA = OllamaEmbeddings()
