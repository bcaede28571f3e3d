"""The body of `POST /v1/audio/speech`: OpenAI's fields, those that other speech servers have, and what applies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from localapi.api.openai.generation_request import MAX_NAME, NO_EFFECT
from localapi.backends.parameters import MAX_VOICE, ResponseFormat, SpeechParameters
from localapi.backends.speech import ENGINE_OPTIONS, MappedVoice, SpeechSettings
from localapi.backends.voice_names import folded, named
from localapi.errors import InvalidRequest
from localapi.http import body
from localapi.worker.protocol import Voice

OPENAI_VOICES: Final = frozenset(
    {
        *("alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer"),
        "verse",
    }
)
"""Names that clients send if their user chose nothing. They mean the default unless such a voice exists."""

_TAG: Final = re.compile(r"[A-Za-z]{2,3}([_-][A-Za-z0-9]{1,8})*")
"""A language as BCP 47 writes it."""
EMPTY_IS_UNSAID: Final = frozenset({*ENGINE_OPTIONS, "instructions", "voice"})
"""Fields that clients send empty if their user wrote nothing."""


def _voice_name(value: object) -> object:
    """OpenAI's `{"id": name}` is that name."""
    return value["id"] if isinstance(value, dict) and set(value) == {"id"} else value


class SpeechRequest(SpeechParameters):
    """The body. Unknown fields are kept in `model_extra`, for the reply to name."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, defer_build=True)

    model: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    input: str
    voice: Annotated[Annotated[str, Field(min_length=1, max_length=MAX_VOICE)] | None, BeforeValidator(_voice_name)] = (
        None
    )
    instructions: str | None = None
    """OpenAI's name of instruct_text."""
    format: ResponseFormat | None = None
    """The older name of response_format."""
    stream_format: Literal["audio", "sse"] = "audio"
    stream: bool | None = None
    """False: the reply has a length, and is sent when all is said."""
    language: str | None = None
    """Language of the text, as a BCP 47 tag; "auto" and "" count as left out."""
    timestamps: Literal["sentence", "word"] | None = None
    """Unit of the times to report: in the reply's JSON, or as events."""


def parse_speech(content: dict[str, Any]) -> tuple[SpeechRequest, list[str]]:
    """Return the request and the names of its fields that have no effect. Raise InvalidRequest."""
    request = body.parse(
        SpeechRequest,
        {
            key: value
            for key, value in content.items()
            if key not in NO_EFFECT
            and not (value == "" and key in EMPTY_IS_UNSAID)
            and not (key == "language" and isinstance(value, str) and value.strip().lower() in ("", "auto"))
        },
    )
    for name, older in (("response_format", "format"), ("instruct_text", "instructions")):
        both = {getattr(request, name), getattr(request, older)} - {None}
        if len(both) > 1:
            raise InvalidRequest(f"'{older}' and '{name}' mean the same and differ here. Send one.", param=older)
    ignored = sorted(request.model_extra or ())
    if request.language is not None and not _TAG.fullmatch(request.language):
        return request.model_copy(update={"language": None}), [*ignored, "language"]
    return request, ignored


def is_placeholder(voice: str, settings: SpeechSettings, known: Sequence[Voice] | None = None) -> bool:
    """Return whether a name is one of OpenAI's that neither the manifest nor the engine has."""
    if folded(voice) not in OPENAI_VOICES or named(settings.voices, voice) is not None:
        return False
    return folded(voice) not in {folded(each.id) for each in known or ()}


def meant_voice(voice: str, settings: SpeechSettings, known: Sequence[Voice] | None = None) -> MappedVoice:
    """Return what a name stands for: what the manifest says, the default, or the engine's voice of that name."""
    mapped = named(settings.voices, voice)
    if mapped is None and is_placeholder(voice, settings, known):
        default = settings.defaults.voice
        if default is None:
            return MappedVoice()
        mapped, voice = named(settings.voices, default), default
    return MappedVoice(voice=voice) if mapped is None else mapped


def settled(
    request: SpeechRequest, settings: SpeechSettings, known: Sequence[Voice] | None = None
) -> tuple[SpeechParameters, frozenset[str]]:
    """Merge the request over the mapped voice that it names, and that over the entry's defaults.

    `known` are the engine's voices: one of OpenAI's names may be one of them.

    In the result `voice` is the engine's name, or None for its default. Also return the names of the parameters that
    come from the request or from the voice it chose.
    """
    said = request.model_dump(include=set(SpeechParameters.model_fields), exclude_none=True)
    if request.format is not None:
        said["response_format"] = request.format
    if request.instructions is not None:
        said["instruct_text"] = request.instructions
    defaults = settings.defaults.model_dump(exclude_none=True)
    voice = said.pop("voice", None) or defaults.pop("voice", None)
    chosen = MappedVoice() if voice is None else meant_voice(voice, settings, known)
    own = chosen.model_dump(exclude_none=True)
    if "ref_audio" in own:
        defaults.pop("ref_text", None)  # what another recording says
    values = {**defaults, **own}
    if "ref_audio" in said:
        values.pop("ref_text", None)
    values |= said
    return SpeechParameters.model_validate(values), frozenset(said)
