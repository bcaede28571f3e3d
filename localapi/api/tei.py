"""Requests in the form of Text Embeddings Inference: `POST /embed`, and the body with `texts` for `/rerank`.

Such a server has one model, so its clients name none.
"""

from __future__ import annotations

import math
from array import array
from typing import Annotated, Final, Literal

from msgspec import UNSET, Struct, UnsetType
from pydantic import Field
from quart import Blueprint, Response

from localapi.api import rerank
from localapi.api.openai.embeddings import EmbeddingRequest, Inputs, InputType, vectors_of
from localapi.api.openai.generation_request import MAX_NAME, unknown_fields
from localapi.api.operation import ERRORS_OF_WORK, JSON, Operation, Operations
from localapi.errors import InvalidRequest
from localapi.http import body
from localapi.http.body import RequestBody
from localapi.http.generation import begin
from localapi.http.replies import json_reply, json_reply_of_vectors
from localapi.kinds import EMBEDDING, RERANK
from localapi.kinds.kind import Kind
from localapi.runtime.registry import Registry
from localapi.worker.protocol import Ranked

LEAST: Final = 1e-30
"""Stands for 0 where a logarithm is needed, because a rounded score may be 0 or 1."""


class TeiRequest(RequestBody):
    """Fields of both requests."""

    model: Annotated[
        str | None,
        Field(min_length=1, max_length=MAX_NAME, description="May be omitted if there is one model of the kind."),
    ] = None
    truncate: bool | None = None
    truncation_direction: Literal["Right", "right"] = "Right"


class TeiEmbedRequest(TeiRequest):
    """Texts to embed."""

    inputs: Inputs
    normalize: Annotated[Literal[True], Field(description="Vectors always have length 1.")] = True
    prompt_name: InputType | None = None
    dimensions: Annotated[int | None, Field(ge=1)] = None


class TeiRerankRequest(TeiRequest):
    """Query, and texts that may answer it."""

    query: Annotated[str, Field(min_length=1)]
    texts: Annotated[list[str], Field(min_length=1, max_length=rerank.MOST_DOCUMENTS)]
    raw_scores: Annotated[bool, Field(description="Return log-odds instead of numbers from 0 to 1.")] = False
    return_text: bool = False
    top_n: Annotated[int | None, Field(ge=1, description="Not part of this API, but sent by one of its clients.")] = (
        None
    )


class TeiRank(Struct, kw_only=True):
    """The score of a text."""

    index: int
    score: float
    text: str | UnsetType = UNSET


def routes(registry: Registry) -> Blueprint:
    """Return both endpoints."""
    blueprint = Blueprint("tei", __name__)

    @blueprint.post("/embed")
    async def embed() -> Response:
        content = await body.read_object()
        request = body.parse(TeiEmbedRequest, content)
        model = request.model or only_model(registry, EMBEDDING)
        generation = begin(registry, model, EMBEDDING)
        asked = EmbeddingRequest(
            model=model,
            input=request.inputs,
            dimensions=request.dimensions,
            input_type=request.prompt_name,
            truncate=request.truncate,
        )
        got = await vectors_of(generation, asked)
        reply = await json_reply_of_vectors(
            lambda: [array("f", vector).tolist() for vector in got.vectors], sum(map(len, got.vectors))
        )
        return body.name_ignored(unknown_fields(request, content), generation.name_member(reply))

    @blueprint.post("/rerank")
    async def rank() -> Response:
        content = await body.read_object()
        if "texts" not in content:
            return await rerank.reply(registry, content)
        request = body.parse(TeiRerankRequest, content)
        generation = begin(registry, request.model or only_model(registry, RERANK), RERANK)
        got = await rerank.ranked(generation, request.query, request.texts, request.truncate)
        reply = generation.name_member(json_reply(written(request, got)))
        return body.name_ignored(unknown_fields(request, content), reply)

    return blueprint


def only_model(registry: Registry, kind: Kind) -> str:
    """Return the id of the kind's only model. Raise InvalidRequest if there are none or several."""
    names = [entry.id for entry in registry.offered if entry.kind is kind]
    if len(names) != 1:
        raise InvalidRequest(
            f"Missing required parameter: 'model'. It may be omitted if there is exactly one {kind} model; available: "
            f"{', '.join(names) or 'none'}.",
            param="model",
            code="missing_required_parameter",
        )
    return names[0]


def written(request: TeiRerankRequest, got: Ranked) -> list[TeiRank]:
    """Return the scores, the best first."""
    ranks = []
    for index in rerank.best(got)[: request.top_n]:
        score = got.scores[index]
        if request.raw_scores:
            score = math.log(max(score, LEAST)) - math.log(max(1 - score, LEAST))
        ranks.append(TeiRank(index=index, score=score))
        if request.return_text:
            ranks[-1].text = request.texts[index]
    return ranks


OPERATIONS: Final[Operations] = {
    ("POST", "/rerank"): rerank.RERANK_OPERATION,
    ("POST", "/embed"): Operation(
        summary="Embed texts, in the form of Text Embeddings Inference.",
        content={JSON: None},
        body=TeiEmbedRequest,
        example={"inputs": ["A cat sits on the mat."]},
        errors=ERRORS_OF_WORK,
        tag="embedding",
    ),
}
