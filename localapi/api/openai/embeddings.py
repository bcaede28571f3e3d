"""`POST /v1/embeddings`: texts to vectors."""

from __future__ import annotations

import base64
import logging
from array import array
from contextlib import aclosing
from typing import Annotated, Any, Final, Literal

from msgspec import Struct
from pydantic import Field
from quart import Blueprint, Response

from localapi.api.keep_alive import KeepAlive
from localapi.api.openai.generation_request import MAX_NAME, TokenNumber, unknown_fields
from localapi.api.operation import ERRORS_OF_WORK, JSON, Operation, Operations
from localapi.backends.vector_options import EmbeddingOptions, Prefixes
from localapi.errors import InvalidRequest
from localapi.http import body, request_context
from localapi.http.body import RequestBody
from localapi.http.generation import Generation, begin, request_ids
from localapi.http.replies import json_reply_of_vectors
from localapi.kinds import EMBEDDING
from localapi.kinds.embedding import TEXTS, TOKENS, embedding_options
from localapi.runtime.lease import Lease
from localapi.runtime.registry import Registry
from localapi.worker.protocol import Embed, Embedded

log = logging.getLogger(__name__)

MOST_INPUTS: Final = 2048
"""Maximum number of texts in a request, as at OpenAI."""
MOST_TOKENS: Final = 1_000_000
TRUNCATED_HEADER: Final = "x-truncated-inputs"

Text = Annotated[str, Field(min_length=1)]
TokenList = Annotated[list[TokenNumber], Field(min_length=1, max_length=MOST_TOKENS)]
Inputs = (
    Text
    | Annotated[list[Text], Field(min_length=1, max_length=MOST_INPUTS)]
    | TokenList
    | Annotated[list[TokenList], Field(min_length=1, max_length=MOST_INPUTS)]
)
InputType = Literal["query", "document", "search_query", "search_document", "passage"]


class EmbeddingRequest(RequestBody):
    """Texts, or the model's tokens, to embed."""

    model: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    input: Inputs
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int | None, Field(ge=1)] = None
    input_type: Annotated[
        InputType | None,
        Field(description="Selects the prefix from the entry's `prefixes`."),
    ] = None
    truncate: Annotated[
        bool | None, Field(description="Truncate texts that are too long, instead of refusing them.")
    ] = None
    user: str | None = None
    keep_alive: KeepAlive = None


class Embedding(Struct, kw_only=True):
    """Vector of one text."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str
    """Numbers, or their 32-bit little-endian bytes in base64."""


class EmbeddingUsage(Struct):
    """Tokens of all texts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingReply(Struct, kw_only=True):
    """Vectors, in the order of the texts."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


def routes(registry: Registry) -> Blueprint:
    """Return the endpoint."""
    blueprint = Blueprint("embeddings", __name__)

    @blueprint.post("/v1/embeddings")
    async def embed() -> Response:
        content = await body.read_object()
        request = body.parse(EmbeddingRequest, content)
        generation = begin(registry, request.model, EMBEDDING)
        got = await vectors_of(generation, request)
        reply = await json_reply_of_vectors(lambda: written(request, got), sum(map(len, got.vectors)))
        if got.truncated:
            reply.headers[TRUNCATED_HEADER] = ", ".join(map(str, got.truncated[:50]))
        generation.name_member(reply)
        return body.name_ignored(unknown_fields(request, content), reply)

    return blueprint


async def vectors_of(generation: Generation, request: EmbeddingRequest) -> Embedded:
    """Return the requested vectors. Raise ApiError."""
    ask = asked(request, embedding_options(generation.expected.options))

    def question(lease: Lease) -> list[Embed]:
        if request.keep_alive is not None:
            lease.instance.keep_for(request.keep_alive)
        loaded = lease.instance.loaded
        own = loaded.dimensions if loaded is not None else None
        if request.dimensions is not None and own is not None and request.dimensions > own:
            raise InvalidRequest(
                f"Invalid 'dimensions': this model's vectors have {own} numbers; found {request.dimensions}.",
                param="dimensions",
            )
        return [asked(request, embedding_options(lease.entry.options))]

    async with aclosing(generation.events(question)) as events:
        got = await anext(events)
    assert isinstance(got, Embedded)  # noqa: S101  # what every engine of this kind answers
    counters = request_context.current().counters
    counters.count(generation.entry.id, TEXTS, len(ask.inputs))
    counters.count(generation.entry.id, TOKENS, got.tokens)
    log.info(
        "%s: %d vectors, %d tokens (%s)", generation.entry.id, len(got.vectors), got.tokens,
        request_context.current().id,
    )  # fmt: skip
    return got


def asked(request: EmbeddingRequest, options: EmbeddingOptions) -> Embed:
    """Return the engine's request. Raise InvalidRequest for dimensions that the model does not support."""
    if request.dimensions is not None and not options.matryoshka:
        raise InvalidRequest(
            "This model's vectors cannot be shortened, so `dimensions` must be omitted. If the model was trained for "
            "it, set `matryoshka: true` in its entry.",
            param="dimensions",
        )
    inputs: list[Any] = request.input if isinstance(request.input, list) else [request.input]
    if isinstance(inputs[0], int):
        inputs = [inputs]
    chosen = request.input_type or options.input_type
    has_prefixes = options.prefixes != Prefixes()
    if chosen is not None and has_prefixes:
        prefixes = options.prefixes
        prefix = prefixes.query if chosen in ("query", "search_query") else prefixes.document
        inputs = [prefix + each if isinstance(each, str) else each for each in inputs]
    truncate = options.truncate if request.truncate is None else request.truncate
    return Embed(
        id=next(request_ids),
        inputs=inputs,
        dimensions=request.dimensions,
        truncate=truncate,
        input_type=None if has_prefixes else chosen,
    )


def written(request: EmbeddingRequest, got: Embedded) -> EmbeddingReply:
    """Return the reply."""
    data = []
    for index, vector in enumerate(got.vectors):
        as_asked: list[float] | str
        if request.encoding_format == "base64":
            as_asked = base64.b64encode(vector).decode()
        else:
            as_asked = array("f", vector).tolist()
        data.append(Embedding(index=index, embedding=as_asked))
    return EmbeddingReply(data=data, model=request.model, usage=EmbeddingUsage(got.tokens, got.tokens))


OPERATIONS: Final[Operations] = {
    ("POST", "/v1/embeddings"): Operation(
        summary="Embed texts.",
        content={JSON: EmbeddingReply},
        body=EmbeddingRequest,
        example={"input": ["A cat sits on the mat.", "A dog lies on the sofa."]},
        errors=ERRORS_OF_WORK,
    )
}
