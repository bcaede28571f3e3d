"""The backend auto for transcription: chosen by what is at the path, or else by what is installed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from localapi.backends import model_path
from localapi.backends.auto import cached_config
from localapi.backends.engine import Engine, ReportLoading
from localapi.backends.model_options import Revision
from localapi.backends.options import FolderOf
from localapi.backends.transcription import (
    FasterWhisper,
    LocalTranscription,
    MlxAudioTranscription,
    TranscriptionOptions,
    Vad,
    settings_of,
)
from localapi.environments import Environment

BACKENDS: Final[Mapping[str, type[LocalTranscription]]] = {
    "faster-whisper": FasterWhisper,
    "mlx-audio": MlxAudioTranscription,
}


class AutoTranscription(TranscriptionOptions):
    """Choice of a backend. It is made when the manifest is read, so locating the entry returns another one."""

    backend: Annotated[
        Literal["auto"],
        Field(description="Chosen by the path: faster-whisper or mlx-audio. If that does not tell: what is installed."),
    ]
    path: Annotated[
        str,
        Field(
            min_length=1,
            description="A folder, or a Hugging Face repository (owner/name).",
            examples=["Systran/faster-whisper-small"],
        ),
    ]
    revision: Revision = None
    vad: Vad = True
    install: Annotated[
        Literal["manual", "auto"],
        Field(
            description="If the backend's environment is missing: manual reports it, auto installs it at first load."
        ),
    ] = "manual"

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
