"""Reranking: Cohere v2, Jina, Voyage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tidegate_ai_formats.losses import InvalidRequest, Losses
from tidegate_ai_formats.model import Json, Usage
from tidegate_ai_formats.wire import count, take_bool, take_dict, take_int, take_list, take_str

from .base import Endpoint, EndpointAnswer, EndpointRequest


@dataclass(slots=True)
class Rerank:
    """What is asked. `documents` are texts, or objects that have one."""

    query: str
    documents: list[Any]
    top: int | None = None
    with_documents: bool | None = None
    tokens_per_document: int | None = None
    truncate: bool | None = None


@dataclass(slots=True)
class Ranked:
    """One document of the answer, by its place in the request."""

    index: int
    score: float
    document: Any = None


class RerankEndpoint(Endpoint):
    """What the formats have in common. `top` and `results` are the names of fields."""

    kind = "rerank"
    top = "top_n"
    results = "results"

    def parse_request(self, body: Json, path: str = "") -> EndpointRequest:
        documents = take_list(body, "documents")
        if documents is None:
            raise InvalidRequest("documents", "is required, and is an array")
        top = take_int(body, "top_n")
        value = Rerank(take_str(body, "query"), documents, top or take_int(body, "top_k"))
        value.with_documents = take_bool(body, "return_documents")
        value.tokens_per_document = take_int(body, "max_tokens_per_doc")
        value.truncate = take_bool(body, "truncation")
        return EndpointRequest(self.family, take_str(body, "model"), value, extras=body or None)

    def write_request(self, request: EndpointRequest, losses: Losses) -> Json:
        value: Rerank = request.value
        out: Json = {"model": request.model, "query": value.query}
        out["documents"] = [self._document(one) for one in value.documents]
        if value.top is not None:
            out[self.top] = value.top
        self._options(value, out, losses)
        if request.family == self.family:
            out |= request.extras or {}
        else:
            losses.extras(request.extras)
        return out

    def _document(self, document: Any) -> Any:
        """A document as the provider takes it: text."""
        return document.get("text", document) if isinstance(document, dict) else document

    def _options(self, value: Rerank, out: Json, losses: Losses) -> None:
        if value.with_documents is not None:
            out["return_documents"] = value.with_documents
        if value.tokens_per_document is not None:
            losses.drop("max_tokens_per_doc")

    def parse_answer(self, body: Json) -> EndpointAnswer:
        found = take_list(body, self.results)
        if found is None:
            found = take_list(body, "results") or take_list(body, "data")
        if found is None:
            raise ValueError("an answer without results")
        ranked = [
            Ranked(one["index"], one["relevance_score"], one.get("document")) for one in found
        ]
        body.pop("object", None)
        id, model = take_str(body, "id"), take_str(body, "model")
        return EndpointAnswer(ranked, id, model, self._usage(body), body or None)

    @staticmethod
    def _usage(body: Json) -> Usage | None:
        usage = take_dict(body, "usage")
        return Usage(count(usage, "total_tokens"), raw=usage) if usage is not None else None

    def write_answer_of(
        self, answer: EndpointAnswer, asked: EndpointRequest, losses: Losses
    ) -> Json:
        value: Rerank = asked.value
        results = []
        for one in answer.value:
            entry: Json = {"index": one.index, "relevance_score": one.score}
            if self._shows(value):
                entry["document"] = self._shown(one, value)
            results.append(entry)
        out = self._envelope(answer)
        out[self.results] = results
        return out

    def _shows(self, asked: Rerank) -> bool:
        """Whether the answer repeats documents."""
        return bool(asked.with_documents)

    def _shown(self, one: Ranked, asked: Rerank) -> Any:
        document = asked.documents[one.index] if one.document is None else one.document
        return document if isinstance(document, dict) else {"text": document}

    def _envelope(self, answer: EndpointAnswer) -> Json:
        tokens = answer.usage.input if answer.usage is not None else 0
        return {"object": "list", "model": answer.model, "usage": {"total_tokens": tokens}}


class CohereRerank(RerankEndpoint):
    """Cohere's `/v2/rerank`, whose answers do not repeat documents."""

    name = "cohere-rerank"
    family = "cohere"
    errors = "cohere-chat"

    def path(self, request: EndpointRequest) -> str:
        return "/v2/rerank"

    def _options(self, value: Rerank, out: Json, losses: Losses) -> None:
        if value.tokens_per_document is not None:
            out["max_tokens_per_doc"] = value.tokens_per_document
        if value.truncate is False:
            losses.drop("truncation")

    @staticmethod
    def _usage(body: Json) -> Usage | None:
        return None  # it counts searches, not tokens

    def _shows(self, asked: Rerank) -> bool:
        return False

    def _envelope(self, answer: EndpointAnswer) -> Json:
        meta: Json = {"api_version": {"version": "2"}}
        if answer.usage is not None:
            meta["tokens"] = {"input_tokens": answer.usage.input}
        return {"id": answer.id, "meta": meta, "results": []}


class JinaRerank(RerankEndpoint):
    """`/v1/rerank` as Jina has it, and many servers after it. Documents come back unless told."""

    name = "jina-rerank"
    family = "jina"

    def path(self, request: EndpointRequest) -> str:
        return "/rerank"

    def _shows(self, asked: Rerank) -> bool:
        return asked.with_documents is not False


class VoyageRerank(RerankEndpoint):
    """Voyage's `/v1/rerank`: `top_k`, and `data`."""

    name = "voyage-rerank"
    family = "voyage"
    top = "top_k"
    results = "data"

    def path(self, request: EndpointRequest) -> str:
        return "/rerank"

    def _options(self, value: Rerank, out: Json, losses: Losses) -> None:
        super()._options(value, out, losses)
        if value.truncate is not None:
            out["truncation"] = value.truncate

    def _shown(self, one: Ranked, asked: Rerank) -> Any:
        document = asked.documents[one.index] if one.document is None else one.document
        return self._document(document)


COHERE = CohereRerank()
JINA = JinaRerank()
VOYAGE = VoyageRerank()
