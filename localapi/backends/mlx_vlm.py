"""The backend mlx-vlm: chat on MLX with models that accept images or audio, in its own environment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import msgspec
from pydantic import Field, PrivateAttr

from localapi.backends import model_path
from localapi.backends.chat_template import expected_of, read_template
from localapi.backends.engine import Engine, ReportLoading
from localapi.backends.image_options import SeeingOptions
from localapi.backends.local_model import OwnEnvironment
from localapi.backends.option_types import (
    ContextLength,
    KVCacheMB,
    MaxBatch,
    MaxStallMS,
    PrefixCacheMB,
    ReasoningFormat,
    model_field,
)
from localapi.backends.options import FolderOf
from localapi.backends.parameters import MEDIA, TEXT
from localapi.worker.protocol import Capabilities, ToolFormatName


class MlxVlm(OwnEnvironment, SeeingOptions):
    """Options of a model that mlx-vlm can load."""

    honours = TEXT | MEDIA
    writes_tokens = True
    backend: Annotated[
        Literal["mlx-vlm"],
        Field(
            description="Chat with images and recordings on MLX, in an environment installed by `localapi install "
            "mlx-vlm`. Responses are generated concurrently if the model's architecture supports it."
        ),
    ]
    path: Annotated[str, model_field("mlx-community/Qwen2.5-VL-3B-Instruct-4bit")]
    context_length: ContextLength = None
    max_batch: MaxBatch = 32
    kv_cache_mb: KVCacheMB = None
    max_stall_ms: MaxStallMS = 100
    prefix_cache_mb: PrefixCacheMB = 1024
    tool_format: Annotated[
        ToolFormatName, Field(description="Format of the model's tool calls. auto: as its template shows.")
    ] = "auto"
    reasoning_format: ReasoningFormat = "auto"
    _template: str | None = PrivateAttr(default=None)
    """Chat template, if the model was on this machine when the manifest was read."""
    _senses: tuple[bool, bool] | None = PrivateAttr(default=None)
    """True for images, and for recordings, if the model accepts them, according to its files."""

    def located(self, folder_of: FolderOf) -> Self:
        located = super().located(folder_of)
        assert isinstance(located, type(self))  # noqa: S101  # it is a copy
        located = located.model_copy(update=self.located_model(folder_of))
        folder = model_path.folder_of_model(located.path, self.revision)
        located._template = read_template(folder) if folder else None
        located._senses = _senses(folder) if folder else None
        return located

    def expected(self) -> Capabilities:
        vision, hearing = self._senses or (None, None)
        return msgspec.structs.replace(expected_of(self._template), vision=vision, hearing=hearing)

    @property
    def template(self) -> str | None:
        return self._template

    @property
    def batch_limit(self) -> int:
        return self.max_batch

    async def start(self, name: str, report: ReportLoading) -> Engine:
        return await self.started(name, "mlx-vlm", report)


def _senses(folder: Path) -> tuple[bool, bool] | None:
    """Return whether a model's config describes vision and hearing; None if it cannot be read. Blocks."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(config, dict):
        return False, False
    # Qwen's omni models describe their input separately from their speech.
    reads = config["thinker_config"] if isinstance(config.get("thinker_config"), dict) else config
    return isinstance(reads.get("vision_config"), dict), any(isinstance(reads.get(name), dict) for name in _HEARS)


_HEARS: Final = ("audio_config", "sound_config", "audio_processor")
