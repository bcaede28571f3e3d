"""Options that every entry of the section `transcription` has, whatever its backend."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field

from localapi.backends import model_path
from localapi.backends.auto import cached_config
from localapi.backends.engine import Engine, ReportLoading
from localapi.backends.local_model import OwnEnvironment
from localapi.backends.option_types import Install, Revision, model_field
from localapi.backends.options import Duration, EntryOptions, FolderOf
from localapi.environments import Environment


class TranscriptionOptions(EntryOptions):
    """Entry of the section `transcription`."""

    section = "transcription"
    forwards: ClassVar[bool] = False
    """True if the backend forwards a file as the client sent it, and returns another server's reply as it arrives."""
    language: Annotated[
        str | None,
        Field(
            min_length=2,
            description="Spoken language (en, zh, ...) if the request names none. Default: detected by the model.",
            examples=["en"],
        ),
    ] = None
    max_file_mb: Annotated[
        int, Field(ge=1, le=65_536, description="Maximum size of a file; larger files get a 413.", examples=[2048])
    ] = 1024
    max_duration: Annotated[
        Duration, Field(description="Maximum audio length of a file: 30m, 12h.", examples=["12h"])
    ] = 4 * 3600.0


Vad = Annotated[bool, Field(description="Skip everything but speech. If false, music and singing are transcribed too.")]


class LocalTranscription(OwnEnvironment, TranscriptionOptions):
    """Options of a model in a worker."""

    path: Annotated[str, model_field("Systran/faster-whisper-small")]
    vad: Vad = True

    def located(self, folder_of: FolderOf) -> Self:
        return self.model_copy(update=self.located_model(folder_of))


class FasterWhisper(LocalTranscription):
    """Options of a Whisper model in CTranslate2's format."""

    backend: Annotated[
        Literal["faster-whisper"],
        Field(
            description="Whisper on the processor, in an environment installed by `localapi install faster-whisper`."
        ),
    ]
    worker_bytes = 250 * 1024 * 1024
    must_hold = "model.bin"
    beam_size: Annotated[
        int, Field(ge=1, le=20, description="Number of hypotheses in beam search; 1 is the fastest.", examples=[1])
    ] = 5
    compute_type: Annotated[
        Literal["int8", "int8_float32", "int16", "float32", "bfloat16"],
        Field(description="Number format for computation; int8 is the fastest and takes the least memory."),
    ] = "int8"
    threads: Annotated[
        int | None, Field(ge=1, le=256, description="Number of threads. Default: one per core.", examples=[4])
    ] = None

    def weight_files(self) -> list[Path]:
        folder = model_path.folder_of_model(self.path, self.revision)
        return [] if folder is None else sorted(folder.glob("model.bin"))

    async def start(self, name: str, report: ReportLoading) -> Engine:
        return await self.started(name, "faster-whisper", report)


class MlxAudioTranscription(LocalTranscription):
    """Options of a model of mlx-audio."""

    backend: Annotated[
        Literal["mlx-audio"],
        Field(description="Transcription on MLX, in an environment installed by `localapi install mlx-audio`."),
    ]

    async def start(self, name: str, report: ReportLoading) -> Engine:
        return await self.started(name, "mlx-audio-stt", report)


def settings_of(options: TranscriptionOptions) -> dict[str, Any]:
    """Return the options that every entry of the section has."""
    return {name: getattr(options, name) for name in options.setting_names()}


BACKENDS: Final[Mapping[str, type[LocalTranscription]]] = {
    "faster-whisper": FasterWhisper,
    "mlx-audio": MlxAudioTranscription,
}


class AutoTranscription(TranscriptionOptions):
    """Entry whose backend is selected when the manifest is read, so locating the entry returns another one."""

    backend: Annotated[
        Literal["auto"],
        Field(description="Selected by the path: faster-whisper or mlx-audio; otherwise the installed one."),
    ]
    path: Annotated[str, model_field("Systran/faster-whisper-small")]
    revision: Revision = None
    vad: Vad = True
    install: Install = "manual"

    def located(self, folder_of: FolderOf) -> TranscriptionOptions:
        backend = chosen(self.path, folder_of("path"))
        common = {name: getattr(self, name) for name in ("path", "revision", "vad", "install")}
        return BACKENDS[backend](**{**settings_of(self), **common, "backend": backend}).located(folder_of)

    async def start(self, name: str, report: ReportLoading) -> Engine:
        raise NotImplementedError("a located entry is one of the chosen backend")


def chosen(path: str, folder: Path) -> str:
    """Return the backend for a folder or a repository."""
    place = model_path.placed(path, folder)
    cached = model_path.cached(path)
    for each in (place, cached):
        if each is not None and (each / "model.bin").is_file():
            return "faster-whisper"
    if (place / "config.json").is_file() or (cached_config(path) or {}).get("model_type"):
        return "mlx-audio"
    name = path.lower()
    if "faster-whisper" in name or "ct2" in name or name.startswith("systran/"):
        return "faster-whisper"
    if "mlx" in name:
        return "mlx-audio"
    usual = ("mlx-audio", "faster-whisper") if sys.platform == "darwin" else ("faster-whisper", "mlx-audio")
    installed = [backend for backend in usual if Environment.named(backend).ready]
    return (installed or usual)[0]
