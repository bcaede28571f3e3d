"""The backend mlx-lm: chat on MLX, in a worker."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal, Self

import msgspec
from pydantic import Field, PrivateAttr, ValidationInfo, field_validator

from localapi.backends import model_path
from localapi.backends.chat_template import expected_of, read_template
from localapi.backends.engine import Engine, ReportLoading
from localapi.backends.local_model import LocalModel, located_model
from localapi.backends.option_types import (
    ContextLength,
    KVCacheMB,
    MaxBatch,
    MaxStallMS,
    PrefixCacheMB,
    ReasoningFormat,
)
from localapi.backends.options import ChatOptions, FolderOf
from localapi.backends.place import Placeable
from localapi.backends.sharded_engine import start_ranks
from localapi.backends.worker_engine import WorkerSetup, start_worker
from localapi.system.threads import aside
from localapi.worker.protocol import Capabilities, ToolFormatName

_HOLDS = {"path": "config.json", "adapter": "adapter_config.json", "draft": "config.json"}
"""File that a folder must contain, by the option that names a folder or a repository."""

_WHOLE = {
    "adapter": "mlx-lm cannot split the layers of an adapter",
    "draft": "the draft model would run in one process",
    "kv_bits": "mlx-lm cannot batch a quantized cache",
    "prefix_cache_disk_mb": "each process would store different prompts",
}
"""Options that require the whole model in one process, each with the reason."""


class MlxLm(Placeable, LocalModel, ChatOptions):
    """Options of a model that mlx-lm can load."""

    backend: Annotated[Literal["mlx-lm"], Field(description="Chat on MLX: any model that mlx-lm can load.")]
    worker_bytes = 110 * 1024 * 1024
    path: Annotated[
        str,
        Field(
            min_length=1,
            description="Folder, Hugging Face repository (owner/name), or demo (the included model).",
            examples=["mlx-community/Qwen3-0.6B-4bit"],
        ),
    ]
    adapter: Annotated[
        str | None,
        Field(
            min_length=1,
            description="LoRA adapter for the model: a folder or a Hugging Face repository.",
            examples=["./lora"],
        ),
    ] = None
    draft: Annotated[
        str | None,
        Field(
            min_length=1,
            description="Small draft model of the same family for speculative decoding: a folder or a repository.",
            examples=["mlx-community/Qwen3-0.6B-4bit"],
        ),
    ] = None
    speculation: Annotated[
        Literal["auto", "off"],
        Field(
            description="auto: compute several tokens at once if a schema forces or earlier text suggests them and "
            "this is faster; the output is the same. off: one by one.",
            examples=["off"],
        ),
    ] = "auto"
    kv_bits: Annotated[
        Literal[4, 8] | None,
        Field(
            description="Bits per value in the KV cache, to save memory. Requests are then answered one at a time.",
            examples=[8],
        ),
    ] = None
    context_length: ContextLength = None
    max_batch: MaxBatch = 32
    kv_cache_mb: KVCacheMB = None
    max_stall_ms: MaxStallMS = 100
    prefix_cache_mb: PrefixCacheMB = 1024
    cpu_weights: Annotated[
        Literal["auto", "float32", "stored"],
        Field(
            description="Weights without a GPU. float32 is faster but takes up to 8 times the memory; "
            "auto uses it if it fits, is faster, and memory_budget is unset.",
            examples=["stored"],
        ),
    ] = "auto"
    prefix_cache_disk_mb: Annotated[
        int,
        Field(
            ge=0,
            description="Disk space for prompt prefixes, which survive unloading and restarts; 0: none.",
            examples=[8192],
        ),
    ] = 0

    shards: Annotated[
        int,
        Field(
            ge=1,
            le=64,
            description="Number of processes among which the model is split.",
            examples=[2],
        ),
    ] = 1
    split: Annotated[
        Literal["auto", "tensor", "pipeline"],
        Field(
            description="How shards split the model: tensor gives each a part of every layer, pipeline some of the "
            "layers. auto: tensor if the model supports it.",
            examples=["pipeline"],
        ),
    ] = "auto"

    tool_format: Annotated[
        ToolFormatName,
        Field(
            description="Format of the model's tool calls. auto: as its template shows; generic: explained in a "
            "system message, if its template has no tools.",
            examples=["generic"],
        ),
    ] = "auto"
    reasoning_format: ReasoningFormat = "auto"

    _template: str | None = PrivateAttr(default=None)
    """Chat template, if the model was on this machine when the manifest was read."""

    @field_validator("speculation")
    @classmethod
    def _with_draft(cls, speculation: str, info: ValidationInfo) -> str:
        if speculation == "off" and info.data.get("draft"):
            raise ValueError("should be auto with draft, because speculation is all that a draft model is for")
        return speculation

    @field_validator("shards")
    @classmethod
    def _whole(cls, shards: int, info: ValidationInfo) -> int:
        for name, reason in _WHOLE.items():
            if shards > 1 and info.data.get(name):
                raise ValueError(f"should be 1 with {name}, because {reason}")
        place = info.data.get("place")
        if shards > 1 and place is not None and place.node is not None and place.spread == "strict":
            raise ValueError(
                "should be 1 with place.spread: strict and place.node, because shards would share the node"
            )
        if shards > 1 and info.data.get("cpu_weights") == "float32":
            raise ValueError("should be 1 with cpu_weights: float32, because shards keep the stored number format")
        return shards

    def located(self, folder_of: FolderOf) -> Self:
        found = {}
        for field, must_hold in _HOLDS.items():
            path = getattr(self, field)
            if path and self.is_remote:
                found[field] = model_path.on_node(path, folder_of(field))
            elif path:
                found[field] = located_model(field, path, folder_of, must_hold)
        located = self.model_copy(update={**found, **self.located_variables(folder_of)})
        folder = model_path.folder_of_model(located.path, located.revision)
        located._template = read_template(folder) if folder else None
        return located

    def expected(self) -> Capabilities:
        found = expected_of(self._template)
        if self.tool_format == "generic":
            return msgspec.structs.replace(found, tools=True)
        return found

    @property
    def template(self) -> str | None:
        return self._template

    def growth(self) -> float:
        if self.cpu_weights != "float32" or sys.platform != "linux":
            return 1.0
        try:
            config = json.loads((self.weight_files()[0].parent / "config.json").read_text("utf-8"))
            return 32 / int(config["quantization"]["bits"])
        except (OSError, ValueError, LookupError, TypeError):
            return 2.0  # 16-bit, or not downloaded yet

    def in_bounds(self) -> Self:
        return self.model_copy(update={"cpu_weights": "stored"}) if self.cpu_weights == "auto" else self

    @property
    def answers_alone(self) -> bool:
        return bool(self.kv_bits)

    @property
    def batch_limit(self) -> int:
        return 1 if self.answers_alone else self.max_batch

    @property
    def processes(self) -> int:
        return self.shards

    def weight_files(self) -> list[Path]:
        return super().weight_files() + model_path.weights(self.adapter) + model_path.weights(self.draft)

    def repositories(self) -> tuple[tuple[str, str | None], ...]:
        named = ((self.path, self.revision), (self.adapter, None), (self.draft, None))
        return tuple((path, revision) for path, revision in named if path and not Path(path).is_absolute())

    async def start(self, name: str, report: ReportLoading) -> Engine:
        if not self.is_remote:
            paths = [(getattr(self, field), must_hold) for field, must_hold in _HOLDS.items()]
            await aside(lambda: model_path.check_present(paths))
        options = self.identity().options
        setup = WorkerSetup(
            needs="mlx_lm",
            site=self.site,
            max_batch=self.batch_limit,
            writes_tokens=True,
            variables=await self.variables(),
        )
        if self.shards > 1:
            return await start_ranks(name, "mlx-lm", options, self.shards, setup, report=report)
        return await start_worker(name, "mlx-lm", options, setup, report)
