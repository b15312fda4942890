"""Embeddings as Gemini, Vertex AI and Cohere have them."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import quote, unquote

from tidegate_ai_formats.losses import InvalidRequest, Losses
from tidegate_ai_formats.model import Json, Usage
from tidegate_ai_formats.wire import count, take_bool, take_dict, take_int, take_list, take_str

from .base import Endpoint, EndpointAnswer, EndpointRequest
from .vectors import Embeddings, Purpose, take_inputs, texts_of

_MODEL: Final = re.compile(r"models/([^/:]+(?:/[^/:]+){0,3}):(\w+)$")
_TASKS: Final[dict[str, Purpose]] = {
    "RETRIEVAL_QUERY": "query",
    "RETRIEVAL_DOCUMENT": "document",
    "CLASSIFICATION": "classification",
    "CLUSTERING": "clustering",
    "SEMANTIC_SIMILARITY": "similarity",
}
_WORDS: Final = {purpose: word for word, purpose in _TASKS.items()}
_COHERE: Final[dict[str, Purpose]] = {
    "search_query": "query",
    "search_document": "document",
    "classification": "classification",
    "clustering": "clustering",
}
_COHERE_WORDS: Final = {purpose: word for word, purpose in _COHERE.items()}


def model_of(path: str) -> tuple[str, str]:
    """(model, method) that a path of Google's names."""
    found = _MODEL.search(path)
    return (unquote(found[1]), found[2]) if found else ("", "")


class GeminiEmbeddings(Endpoint):
    """`embedContent` (one) and `batchEmbedContents` (several)."""

    name = "gemini-embeddings"
    family = "gemini"
    kind = "embeddings"
    errors = "gemini"

    def path(self, request: EndpointRequest) -> str:
        method = "embedContent" if request.value.single else "batchEmbedContents"
        return f"/models/{quote(request.model, safe='')}:{method}"

    def parse_request(self, body: Json, path: str = "") -> EndpointRequest:
        model, method = model_of(path)
        single = method == "embedContent"
        requests = [body] if single else take_list(body, "requests")
        if not requests:
            raise InvalidRequest("requests", "is required, and is an array")
        inputs = [_input(one, n) for n, one in enumerate(requests)]
        value = Embeddings(inputs, single)
        first = requests[0]
        value.dimensions = take_int(first, "outputDimensionality")
        value.purpose = _TASKS.get(first.pop("taskType", None) or "")
        value.title = take_str(first, "title") or None
        named = take_str(first, "model").removeprefix("models/")
        return EndpointRequest(self.family, model or named, value)

    def write_request(self, request: EndpointRequest, losses: Losses) -> Json:
        value: Embeddings = request.value
        each: Json = {"model": f"models/{request.model}"}
        if value.dimensions is not None:
            each["outputDimensionality"] = value.dimensions
        if value.purpose is not None:
            each["taskType"] = _WORDS[value.purpose]
        if value.title:
            each["title"] = value.title
        requests = [{**each, "content": {"parts": [{"text": text}]}} for text in texts_of(value)]
        _lost(value, losses)
        losses.extras(request.extras)
        return requests[0] if value.single else {"requests": requests}

    def parse_answer(self, body: Json) -> EndpointAnswer:
        one = take_dict(body, "embedding")
        found = [one] if one is not None else take_list(body, "embeddings")
        if found is None:
            raise ValueError("an answer without embeddings")
        usage = take_dict(body, "usageMetadata")
        tokens = Usage(count(usage, "promptTokenCount"), raw=usage) if usage is not None else None
        return EndpointAnswer([entry["values"] for entry in found], usage=tokens)

    def write_answer_of(
        self, answer: EndpointAnswer, asked: EndpointRequest, losses: Losses
    ) -> Json:
        entries = [{"values": vector} for vector in answer.value]
        out: Json = {"embedding": entries[0]} if asked.value.single else {"embeddings": entries}
        if answer.usage is not None:
            out["usageMetadata"] = {"promptTokenCount": answer.usage.input}
        return out


