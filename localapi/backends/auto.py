"""The backend auto: selects a backend by the path, or the system's voice without a path.

The selection reads only files: the model's config.json, from its folder or from the Hugging Face cache.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from localapi.backends import model_path
from localapi.backends.engine import Engine, ReportLoading
from localapi.backends.espeak_ng import EspeakNg
from localapi.backends.macos_say import MacosSay
from localapi.backends.mlx_audio import MlxAudio, MlxAudioPlus
from localapi.backends.options import FolderOf, PathProblem
from localapi.backends.piper import Piper
from localapi.backends.speech import SpeechOptions
from localapi.system.os_errors import advise

Choice = tuple[str, Callable[..., SpeechOptions]]

UPSTREAM_ONLY: Final = frozenset({
    "arktts", "audiodit", "bailingmm", "breeze", "breeze_tts", "chatterbox", "confucius4", "dense", "dramabox",
    "echo_tts", "fish_drama3", "fish_qwen3_omni", "gradium_phonon_tts", "higgs_audio", "higgs_audio_v3",
    "higgs_multimodal_qwen3", "irodori_tts", "kitten", "kitten_tts", "kokoro", "kugelaudio", "lingv3_tts",
    "longcat", "longcat_audiodit", "melotts", "moss_tts", "moss_tts_delay", "moss_tts_local", "moss_tts_nano",
    "omnivoice", "pocket_tts", "qwen3_tts", "rumik_oss", "spark", "tada", "voxcpm2", "voxtral_tts", "zonos2",
})  # fmt: skip
"""Architectures of mlx-audio 0.6.2 that mlx-audio-plus 0.1.8 lacks, or cannot import in its environment."""

SPEECH: Final = UPSTREAM_ONLY | frozenset({
    "bark", "chatterbox_turbo", "cosyvoice2", "cosyvoice3", "csm", "dia", "indextts", "marvis", "outetts", "sesame",
    "soprano", "vibevoice", "vibevoice_streaming", "voxcpm", "voxcpm1.5",
})  # fmt: skip
"""Speech architectures of either package, except those that share their name with a chat model."""


class Auto(SpeechOptions):
    """Entry whose backend is selected by what its path holds.

    The selection happens when the manifest is read: locating the entry returns an entry of another backend.
    """

    backend: Annotated[
        Literal["auto"],
        Field(
            description="Selected by the path: piper, mlx-audio or mlx-audio-plus; without a path, the system's voice."
        ),
    ]
    path: Annotated[
        str | None,
        Field(
            min_length=1,
            description="A Piper voice, a folder or a Hugging Face repository.",
            examples=["./voices/amy.onnx"],
        ),
    ] = None

    def located(self, folder_of: FolderOf) -> SpeechOptions:
        settings = {name: getattr(self, name) for name in self.setting_names()}
        backend, options = _choose(self.path, folder_of("path"))
        path = {} if self.path is None else {"path": self.path}
        return options(backend=backend, **path, **settings).located(folder_of)

    async def start(self, name: str, report: ReportLoading) -> Engine:
        raise NotImplementedError("a located entry is one of the chosen backend")


def _choose(path: str | None, folder: Path) -> Choice:
    """Return the backend for the files at a path. Raise PathProblem if there is no model."""
    if path is None:
        return ("macos-say", MacosSay) if sys.platform == "darwin" else ("espeak-ng", EspeakNg)
    place = model_path.placed(path, folder)
    try:
        return _of_place(path, place)
    except OSError as error:
        name = model_path.shown_place(path, place)
        raise PathProblem("path", f"{name} cannot be read: {advise(error)}") from error


def _of_place(path: str, place: Path) -> Choice:
    if path.endswith(".onnx"):
        return "piper", Piper
    if not place.is_dir():
        if place.exists():
            raise PathProblem(
                "path", f"{model_path.shown_place(path, place)} is neither a Piper voice (.onnx) nor a folder"
            )
        return by_kind(architecture(cached_config(path) or {}, path))
    if (place / "config.json").is_file():
        return by_kind(architecture(_config(place / "config.json"), place.name))
    if any(place.glob("*.onnx")):
        return "piper", Piper
    found = ", ".join(sorted(each.name for each in place.iterdir())[:8]) or "an empty folder"
    raise PathProblem(
        "path", f"{place} holds neither an MLX model (config.json) nor a Piper voice (.onnx); found: {found}"
    )


def by_kind(kind: str) -> Choice:
    """Return the backend for an architecture."""
    return ("mlx-audio", MlxAudio) if kind in UPSTREAM_ONLY else ("mlx-audio-plus", MlxAudioPlus)


def architecture(config: dict[str, Any], name: str) -> str:
    """Return the architecture from config.json, otherwise from a part of the name, as both packages do."""
    said = config.get("model_type") or config.get("architecture")
    if said == "llama" and "acoustic_dim" in config:
        return "tada"
    if isinstance(said, str):
        return said.lower()
    parts = name.lower().rpartition("/")[2].split("-")
    return next((part for part in parts if part in UPSTREAM_ONLY), "")


def _config(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise PathProblem("path", f"{file} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise PathProblem("path", f"{file} is not a JSON object")
    return content


def cached_config(repository: str) -> dict[str, Any] | None:
    """Return a repository's config.json from the cache, or None if it is not there."""
    folder = model_path.cached(repository)
    try:
        return None if folder is None else _config(folder / "config.json")
    except PathProblem:
        return None
