"""Load a speech model from an entry's path, or raise one clear error.

This module knows files and how mlx-audio and mlx-audio-plus, which install the same module, load models, but no
requests.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import mlx.core as mx
from mlx_audio.tts.utils import get_available_models, load_model  # type: ignore[import-not-found]

from localapi.worker.hub.repository import DATA_FILES, anew, located
from localapi.worker.model import CannotLoad, Report, first_line, read_object
from localapi.worker.own_code import refuse_own_code
from localapi.worker.protocol import Loading, Voice

VOICES = {".json", ".npy", ".npz", ".pt", ".safetensors", ".wav"}
"""Suffixes of files in a model's folder `voices` that contain one voice each."""

ARCHITECTURES = "mlx_audio.tts.models"
CONVERTER = f"{ARCHITECTURES}.cosyvoice2.scripts.convert"
"""It imports torch, which the environment lacks, to convert weights, which is never done here."""


@dataclass(frozen=True)
class SpeechModel:
    """A model that the package has loaded."""

    folder: Path
    model: Any
    architecture: str
    """Its name in the package: "soprano"."""
    sample_rate_hz: int
    voices: list[Voice] | None
    """Voices; None if the folder has none."""


def load_speech_model(package: str, path: str, revision: str | None, report: Report) -> SpeechModel:
    """Return the model in this folder or repository, with its weights in memory. Raise CannotLoad."""
    folder = located(path, revision, report, patterns=(*DATA_FILES, "*.wav"))
    config = read_object(folder / "config.json")
    total = sum(check_weights(folder, path))
    report(Loading("reading weights", 0, total))
    leave_out_converter()
    refuse_own_code()
    try:
        model = load_model(folder)
    except (Exception, SystemExit) as error:  # from the package, the architecture or MLX
        raise CannotLoad(_why(error, package, folder, config)) from error
    report(Loading("reading weights", total, total))
    architecture = type(model).__module__.removeprefix(f"{ARCHITECTURES}.").partition(".")[0]
    names = {file.stem for file in folder.glob("voices/*") if file.suffix in VOICES}
    voices = [Voice(name) for name in sorted(names)]
    return SpeechModel(folder, model, architecture, _sample_rate_hz(model), voices or None)


def leave_out_converter() -> None:
    """Put an empty module in place of CONVERTER."""
    stand_in = ModuleType(CONVERTER)
    stand_in.convert_from_source = None  # type: ignore[attr-defined]
    sys.modules.setdefault(CONVERTER, stand_in)


def check_weights(folder: Path, path: str) -> Iterator[int]:
    """Yield the size of each weights file in bytes, after checking that it is complete. Raise CannotLoad."""
    for file in sorted(folder.rglob("*.safetensors")):
        try:
            mx.load(str(file))  # reads the header, and checks it against the size; its error names no file
        except RuntimeError as error:
            raise CannotLoad(f"{file} is damaged: {first_line(error)}. {anew(file, path)}.") from error
        yield file.stat().st_size


def _why(error: BaseException, package: str, folder: Path, config: dict[str, Any]) -> str:
    """Return the message for the user. The first ImportError is the cause of a "not supported"."""
    known = f"{package} {importlib.metadata.version(package)}"
    kind = config.get("model_type") or config.get("architecture")
    missing = None
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ImportError):
            missing = cause
        cause = cause.__cause__ or cause.__context__
    if missing is not None and str(missing.name).startswith(f"{ARCHITECTURES}."):
        return (
            f"{folder / 'config.json'} has model_type {kind!r}, which {known} does not know. It knows: "
            f"{', '.join(sorted(get_available_models()))}. Is it a model for the other of mlx-audio and "
            "mlx-audio-plus?"
        )
    if missing is not None:
        return (
            f"The architecture of the model in {folder} ({kind or folder.name}) cannot be imported from {known} here: "
            f"{first_line(missing)}. Use a model of another architecture, or the other of mlx-audio and "
            "mlx-audio-plus."
        )
    if "safetensors" in str(error) and not any(folder.rglob("*.safetensors")):
        found = ", ".join(sorted(place.name for place in folder.iterdir())[:8])
        return f"{folder} has no weights (*.safetensors); found: {found}. Was the download interrupted?"
    return (
        f"{known} cannot load the model in {folder}: {first_line(error)}. Are config.json and the weights of the same "
        "model?"
    )


def _sample_rate_hz(model: Any) -> int:
    for place in (model, getattr(model, "config", None)):
        rate = getattr(place, "sample_rate", None)
        if isinstance(rate, int):
            return rate
    return 24_000
