"""Transcription on MLX with mlx-audio. Everything is done on the main thread, where MLX's arrays are computed."""

from __future__ import annotations

from typing import Any, Final

import mlx.core as mx
from mlx_audio.stt.utils import load_model  # type: ignore[import-not-found]

from localapi.worker.hub.repository import located
from localapi.worker.model import CannotLoad, Host, first_line
from localapi.worker.protocol import Loaded, Loading, Transcribe
from localapi.worker.stt.pieces import Piece
from localapi.worker.stt.results import arguments_of, segments_of
from localapi.worker.stt.transcribing import Recognized, Transcribing, samples

PATTERNS: Final = ("*.json", "*.jsonl", "*.safetensors", "*.npz", "*.model", "*.tiktoken", "*.txt", "*.jinja", "*.yaml")
"""Files that are downloaded from a repository: neither code nor pickles, which would be executed."""


def load(options: dict[str, Any], host: Host) -> MlxAudioTranscription:
    """Return the model of an entry's options. Raise CannotLoad."""
    folder = located(options["path"], options.get("revision"), host.report, patterns=PATTERNS)
    host.report(Loading(phase="reading weights"))
    try:
        model = load_model(folder)
    except (Exception, SystemExit) as error:  # from the package, the architecture or MLX
        raise CannotLoad(f"mlx-audio cannot load the model in {folder}: {first_line(error)}.") from error
    return MlxAudioTranscription(model, options)


class MlxAudioTranscription(Transcribing):
    """One loaded model. See `worker.model.Model`."""

    def __init__(self, model: Any, options: dict[str, Any]) -> None:
        super().__init__(options)
        self._model = model
        self.loaded = Loaded(batched=False)

    def _recognized(self, piece: Piece, request: Transcribe, language: str | None) -> Recognized:
        arguments = arguments_of(self._model.generate, request, language)
        result = self._model.generate(mx.array(samples(piece)), **arguments)
        found = getattr(result, "language", None)
        mx.clear_cache()  # MLX keeps freed memory
        return Recognized(segments_of(result, piece.seconds), found if isinstance(found, str) and found else None)
