"""Options of the sections embedding and rerank, and of the backends that both have."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveInt

from localapi.backends.engine import Engine, ReportLoading
from localapi.backends.local_model import LocalModel
from localapi.backends.option_types import StrictModel, model_field
from localapi.backends.options import EntryOptions, FolderOf
from localapi.backends.place import Placeable
from localapi.backends.worker_engine import WorkerSetup, start_worker

INPUT_TYPES = ("query", "document")


class Prefixes(StrictModel):
    """Texts that a model expects before its input."""

    query: Annotated[
        str, Field(description="Prefix of a query.", examples=["Represent this sentence for searching: "])
    ] = ""
    document: Annotated[str, Field(description="Prefix of a document.", examples=["passage: "])] = ""


class EmbeddingOptions(EntryOptions):
    """Entry of the section `embedding`."""

    section = "embedding"
    prefixes: Annotated[
        Prefixes,
        Field(
            description="Texts that the model expects before queries and documents; see its model card.",
            examples=[{"query": "query: ", "document": "passage: "}],
        ),
    ] = Prefixes()
    input_type: Annotated[
        Literal["query", "document"] | None,
        Field(description="Type of texts in requests without `input_type`. Default: no prefix.", examples=["query"]),
    ] = None
    truncate: Annotated[bool, Field(description="Truncate texts that are too long, instead of refusing them.")] = False
    matryoshka: Annotated[
        bool,
        Field(description="Allow requests to shorten vectors by `dimensions`; see the model card."),
    ] = False


class RerankOptions(EntryOptions):
    """Entry of the section `rerank`."""

    section = "rerank"
    truncate: Annotated[bool, Field(description="Truncate documents that are too long, instead of refusing them.")] = (
        True
    )


class VectorWorker(Placeable, LocalModel):
    """Options of a model in a worker, for both sections."""

    engine: ClassVar[str]
    """Name of the worker's engine."""
    needs: ClassVar[str]
    """Python package that the engine imports."""
    path: Annotated[str, model_field("sentence-transformers/all-MiniLM-L6-v2")]
    max_tokens: Annotated[
        PositiveInt | None,
        Field(description="Maximum tokens of a text. Default: the model's limit.", examples=[512]),
    ] = None

    def located(self, folder_of: FolderOf) -> Self:
        return self.model_copy(update=self.located_model(folder_of))

    async def start(self, name: str, report: ReportLoading) -> Engine:
        await self.check_present()
        options = {**self.identity().options, "scores": self.section == "rerank"}
        setup = WorkerSetup(needs=self.needs, site=self.site, variables=await self.variables())
        return await start_worker(name, self.engine, options, setup, report)


class MlxLmVectors(VectorWorker):
    """Options of models that are built like chat models."""

    backend: Annotated[
        Literal["mlx-lm"], Field(description="MLX: models that are built like chat models, such as Qwen3-Embedding.")
    ]
    worker_bytes = 110 * 1024 * 1024
    engine, needs = "mlx-lm-vectors", "mlx_lm"


class MlxLmEmbedding(MlxLmVectors, EmbeddingOptions):
    """Options of an embedding model."""


class MlxLmRerank(MlxLmVectors, RerankOptions):
    """Options of a model that judges whether a document fits a query, such as Qwen3-Reranker."""

    instruction: Annotated[
        str | None,
        Field(
            min_length=1,
            description="Criterion by which a document fits. Default: that of the model card.",
            examples=["Find code that does what the query asks for"],
        ),
    ] = None


class OnnxVectors(VectorWorker):
    """Options of models that run on ONNX Runtime."""

    backend: Annotated[
        Literal["onnx"],
        Field(
            description="ONNX Runtime, on the CPU: models of the BERT family, and any model with a file "
            "onnx/model.onnx."
        ),
    ]
    worker_bytes = 90 * 1024 * 1024
    engine, needs = "onnx", "onnxruntime"


class OnnxEmbedding(OnnxVectors, EmbeddingOptions):
    """Options of an embedding model."""

    pooling: Annotated[
        Literal["mean", "cls", "last", "max"] | None,
        Field(description="How token vectors become one vector. Default: as the model's files say, otherwise mean."),
    ] = None


class OnnxRerank(OnnxVectors, RerankOptions):
    """Options of a model that scores documents (a cross-encoder)."""
