"""Check and resolve a request for speech against one state of its entry, before an engine is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Any, Final

from localapi.api.speech.known_voices import engine_voices, found_voice
from localapi.api.speech.neutral_speech import NeutralSpeech, is_placeholder, meant_voice
from localapi.api.speech.reference_audio import manifest_audio, requested_audio
from localapi.api.speech.voice_choice import Cast, Casting, Line
from localapi.audio.formats import FORMATS, Format
from localapi.backends.engine import Engine
from localapi.backends.parameters import SpeechParameters
from localapi.backends.speech import ENGINE_OPTIONS, SpeechOptions, SpeechSettings, named
from localapi.errors import InvalidRequest
from localapi.kinds.speech import speech_options
from localapi.manifest import Entry
from localapi.text.script import script_of
from localapi.text.writing_systems import weight
from localapi.worker.protocol import Voice

PART_WEIGHT: Final = 2000
"""Letters that an engine is asked to speak at once; minutes of speech, some megabytes."""


@dataclass(frozen=True)
class Prepared:
    """Request, resolved against one state of its entry."""

    entry: Entry
    settings: SpeechSettings
    said: SpeechParameters
    cast: Cast
    known: list[Voice] | None
    """The engine's voices; None if only the loaded model knows them."""
    options: dict[str, Any]
    """Further fields for the engine besides text, voice and speed."""
    unsupported: list[str]
    """Parameters that the engine does not support, if the manifest says `unsupported: warn`."""

    @property
    def format(self) -> Format:
        return FORMATS[self.said.response_format or "mp3"]

    def parts(self) -> Iterator[list[Line]]:
        """Yield consecutive lines of one voice and speed, in parts of about PART_WEIGHT.

        All lines are one part if a recording is converted, so that it is converted once.
        """
        has_speed = speech_options(self.entry.options).has_speed
        part: list[Line] = []
        for line in self.cast.lines:
            is_long = sum(weight(each.text) for each in part) >= PART_WEIGHT
            is_other = part and (line.voice != part[0].voice or (has_speed and line.speed != part[0].speed))
            if (is_long or is_other) and "source_audio" not in self.options:
                yield part
                part = []
            part.append(line)
        yield part


def check_length(text: str, settings: SpeechSettings) -> None:
    """Raise InvalidRequest if the text is longer than the entry allows."""
    if len(text) > settings.max_input_characters:
        too_long = (
            f"The text has {len(text)} characters; this model accepts {settings.max_input_characters} at once "
            "(max_input_characters in the manifest). Send it in parts."
        )
        raise InvalidRequest(too_long, param="input", code="string_above_max_length", loggable=too_long)


async def prepared_speech(request: NeutralSpeech, entry: Entry, engine: Engine | None) -> Prepared:
    """Check and prepare everything that needs no lease of the model. Raise InvalidRequest."""
    settings, text = speech_options(entry.options), request.input
    check_length(text, settings)
    script = await asyncio.to_thread(
        script_of,
        text,
        markdown=settings.speakable,
        lexicon=settings.lexicon,
        language=request.language or settings.language,
        apart=speech_options(entry.options).says_sentences_apart,
        phonemes=speech_options(entry.options).phoneme_marks,
    )
    if not script.segments:
        raise InvalidRequest("The text contains nothing that can be spoken.", param="input")
    known = await engine_voices(entry, engine)
    said, by_request = request.settled(settings, known)
    options = speech_options(entry.options)
    unsupported = _unsupported(request, options, by_request, settings)
    voice = found_voice(entry, known, request.said.voice, said.voice)
    casting = Casting(
        options,
        known or (),
        voice,
        is_named=request.said.voice is not None and not is_placeholder(request.said.voice, settings, known),
        speed=said.speed or 1.0,
        language=request.language or (settings.language if voice is None and not hasattr(options, "voice") else None),
        named=lambda name: _named_in_text(name, entry, known),
    )
    cast = await asyncio.to_thread(casting.cast, script)
    told = {name: value for name in options.takes if (value := getattr(said, name)) is not None}
    for name in {"ref_audio", "source_audio"} & set(told):
        if name in by_request:
            told[name] = await requested_audio(told[name], name, settings.audio_folders or ())
        else:
            told[name] = await manifest_audio(told[name], name)
    if settings.unsupported == "warn":
        told["unsupported"] = "warn"
    return Prepared(entry, settings, said, cast, known, told, unsupported)


def _named_in_text(name: str, entry: Entry, known: list[Voice] | None) -> str | None:
    """Return the engine's voice for a name in the text.

    Raise LookupError if there is none, or if it needs a reference recording.
    """
    settings = speech_options(entry.options)
    mapped = meant_voice(name, settings, known)
    if mapped.ref_audio is not None or (known is None and named(settings.voices, name) is None):
        raise LookupError(name)
    try:
        return found_voice(entry, known, None, mapped.voice)
    except InvalidRequest as error:
        raise LookupError(name) from error


def _unsupported(request: NeutralSpeech, options: SpeechOptions, said: Set[str], settings: SpeechSettings) -> list[str]:
    """Return the names of the parameters that the engine does not support.

    Raise InvalidRequest if there are any and the manifest says `unsupported: error`.
    """
    found = [request.names.get(name, [name])[0] for name in sorted((ENGINE_OPTIONS & said) - options.takes)]
    if request.timestamps == "word" and not options.gives_times:
        found.append("timestamps")
    if found and settings.unsupported == "error":
        name = found[0]
        also = ' for words (it can for sentences: "timestamps": "sentence")' if name == "timestamps" else ""
        raise InvalidRequest(
            f"The backend {options.backend_name} does not support '{name}'{also}. Remove it, or set "
            "`unsupported: warn` for this model in the manifest.",
            param=name, code="unsupported_parameter",
        )  # fmt: skip
    return found
