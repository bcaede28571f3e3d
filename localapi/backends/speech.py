"""Options that every entry of the section `speech` has, whatever its backend."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from localapi.audio.decoder import read_written
from localapi.backends.model_path import placed, shown_place
from localapi.backends.option_types import StrictModel
from localapi.backends.options import EntryOptions, FolderOf, Name, OptionPath, PathProblem, located_folder
from localapi.backends.parameters import MAX_SPEED, MIN_SPEED, SpeechParameters
from localapi.errors import shown
from localapi.system.data_url import NotWritten, is_data_url
from localapi.system.os_errors import advise
from localapi.text.lexicon import BadLexicon, read_lexicon
from localapi.text.writing_systems import scripts_of_language
from localapi.worker.protocol import Voice

Value = TypeVar("Value")


def folded(name: str) -> str:
    """Return a form of a name that is equal for equal names."""
    return unicodedata.normalize("NFC", name).casefold()


def named(values: Mapping[str, Value], name: str) -> Value | None:
    """Return the value for a name: an exact match, otherwise one that differs only in case."""
    if name in values:
        return values[name]
    wanted = folded(name)
    return next((value for key, value in values.items() if folded(key) == wanted), None)


ENGINE_OPTIONS: Final = frozenset({"ref_audio", "ref_text", "instruct_text", "source_audio"})
"""Request parameters besides voice and speed; a backend names those that it supports."""


class MappedVoice(StrictModel):
    """Meaning of a name in `voices`."""

    voice: Annotated[
        str | None, Field(min_length=1, description="Name of the voice in the engine.", examples=["en-us"])
    ] = None
    speed: Annotated[
        float | None,
        Field(ge=MIN_SPEED, le=MAX_SPEED, description="Default speed factor of this voice.", examples=[0.9]),
    ] = None
    ref_audio: Annotated[
        str | None, Field(min_length=1, description="Audio file with the voice to clone.", examples=["./me.wav"])
    ] = None
    ref_text: Annotated[str | None, Field(description="Transcript of ref_audio.", examples=["What I say in it."])] = (
        None
    )
    instruct_text: Annotated[
        str | None, Field(description="Instructions for the style of speaking.", examples=["Calm and slow."])
    ] = None


def _as_mapped(value: object) -> object:
    """Interpret a plain name as the voice in the engine."""
    return {"voice": value} if isinstance(value, str) else value


VoiceMap = dict[
    Name,
    Annotated[
        MappedVoice,
        BeforeValidator(_as_mapped),
        WithJsonSchema(
            {"anyOf": [{"type": "string", "minLength": 1}, MappedVoice.model_json_schema()]},
        ),
    ],
]


class SpeechSettings(StrictModel):
    """Settings of speech models, in addition to those of every model."""

    defaults: Annotated[
        SpeechParameters,
        Field(
            description="Request parameters that apply unless a request sets them.",
            examples=[{"voice": "alloy", "speed": 1.1}],
        ),
    ] = SpeechParameters()
    voices: Annotated[
        VoiceMap,
        Field(
            description="Voice names for requests, each with a voice of the engine, or with voice, speed, ref_audio, "
            "ref_text and instruct_text.",
            examples=[{"alloy": "en-us"}],
        ),
    ] = {}
    max_input_characters: Annotated[
        int, Field(ge=1, description="Maximum length of a request's text.", examples=[10000])
    ] = 4096
    language: Annotated[
        str | None,
        Field(
            min_length=2,
            description="Language of the texts (en, zh, ...), for texts whose script does not show it.",
            examples=["en"],
        ),
    ] = None
    speakable: Annotated[
        bool, Field(description="Read Markdown aloud without its markup; skip code blocks and emoji.")
    ] = False
    lexicon: Annotated[
        dict[Name, str], Field(description="Pronunciations of words: {GIF: jif}.", examples=[{"GIF": "jif"}])
    ] = {}
    lexicon_file: Annotated[
        str | None,
        Field(
            min_length=1,
            description="File with further pronunciations, one `word: as spoken` per line.",
            examples=["./words.txt"],
        ),
    ] = None
    sentence_silence_ms: Annotated[
        int, Field(ge=0, le=10_000, description="Silence between sentences, in milliseconds.", examples=[200])
    ] = 0
    unsupported: Annotated[
        Literal["error", "warn"],
        Field(
            description="If the engine does not support a parameter: refuse the request, or name it in a reply header."
        ),
    ] = "error"
    speech_cache_mb: Annotated[
        int,
        Field(
            ge=0,
            description="Size of the cache of generated speech, for repeated requests; 0: none.",
            examples=[64],
        ),
    ] = 0
    audio_folders: Annotated[
        list[str] | None,
        Field(
            description="Folders whose files requests may use as ref_audio and source_audio; [] for none. Default: the "
            "manifest's folder.",
            examples=[["./recordings"]],
        ),
    ] = None


class SpeechOptions(EntryOptions, SpeechSettings):
    """Options of an entry of the section `speech`."""

    section = "speech"
    has_speed: ClassVar[bool] = False
    """True if the engine changes its speed itself; otherwise the server changes the tempo."""
    takes: ClassVar[frozenset[str]] = frozenset()
    """Supported ENGINE_OPTIONS."""
    chooses_voices: ClassVar[bool] = False
    """True if the engine has voices for many languages; the text selects one unless a request names a voice."""
    gives_times: ClassVar[bool] = False
    """True if the engine reports the times of words."""
    forwards: ClassVar[bool] = False
    """True if the backend forwards a request as the client wrote it, and returns the sound as it arrives."""
    joins_sentences: ClassVar[bool] = False
    """True if short sentences should be joined: each call has a cost, and very short texts sound odd."""

    @property
    def phoneme_marks(self) -> tuple[str, str] | None:
        """Characters around IPA phonemes in a text; None if the engine does not speak phonemes."""
        return None

    @property
    def says_sentences_apart(self) -> bool:
        """True if each sentence is a separate call regardless of the request, so that it always sounds the same."""
        return not self.joins_sentences or self.sentence_silence_ms > 0

    def located(self, folder_of: FolderOf) -> SpeechOptions:
        return self.model_copy(update=self.located_settings(folder_of))

    def located_settings(self, folder_of: FolderOf) -> dict[str, Any]:
        """Return the settings that name files or folders, with absolute paths and the lexicon file's words."""
        self._refuse_what_nobody_takes()
        located: dict[str, Any] = {
            "voices": {name: _located_voice(name, voice, folder_of) for name, voice in self.voices.items()},
            "audio_folders": self._located_folders(folder_of),
            "defaults": self._located_defaults(folder_of),
        }
        if self.lexicon_file is not None:
            path = file_at("lexicon_file", self.lexicon_file, folder_of)
            try:
                said = read_lexicon(path)
            except BadLexicon as error:
                raise PathProblem("lexicon_file", str(error)) from error
            located |= {"lexicon_file": str(path), "lexicon": {**said.entries, **self.lexicon}}
        return located

    def _located_folders(self, folder_of: FolderOf) -> list[str]:
        if self.audio_folders is None:
            return [str(folder_of("audio_folders").resolve())]
        folders = enumerate(self.audio_folders)
        return [located_folder(("audio_folders", index), each, folder_of) for index, each in folders]

    def _refuse_what_nobody_takes(self) -> None:
        said: list[tuple[tuple[str, ...], BaseModel]] = [(("defaults",), self.defaults)]
        said += [(("voices", name), voice) for name, voice in self.voices.items()]
        for keys, values in said:
            for name in sorted(ENGINE_OPTIONS - self.takes):
                if getattr(values, name, None) is not None:
                    raise PathProblem((*keys, name), f"the backend {self.backend_name} does not support it")

    def _located_defaults(self, folder_of: FolderOf) -> SpeechParameters:
        named = {name: getattr(self.defaults, name) for name in ("ref_audio", "source_audio")}
        return self.defaults.model_copy(
            update={
                name: audio_at(("defaults", name), audio, folder_of)
                for name, audio in named.items()
                if audio is not None
            }
        )

    def files(self) -> tuple[Path, ...]:
        return () if self.lexicon_file is None else (Path(self.lexicon_file),)

    async def known_voices(self) -> list[Voice] | None:
        """Return the engine's voices without loading it; None if only the loaded model knows, or there is no choice.

        The manifest may map names to these voices, and to those for which `has_voice` is true.
        """
        return None

    def language_of(self, voice: str | None, known: Sequence[Voice]) -> str | None:
        """Return the language of a voice, or of the default voice; None if unknown."""
        if voice is not None:
            return next((each.language or None for each in known if folded(each.id) == folded(voice)), None)
        languages = {each.language for each in known}
        return next(iter(languages)) or None if len(languages) == 1 else None

    def reads(self, language: str) -> frozenset[str]:
        """Return the scripts that a voice of this language reads."""
        return scripts_of_language(language)

    def voice_for(self, language: str, like: str | None, known: Sequence[Voice]) -> str | None:
        """Return the best voice for a language, as similar as possible to the voice `like`; None if there is none."""
        return None

    def has_voice(self, voice: str) -> bool:
        """Return whether the engine has a voice that `known_voices` does not list because there would be thousands."""
        return False


