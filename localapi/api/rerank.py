"""`POST /v1/rerank`, in Cohere's and Jina's form: how well documents answer a query."""

from __future__ import annotations

import logging
from contextlib import aclosing
from typing import Annotated, Any, Final

from msgspec import UNSET, Struct, UnsetType
from pydantic import Field
from quart import Blueprint, Response

from localapi.api.openai.generation_request import MAX_NAME, unknown_fields
from localapi.api.operation import ERRORS_OF_WORK, JSON, Operation, Operations
from localapi.http import body, request_context
from localapi.http.body import RequestBody
from localapi.http.generation import Generation, begin, request_ids
from localapi.http.replies import json_reply
from localapi.kinds import RERANK
from localapi.kinds.rerank import DOCUMENTS, rerank_options
from localapi.runtime.lease import Lease
from localapi.runtime.registry import Registry
from localapi.worker.protocol import Ranked, Rerank

log = logging.getLogger(__name__)

MOST_DOCUMENTS: Final = 1000
PATHS: Final = ("/v1/rerank", "/v2/rerank")
"""Jina's path, and that of Cohere's client. `tei` has the third one."""


class Document(RequestBody):
    """Document with fields, of which the text is used."""

    text: str


class RerankRequest(RequestBody):
    """Query, and documents that may answer it."""

    model: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    query: Annotated[str, Field(min_length=1)]
    documents: Annotated[list[str | Document], Field(min_length=1, max_length=MOST_DOCUMENTS)]
    top_n: Annotated[
        int | None, Field(ge=1, description="Maximum number of documents to return, the best first. Default: all.")
    ] = None
    return_documents: Annotated[bool, Field(description="Also return the documents.")] = False
    truncate: Annotated[
        bool | None, Field(description="Truncate documents that are too long, instead of refusing them.")
    ] = None


class Result(Struct, kw_only=True):
    """Score of a document."""

    index: int
    """Place in the request."""
    relevance_score: float
    """Number from 0 to 1."""
    document: dict[str, Any] | UnsetType = UNSET


class RerankUsage(Struct):
    """Tokens of all pairs of the query and a document."""

    prompt_tokens: int
    total_tokens: int


class RerankReply(Struct, kw_only=True):
    """Documents, the best first."""

    id: str
    model: str
    results: list[Result]
    usage: RerankUsage


def routes(registry: Registry) -> Blueprint:
    """Return the endpoint, which clients know by two paths."""
    blueprint = Blueprint("rerank", __name__)

    async def rerank() -> Response:
        return await reply(registry, await body.read_object())

    for path in PATHS:
        blueprint.add_url_rule(path, path.strip("/").replace("/", "-"), rerank, methods=["POST"])
    return blueprint


async def reply(registry: Registry, content: dict[str, Any]) -> Response:
    """Answer a request in this shape. Raise ApiError."""
    request = body.parse(RerankRequest, content)
    generation = begin(registry, request.model, RERANK)
    texts = [each if isinstance(each, str) else each.text for each in request.documents]
    got = await ranked(generation, request.query, texts, request.truncate)
    return body.name_ignored(
        unknown_fields(request, content), generation.name_member(json_reply(written(request, got)))
    )


async def ranked(generation: Generation, query: str, texts: list[str], truncate: bool | None) -> Ranked:
    """Return the scores of texts, in their order. `truncate` is None if the entry decides. Raise ApiError."""

    def asked(lease: Lease) -> list[Rerank]:
        truncates = rerank_options(lease.entry.options).truncate if truncate is None else truncate
        return [Rerank(id=next(request_ids), query=query, documents=texts, truncate=truncates)]

    async with aclosing(generation.events(asked)) as events:
        got = await anext(events)
    assert isinstance(got, Ranked)  # noqa: S101  # what every engine of this kind answers
    request_context.current().counters.count(generation.entry.id, DOCUMENTS, len(texts))
    log.info("%s: %d documents (%s)", generation.entry.id, len(texts), request_context.current().id)
    return got


def written(request: RerankRequest, got: Ranked) -> RerankReply:
    """Return the reply."""
    results = []
    for index in best(got)[: request.top_n]:
        result = Result(index=index, relevance_score=got.scores[index])
        if request.return_documents:
            document = request.documents[index]
            result.document = {"text": document} if isinstance(document, str) else document.model_dump()
        results.append(result)
    name = f"rerank-{request_context.current().id}"
    return RerankReply(id=name, model=request.model, results=results, usage=RerankUsage(got.tokens, got.tokens))


def best(got: Ranked) -> list[int]:
    """Return the places of the documents, the best first. Documents with equal scores keep their order."""
    return sorted(range(len(got.scores)), key=lambda index: -got.scores[index])


RERANK_OPERATION: Final = Operation(
    summary="Score documents for a query.",
    content={JSON: RerankReply},
    body=RerankRequest,
    example={"query": "Where does the cat sleep?", "documents": ["The cat sleeps on the sofa.", "It rains."]},
    errors=ERRORS_OF_WORK,
)
OPERATIONS: Final[Operations] = {("POST", path): RERANK_OPERATION for path in PATHS}
