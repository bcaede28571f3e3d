"""Embedding models: texts to vectors."""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import Meta

from localapi.backends.command import CommandEmbedding
from localapi.backends.echo import EchoEmbedding
from localapi.backends.openai import OpenAIEmbedding
from localapi.backends.options import EntryOptions
from localapi.backends.pool import EmbeddingPool
from localapi.backends.recognition import embedding_backend
from localapi.backends.vector_options import EmbeddingOptions, MlxLmEmbedding, OnnxEmbedding, Prefixes
from localapi.kinds.kind import Kind, ModelObject, Variables, by_name
from localapi.observability.counters import Metric
from localapi.worker.protocol import Loaded

TEXTS: Final = Metric("embedding_texts", "Embedded texts.")
TOKENS: Final = Metric("embedding_tokens", "Tokens of these texts.")


def embedding_options(options: EntryOptions) -> EmbeddingOptions:
    """Return the options of an entry that is known to be in this section."""
    assert isinstance(options, EmbeddingOptions)  # noqa: S101
    return options


class EmbeddingModel(ModelObject, kw_only=True):
    """Embedding model. Facts that only the loaded model knows are null before that."""

    dimensions: Annotated[int | None, Meta(description="Dimensions of its vectors.")] = None
    matryoshka: Annotated[bool, Meta(description="True if requests may set smaller dimensions.")] = False

    def describe(self, options: EntryOptions, loaded: Loaded | None) -> None:
        self.matryoshka = embedding_options(options).matryoshka
        if loaded is not None:
            self.dimensions = loaded.dimensions

    def as_options(self) -> dict[str, Any]:
        return {"matryoshka": self.matryoshka}


EMBEDDING: Final = Kind(
    name="embedding",
    description="Embedding models by id.",
    options=EmbeddingOptions,
    backends=by_name(EchoEmbedding, OnnxEmbedding, MlxLmEmbedding, OpenAIEmbedding, CommandEmbedding, EmbeddingPool),
    usual_backend="onnx",
    variables=Variables(
        entry_id="local-embedding",
        names=("EMBEDDING_MODEL_ID",),
        options={"backend": ("EMBEDDING_BACKEND",), "path": ("EMBEDDING_MODEL_PATH",)},
        backend="onnx",
    ),
    nested={Prefixes: "embedding.ID.prefixes"},
    operation="embeddings",
    endpoints=("localapi.api.openai.embeddings",),
    metrics=(TEXTS, TOKENS),
    model=EmbeddingModel,
    recognize=embedding_backend,
)
