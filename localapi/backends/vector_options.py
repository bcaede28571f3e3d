"""Options of the sections embedding and rerank, and of the backends that both have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from localapi.backends import model_path
from localapi.backends.engine import Engine, ReportLoading
from localapi.backends.model_options import Revision
from localapi.backends.options import EntryOptions, FolderOf, PathProblem
from localapi.backends.place import Placeable
from localapi.backends.variables import WithVariables
from localapi.backends.worker_engine import start_worker
from localapi.system.threads import aside

INPUT_TYPES = ("query", "document")


class Prefixes(BaseModel):
    """Texts that a model expects before what it reads."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, defer_build=True)

    query: Annotated[
        str, Field(description="Before a text that searches.", examples=["Represent this sentence for searching: "])
    ] = ""
    document: Annotated[str, Field(description="Before a text that is to be found.", examples=["passage: "])] = ""


class EmbeddingOptions(EntryOptions):
    """An entry of the section `embedding`."""

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
        Field(description="What texts are if the request has no `input_type`. Default: no prefix.", examples=["query"]),
    ] = None
    truncate: Annotated[bool, Field(description="Drop the end of a text that is too long, instead of refusing it.")] = (
        False
    )
    matryoshka: Annotated[
        bool,
        Field(description="The model's vectors may be shortened by the request's `dimensions`; see its model card."),
    ] = False


class RerankOptions(EntryOptions):
    """An entry of the section `rerank`."""

    section = "rerank"
    truncate: Annotated[
        bool, Field(description="Drop the end of a document that is too long, instead of refusing it.")
    ] = True


class VectorWorker(Placeable, WithVariables):
    """Options of a model in a worker, for both sections."""

    path: Annotated[
        str,
        Field(
            min_length=1,
            description="A folder, or a Hugging Face repository (owner/name).",
            examples=["sentence-transformers/all-MiniLM-L6-v2"],
        ),
    ]
    revision: Revision = None
    max_tokens: Annotated[
        PositiveInt | None,
        Field(description="Maximum tokens of a text. Default: what the model was made for.", examples=[512]),
    ] = None

    def located(self, folder_of: FolderOf) -> Self:
        if self.is_remote:
            path = model_path.on_node(self.path, folder_of("path"))
        else:
            try:
                path = model_path.resolve(self.path, folder_of("path"), must_hold="config.json")
            except ValueError as error:
                raise PathProblem("path", str(error)) from error
        return self.model_copy(update={**self.located_variables(folder_of), "path": path})

    def weight_files(self) -> list[Path]:
        return model_path.weights(self.path, self.revision)

    def repositories(self) -> tuple[tuple[str, str | None], ...]:
        return () if Path(self.path).is_absolute() else ((self.path, self.revision),)

    async def started(self, name: str, engine: str, needs: str, report: ReportLoading, **more: Any) -> Engine:
        """Start a worker with this engine. Raise `errors.LoadFailed`."""
        if not self.is_remote:
            await aside(lambda: model_path.check_present([(self.path, "config.json")]))
        options = {**self.identity().options, **more}
        return await start_worker(
            name, engine, options, needs=needs, variables=await self.variables(), report=report, site=self.site
        )
