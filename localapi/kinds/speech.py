"""Speech models: text to speech."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

from msgspec import UNSET, Meta, UnsetType

from localapi.backends.auto import Auto
from localapi.backends.command import CommandSpeech
from localapi.backends.echo import EchoSpeech
from localapi.backends.espeak_ng import EspeakNg
from localapi.backends.macos_say import MacosSay
from localapi.backends.mlx_audio import MlxAudio, MlxAudioPlus
from localapi.backends.openai import OpenAISpeech
from localapi.backends.options import EntryOptions
from localapi.backends.parameters import SpeechParameters
from localapi.backends.piper import Piper
from localapi.backends.pool import SpeechPool
from localapi.backends.recognition import speech_backend
from localapi.backends.speech import MappedVoice, SpeechOptions
from localapi.kinds.kind import Kind, ModelObject, Variables, by_name
from localapi.observability.counters import FIRST_SECONDS, Metric
from localapi.worker.protocol import Loaded

CHARACTERS: Final = Metric("speech_characters", "Characters of spoken texts.")
SECONDS: Final = Metric("speech_seconds", "Seconds of generated audio.")
TIME_TO_FIRST_SOUND: Final = Metric(
    "time_to_first_sound_seconds", "Time from the start of the work to the first audio.", FIRST_SECONDS
)


def speech_options(options: EntryOptions) -> SpeechOptions:
    """Return the options of an entry that is known to be in this section."""
    assert isinstance(options, SpeechOptions)  # noqa: S101
    return options


class SpeechModel(ModelObject, kw_only=True):
    """A speech model."""

    voices: Annotated[list[str], Meta(description="Voice names that the manifest maps.")] = []  # noqa: RUF012
    takes: Annotated[
        list[str], Meta(description="Request fields that it supports besides voice, speed, format and timestamps.")
    ] = []  # noqa: RUF012
    max_input_characters: Annotated[int, Meta(description="Maximum length of a text.")] = 0
    name: Annotated[str | UnsetType, Meta(description="The id; only in the list of speech models.")] = UNSET

    def describe(self, options: EntryOptions, loaded: Loaded | None) -> None:
        """Fill in voices and fields; the supported fields may be known only once the model is loaded."""
        speech = speech_options(options)
        taken = set(speech.takes)
        if loaded is not None and loaded.takes is not None:
            taken &= set(loaded.takes)
        if "instruct_text" in taken:
            taken.add("instructions")
        self.voices = sorted(speech.voices)
        self.takes = sorted(taken)
        self.max_input_characters = speech.max_input_characters

    def as_options(self) -> dict[str, Any]:
        return {"max_input_characters": self.max_input_characters} if self.max_input_characters else {}


def recognize_place(place: Path) -> str | None:
    """Recognize a Piper voice, or a folder of them."""
    if place.suffix == ".onnx" or (place.is_dir() and any(place.glob("*.onnx"))):
        return "piper"
    return None


SPEECH: Final = Kind(
    name="speech",
    description="Speech models by id.",
    options=SpeechOptions,
    backends=by_name(
        EchoSpeech, Auto, MacosSay, EspeakNg, Piper, MlxAudio, MlxAudioPlus, OpenAISpeech, CommandSpeech, SpeechPool
    ),
    usual_backend="auto",
    variables=Variables(
        entry_id="local-audio",
        names=("AUDIO_MODEL_ID",),
        options={"backend": ("AUDIO_BACKEND",), "path": ("AUDIO_MODEL_PATH",)},
        defaults={
            "ref_audio": ("AUDIO_REF_AUDIO",),
            "ref_text": ("AUDIO_REF_TEXT",),
            "instruct_text": ("AUDIO_INSTRUCT_TEXT",),
            "source_audio": ("AUDIO_SOURCE_AUDIO",),
        },
        backend="auto",
    ),
    nested={MappedVoice: "speech.ID.voices.NAME", SpeechParameters: "speech.ID.defaults"},
    endpoints=("localapi.api.openai.speech", "localapi.api.openai.voices"),
    metrics=(CHARACTERS, SECONDS, TIME_TO_FIRST_SOUND),
    output=("audio",),
    model=SpeechModel,
    recognize=speech_backend,
    recognize_place=recognize_place,
)
