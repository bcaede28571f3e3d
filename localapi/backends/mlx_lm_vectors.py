"""The backend mlx-lm for embeddings and rerank: models that are built like chat models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from localapi.backends.engine import Engine, ReportLoading
from localapi.backends.vector_options import EmbeddingOptions, RerankOptions, VectorWorker

Backend = Annotated[
    Literal["mlx-lm"], Field(description="MLX: models that are built like chat models, such as Qwen3-Embedding.")
]
WORKER_BYTES = 110 * 1024 * 1024


class MlxLmEmbedding(VectorWorker, EmbeddingOptions):
    """Options of an embedding model."""

    backend: Backend
    worker_bytes = WORKER_BYTES

    async def start(self, name: str, report: ReportLoading) -> Engine:
        return await self.started(name, "mlx-lm-vectors", "mlx_lm", report)


class MlxLmRerank(VectorWorker, RerankOptions):
    """Options of a model that answers whether a document fits a query, such as Qwen3-Reranker."""

    backend: Backend
    worker_bytes = WORKER_BYTES
    instruction: Annotated[
        str | None,
        Field(
            min_length=1,
            description="What makes a document fit. Default: that of the model card.",
            examples=["Find code that does what the query asks for"],
        ),
    ] = None

    async def start(self, name: str, report: ReportLoading) -> Engine:
        return await self.started(name, "mlx-lm-vectors", "mlx_lm", report, scores=True)