def _input(request: Any, n: int) -> Any:
    """The text of one request, or its parts where they are more than text."""
    content = request.get("content") if isinstance(request, dict) else None
    parts = content.get("parts") if isinstance(content, dict) else None
    if not isinstance(parts, list):
        raise InvalidRequest(f"requests[{n}].content", "has parts")
    if all(isinstance(part, dict) and part.keys() == {"text"} for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _lost(value: Embeddings, losses: Losses) -> None:
    for field in ("truncate", "user"):
        if getattr(value, field) is not None:
            losses.note(field, f"{losses.target} has no such field")


class VertexEmbeddings(Endpoint):
    """Vertex AI's `predict`."""

    name = "vertex-embeddings"
    family = "vertex"
    kind = "embeddings"
    errors = "gemini"

    def path(self, request: EndpointRequest) -> str:
        return f"/models/{quote(request.model, safe='')}:predict"

    def parse_request(self, body: Json, path: str = "") -> EndpointRequest:
        instances = take_list(body, "instances")
        if not instances or not all(isinstance(one, dict) for one in instances):
            raise InvalidRequest("instances", "is required, and is an array of objects")
        value = Embeddings([one.get("content") for one in instances])
        value.purpose = _TASKS.get(instances[0].get("task_type") or "")
        value.title = instances[0].get("title")
        options = take_dict(body, "parameters") or {}
        value.dimensions = take_int(options, "outputDimensionality")
        value.truncate = take_bool(options, "autoTruncate")
        return EndpointRequest(self.family, model_of(path)[0], value, extras=body or None)

    def write_request(self, request: EndpointRequest, losses: Losses) -> Json:
        value: Embeddings = request.value
        each: Json = {}
        if value.purpose is not None:
            each["task_type"] = _WORDS[value.purpose]
        if value.title:
            each["title"] = value.title
        out: Json = {"instances": [{"content": text, **each} for text in texts_of(value)]}
        said = {"outputDimensionality": value.dimensions, "autoTruncate": value.truncate}
        options = {key: one for key, one in said.items() if one is not None}
        if options:
            out["parameters"] = options
        losses.extras(request.extras)
        return out

    def parse_answer(self, body: Json) -> EndpointAnswer:
        found = take_list(body, "predictions")
        if found is None:
            raise ValueError("an answer without predictions")
        embeddings = [one["embeddings"] for one in found]
        tokens = sum(count(one.get("statistics"), "token_count") for one in embeddings)
        return EndpointAnswer([one["values"] for one in embeddings], usage=Usage(tokens))

    def write_answer_of(
        self, answer: EndpointAnswer, asked: EndpointRequest, losses: Losses
    ) -> Json:
        return {"predictions": [{"embeddings": {"values": vector}} for vector in answer.value]}


class CohereEmbeddings(Endpoint):
    """Cohere's `/v2/embed`. It must be told what for: without a word, to find documents."""

    name = "cohere-embeddings"
    family = "cohere"
    kind = "embeddings"
    errors = "cohere-chat"

    def path(self, request: EndpointRequest) -> str:
        return "/v2/embed"

    def parse_request(self, body: Json, path: str = "") -> EndpointRequest:
        if "texts" in body:
            inputs, _ = take_inputs(body.pop("texts"), "texts")
        else:
            inputs = take_list(body, "inputs") or take_list(body, "images") or []
        value = Embeddings(inputs, False, take_int(body, "output_dimension"))
        value.purpose = _COHERE.get(take_str(body, "input_type"))
        truncate = take_str(body, "truncate")
        value.truncate = truncate != "NONE" if truncate else None
        types = body.get("embedding_types")
        if types == ["float"]:
            del body["embedding_types"]
        return EndpointRequest(self.family, take_str(body, "model"), value, extras=body or None)

    def write_request(self, request: EndpointRequest, losses: Losses) -> Json:
        value: Embeddings = request.value
        out: Json = {
            "model": request.model,
            "texts": texts_of(value),
            "input_type": _COHERE_WORDS.get(value.purpose or "document", "clustering"),
            "embedding_types": ["float"],
        }
        if value.dimensions is not None:
            out["output_dimension"] = value.dimensions
        if value.truncate is not None:
            out["truncate"] = "END" if value.truncate else "NONE"
        if value.user is not None:
            losses.note("user", f"{losses.target} has no such field")
        losses.extras(request.extras)
        return out

    def parse_answer(self, body: Json) -> EndpointAnswer:
        found = body.pop("embeddings", None)
        vectors = found.get("float") if isinstance(found, dict) else found
        if not isinstance(vectors, list):
            raise ValueError("an answer without embeddings of the type float")
        units = (body.get("meta") or {}).get("billed_units")
        usage = Usage(count(units, "input_tokens"), raw=units) if units else None
        return EndpointAnswer(vectors, take_str(body, "id"), "", usage, body or None)

    def write_answer_of(
        self, answer: EndpointAnswer, asked: EndpointRequest, losses: Losses
    ) -> Json:
        meta: Json = {"api_version": {"version": "2"}}
        if answer.usage is not None:
            meta["billed_units"] = {"input_tokens": answer.usage.input}
        return {
            "id": answer.id,
            "embeddings": {"float": answer.value},
            "texts": [one for one in asked.value.inputs if isinstance(one, str)],
            "meta": meta,
            "response_type": "embeddings_by_type",
        }


GEMINI = GeminiEmbeddings()
VERTEX = VertexEmbeddings()
COHERE = CohereEmbeddings()
