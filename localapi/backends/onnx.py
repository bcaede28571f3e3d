"""The backend onnx: embeddings and rerank by ONNX Runtime, on any processor."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from localapi.backends.engine import Engine, ReportLoading
from localapi.backends.vector_options import EmbeddingOptions, RerankOptions, VectorWorker

Backend = Annotated[
    Literal["onnx"],
    Field(description="ONNX Runtime, on the processor: models of BERT's family, and any with a file onnx/model.onnx."),
]
WORKER_BYTES = 90 * 1024 * 1024


class OnnxEmbedding(VectorWorker, EmbeddingOptions):
    """Options of an embedding model."""

    backend: Backend
    worker_bytes = WORKER_BYTES
    pooling: Annotated[
        Literal["mean", "cls", "last", "max"] | None,
        Field(description="How tokens become one vector. Default: what the model's folder says, or mean."),
    ] = None

    async def start(self, name: str, report: ReportLoading) -> Engine:
        return await self.started(name, "onnx", "onnxruntime", report)


class OnnxRerank(VectorWorker, RerankOptions):
    """Options of a model that scores documents (a cross-encoder)."""

    backend: Backend
    worker_bytes = WORKER_BYTES

    async def start(self, name: str, report: ReportLoading) -> Engine:
        return await self.started(name, "onnx", "onnxruntime", report, scores=True)
