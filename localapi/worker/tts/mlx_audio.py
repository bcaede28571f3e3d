"""Speech on MLX with mlx-audio or mlx-audio-plus, whichever is in this environment.

Audio of a model that streams is sent while it generates a segment. Everything runs on the main thread, because MLX's
arrays are lazy and computed where they are read.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any

import mlx.core as mx
import numpy as np

from localapi.audio import repeats
from localapi.audio.levels import to_pcm16
from localapi.worker.model import Host
from localapi.worker.protocol import Loaded, Sound, Speak
from localapi.worker.tts.generate_arguments import Arguments
from localapi.worker.tts.speech_model import SpeechModel, load_speech_model
from localapi.worker.turns import Pieces, RequestRefused, Speaking, Turn

ALWAYS = ("lang_code", "temperature", "max_tokens")
"""Options of the entry that are arguments of every call."""


def load(options: dict[str, Any], host: Host) -> MlxAudio:
    """Return the model of an entry's options. `package` is the installed one of the two. Raise CannotLoad."""
    model = load_speech_model(options["package"], options["path"], options.get("revision"), host.report)
    return MlxAudio(model, options)


class MlxAudio(Speaking):
    """One model of mlx-audio. See `worker.model.Model`."""

    def __init__(self, speech: SpeechModel, options: dict[str, Any]) -> None:
        super().__init__()
        self._model = speech.model
        self._sample_rate_hz = speech.sample_rate_hz
        self._arguments = Arguments(speech.model.generate, speech.architecture, speech.sample_rate_hz)
        self._streams = self._arguments.takes("stream")
        self._trims = bool(options.get("trim_repeated_prefix"))
        wanted = {name: options[name] for name in ALWAYS if options.get(name) is not None}
        self._always = {name: value for name, value in wanted.items() if self._arguments.takes(name)}
        voices = speech.voices if self._arguments.takes("voice") else None
        notes = [f"{name} has no effect on {speech.architecture}" for name in wanted.keys() - self._always.keys()]
        if self._arguments.needs_reference:
            notes.append(f"{speech.architecture} copies the voice of a recording: ref_audio, or a voice with one")
        self.loaded = Loaded(notes=sorted(notes), batched=False, voices=voices, takes=self._arguments.taken)

    def _end(self, turn: Turn) -> None:
        super()._end(turn)
        mx.clear_cache()  # MLX keeps freed memory: gigabytes after long texts

    def _say(self, request: Speak, notes: list[str]) -> Pieces:
        asked = self._arguments.of(request)
        notes += asked.notes
        arguments = {**asked.arguments, **self._always}
        segments = [" ".join(request.segments)] if asked.whole else request.segments
        for segment, text in enumerate(segments):
            trims = self._trims and segment == 0
            try:
                with closing(self._results(text, arguments, stream=self._streams and not trims)) as results:
                    for pcm, sample_rate_hz in _trimmed(results) if trims else results:
                        yield Sound(request.id, segment, pcm, sample_rate_hz)
            except (AssertionError, LookupError, OSError, TypeError, ValueError) as error:
                raise _blamed(error, request) from error
            yield None

    def _results(self, text: str, arguments: dict[str, Any], *, stream: bool) -> Generator[tuple[bytes, int]]:
        """Yield the model's audio as PCM, with its rate in Hz."""
        if stream:
            arguments = {**arguments, "stream": True}
        results = iter(self._model.generate(text, **arguments))
        try:
            first = next(results, None)
        except (NotImplementedError, ValueError):
            if not stream:
                raise
            # Some architectures have the argument only to reject it.
            del arguments["stream"]
            for piece in self._results(text, arguments, stream=False):
                self._streams = False
                yield piece
            return
        while first is not None:
            pcm = _pcm(first.audio)
            if pcm:
                yield pcm, int(getattr(first, "sample_rate", None) or self._sample_rate_hz)
            first = next(results, None)


def _pcm(audio: Any) -> bytes:
    """Return computed audio as PCM. Several channels are mixed to one."""
    if audio is None:
        return b""
    sound = np.array(audio.astype(mx.float32)) if isinstance(audio, mx.array) else np.asarray(audio)
    sound = sound.squeeze()
    if sound.ndim > 1:
        sound = sound.mean(axis=int(np.argmin(sound.shape)))
    return to_pcm16(sound)


def _trimmed(results: Iterator[tuple[bytes, int]]) -> Iterator[tuple[bytes, int]]:
    """Yield the whole segment without the repetition of its first phrase."""
    pieces = list(results)
    if pieces:
        rate = pieces[0][1]
        yield repeats.trim(b"".join(pcm for pcm, _ in pieces), rate), rate


def _blamed(error: Exception, request: Speak) -> Exception:
    """Return the error as a fault of the request if it mentions one of its fields, or a missing recording."""
    said = " ".join(str(error).split())
    words = said.lower().replace("_", " ")
    given = list(request.options)
    if request.voice is not None:
        given.append("voice")
    for param, phrase in (("ref_audio", "ref audio"), ("ref_audio", "reference audio"), ("ref_text", "ref text")):
        if phrase in words and param not in given:
            return RequestRefused(param, f"The model refused '{param}' (missing): {said[:300]}")
    for param in given:
        if param.replace("_", " ") in words:
            return RequestRefused(param, f"The model refused '{param}': {said[:300]}")
    return error