def file_at(field: OptionPath, path: str, folder_of: FolderOf) -> Path:
    """Return the absolute path of a file that an option names. Raise PathProblem if there is no such file."""
    place = placed(path, folder_of(field))
    try:
        is_file, exists = place.is_file(), place.exists()
    except (OSError, ValueError) as error:  # too long, or inside a folder that may not be searched
        reason = advise(error) if isinstance(error, OSError) else error
        raise PathProblem(field, f"{shown(path)} cannot be looked up: {reason}") from error
    if not is_file:
        raise PathProblem(field, f"{shown_place(path, place)} {'is not a file' if exists else 'does not exist'}")
    return place


def audio_at(field: OptionPath, audio: str, folder_of: FolderOf) -> str:
    """Return a data: URL unchanged, or the absolute path of a file. Raise PathProblem if it is neither."""
    if is_data_url(audio):
        try:
            read_written(audio)
        except NotWritten as error:
            raise PathProblem(field, f"should be an audio file: {error}; found {shown(audio)}") from error
        return audio
    try:
        return str(file_at(field, audio, folder_of))
    except PathProblem as error:
        try:
            read_written(audio)
        except NotWritten:
            raise error from None
        found = f"found base64 {shown(audio)}"
        raise PathProblem(
            field, f"should be a file or a data: URL; {found}: prefix it with data:audio/wav;base64,"
        ) from None


def _located_voice(name: str, voice: MappedVoice, folder_of: FolderOf) -> MappedVoice:
    if voice.ref_audio is None:
        return voice
    return voice.model_copy(update={"ref_audio": audio_at(("voices", name, "ref_audio"), voice.ref_audio, folder_of)})


_OF_OUR_SOUND: Final = (
    *("speakable", "lexicon", "lexicon_file", "sentence_silence_ms", "speech_cache_mb", "language", "audio_folders"),
    "unsupported",
)
"""Options for the preparation of texts and sound by this server, which does not happen for another server."""


class ForwardedSpeech(SpeechOptions):
    """Options of speech models whose requests are forwarded."""

    forwards = True
    takes = frozenset({"instruct_text"})
    has_speed = True

    def located(self, folder_of: FolderOf) -> Self:
        for name in _OF_OUR_SOUND:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise PathProblem(
                    name, f"the backend {self.backend_name} does not support it: another server generates the audio"
                )
        settings = self.located_settings(folder_of)
        del settings["audio_folders"]
        return self.model_copy(update=settings)
