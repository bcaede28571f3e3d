"""Rerank models, which score how well documents answer a query."""

from __future__ import annotations

from typing import Final

from localapi.backends.command import CommandRerank
from localapi.backends.echo import EchoRerank
from localapi.backends.openai import OpenAIRerank
from localapi.backends.options import EntryOptions
from localapi.backends.pool import RerankPool
from localapi.backends.recognition import rerank_backend
from localapi.backends.vector_options import MlxLmRerank, OnnxRerank, RerankOptions
from localapi.kinds.kind import Kind, Variables, by_name
from localapi.observability.counters import Metric

DOCUMENTS: Final = Metric("rerank_documents", "Documents that were scored.")


def rerank_options(options: EntryOptions) -> RerankOptions:
    """Return the options of an entry that is known to be in this section."""
    assert isinstance(options, RerankOptions)  # noqa: S101
    return options


RERANK: Final = Kind(
    name="rerank",
    description="Rerank models by id.",
    options=RerankOptions,
    backends=by_name(EchoRerank, OnnxRerank, MlxLmRerank, OpenAIRerank, CommandRerank, RerankPool),
    usual_backend="onnx",
    variables=Variables(
        entry_id="local-rerank",
        names=("RERANK_MODEL_ID",),
        options={"backend": ("RERANK_BACKEND",), "path": ("RERANK_MODEL_PATH",)},
        backend="onnx",
    ),
    endpoints=("localapi.api.rerank", "localapi.api.tei"),
    metrics=(DOCUMENTS,),
    recognize=rerank_backend,
)
