"""The backend echo for embeddings and rerank: numbers without a model, for trying the API and for tests of clients.

A vector counts the words of its text, each in a place that a hash chooses, so texts that share words are similar.
"""

from __future__ import annotations

import math
import re
import zlib
from array import array
from collections.abc import AsyncGenerator
from typing import Annotated, Literal

from pydantic import Field

from localapi.backends.engine import Engine, ReportLoading
from localapi.backends.in_process import InProcessEngine
from localapi.backends.vector_options import EmbeddingOptions, RerankOptions
from localapi.errors import InvalidRequest
from localapi.worker.protocol import Embed, Embedded, Event, Loaded, Ranked, Request, Rerank

Backend = Annotated[Literal["echo"], Field(description="No model: counts words, to try clients.")]
SIZE = 256


class EchoEmbedding(EmbeddingOptions):
    """Options of an embedding model that counts words."""

    backend: Backend

    async def start(self, name: str, report: ReportLoading) -> Engine:
        return EchoVectorEngine()


class EchoRerank(RerankOptions):
    """Options of a model that scores documents by the words that they share with the query."""

    backend: Backend

    async def start(self, name: str, report: ReportLoading) -> Engine:
        return EchoVectorEngine()


class EchoVectorEngine(InProcessEngine):
    """Engine that counts one token per word."""

    @property
    def loaded(self) -> Loaded:
        return Loaded(dimensions=SIZE)

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        match request:
            case Embed():
                texts = [words(each) for each in request.inputs]
                vectors = [vector(each, request.dimensions or SIZE).tobytes() for each in texts]
                yield Embedded(request.id, vectors, sum(map(len, texts)))
            case Rerank():
                query = vector(words(request.query), SIZE)
                documents = [words(each) for each in request.documents]
                scores = [
                    max(0.0, sum(a * b for a, b in zip(query, vector(each, SIZE), strict=True))) for each in documents
                ]
                tokens = sum(map(len, documents)) + len(words(request.query)) * len(documents)
                yield Ranked(request.id, scores, tokens)
            case _:
                raise InvalidRequest("This model makes vectors: use POST /v1/embeddings or POST /v1/rerank.")


def words(text: str | list[int]) -> list[str]:
    """Return the words of a text in lower case, or its tokens as words."""
    return re.findall(r"\w+", text.lower()) if isinstance(text, str) else [str(token) for token in text]


def vector(said: list[str], size: int) -> array[float]:
    """Return a vector of length 1; of a text without words, the first unit vector."""
    counts = array("f", bytes(4 * size))
    for word in said:
        counts[zlib.crc32(word.encode("utf-8", "surrogatepass")) % size] += 1
    if not said:
        counts[0] = 1
    length = math.sqrt(sum(each * each for each in counts))
    return array("f", (each / length for each in counts))
