"""Transcription on MLX with mlx-audio. Everything runs on the main thread, where MLX's arrays are computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
from mlx_audio.stt.utils import load_model  # type: ignore[import-not-found]

from localapi.worker.hub.repository import DATA_FILES, located
from localapi.worker.model import CannotLoad, Host, first_line
from localapi.worker.own_code import refuse_own_code
from localapi.worker.protocol import Loaded, Loading, Transcribe
from localapi.worker.stt.pieces import Piece
from localapi.worker.stt.results import arguments_of, found_language, languages_of, segments_of
from localapi.worker.stt.transcribing import Recognized, Transcribing, samples
from localapi.worker.turns import RequestRefused


def load(options: dict[str, Any], host: Host) -> MlxAudioTranscription:
    """Return the model of an entry's options. Raise CannotLoad."""
    folder = located(options["path"], options.get("revision"), host.report, patterns=DATA_FILES)
    host.report(Loading(phase="reading weights"))
    refuse_own_code()
    try:
        model = load_model(folder)
        languages = languages_of(model)
    except (Exception, SystemExit) as error:  # from the package, the architecture or MLX
        raise CannotLoad(f"mlx-audio cannot load the model in {folder}: {first_line(error)}.") from error
    return MlxAudioTranscription(model, languages, options)


class MlxAudioTranscription(Transcribing):
    """One loaded model. See `worker.model.Model`."""

    def __init__(self, model: Any, languages: Mapping[str, str], options: dict[str, Any]) -> None:
        super().__init__(options, languages)
        self._model = model
        self._languages = languages
        self.loaded = Loaded(batched=False)

    def _recognized(self, piece: Piece, request: Transcribe, language: str | None) -> Recognized:
        called = None if language is None else self._languages.get(language, language)
        arguments = arguments_of(self._model.generate, request, called)
        result = self._model.generate(mx.array(samples(piece)), **arguments)
        mx.clear_cache()  # MLX keeps freed memory
        segments = segments_of(result, piece.seconds)
        if request.words and any(each.text.strip() for each in segments) and not any(each.words for each in segments):
            raise RequestRefused(
                "timestamp_granularities",
                "This model does not report when words are spoken. Send timestamp_granularities without 'word'.",
            )
        return Recognized(segments, found_language(result))
