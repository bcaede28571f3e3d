"""Request for speech in the form that every dialect produces: the text, and the parameters that the client set.

A parameter is None until the client, the voice that it names, or the manifest sets it; otherwise the engine decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final, Literal

from localapi.api.neutral_request import in_words_of_client
from localapi.backends.parameters import SpeechParameters
from localapi.backends.speech import MappedVoice, SpeechSettings, folded, named
from localapi.worker.protocol import Voice

OPENAI_VOICES: Final = frozenset(
    {
        *("alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer"),
        "verse",
    }
)
"""Names that clients send if their user chose no voice. They mean the default unless such a voice exists."""


@dataclass(frozen=True, kw_only=True)
class NeutralSpeech:
    """Request for speech, parsed by a dialect from a body."""

    model: str
    input: str
    """Text to say."""
    said: SpeechParameters = field(default_factory=SpeechParameters)
    """Parameters that the client set."""
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Client's names for parameters and for `input` and `timestamps`, if they differ from ours."""
    language: str | None = None
    """Language of the text, as a BCP 47 tag."""
    timestamps: Literal["sentence", "word"] | None = None
    """Unit of the times to report."""
    stream: bool | None = None
    """False: the file is sent once complete, with its length. None: so only if it is short and its format contains a
    length."""
    ignored: Sequence[str] = ()
    """Fields of the body that have no effect."""

    def in_words_of_client(self) -> AbstractContextManager[None]:
        """Let an error of the request name its parameter as the client does."""
        return in_words_of_client(self.names)

    def settled(
        self, settings: SpeechSettings, known: Sequence[Voice] | None = None
    ) -> tuple[SpeechParameters, frozenset[str]]:
        """Merge the request over the mapped voice that it names, and that over the entry's defaults.

        `known` are the engine's voices: one of OpenAI's names may be among them.

        In the result, `voice` is the engine's name, or None for its default. Also return the names of the parameters
        that come from the request or from the voice it chose.
        """
        said = self.said.model_dump(exclude_none=True)
        defaults = settings.defaults.model_dump(exclude_none=True)
        voice = said.pop("voice", None) or defaults.pop("voice", None)
        chosen = MappedVoice() if voice is None else meant_voice(voice, settings, known)
        own = chosen.model_dump(exclude_none=True)
        if "ref_audio" in own:
            defaults.pop("ref_text", None)  # the transcript of another recording
        values = {**defaults, **own}
        if "ref_audio" in said:
            values.pop("ref_text", None)
        values |= said
        return SpeechParameters.model_validate(values), frozenset(said)


def is_placeholder(voice: str, settings: SpeechSettings, known: Sequence[Voice] | None = None) -> bool:
    """Return whether a name is one of OpenAI's that neither the manifest nor the engine has."""
    if folded(voice) not in OPENAI_VOICES or named(settings.voices, voice) is not None:
        return False
    return folded(voice) not in {folded(each.id) for each in known or ()}


def meant_voice(voice: str, settings: SpeechSettings, known: Sequence[Voice] | None = None) -> MappedVoice:
    """Return the meaning of a name: the manifest's, the default, or the engine's voice of that name."""
    mapped = named(settings.voices, voice)
    if mapped is None and is_placeholder(voice, settings, known):
        default = settings.defaults.voice
        if default is None:
            return MappedVoice()
        mapped, voice = named(settings.voices, default), default
    return MappedVoice(voice=voice) if mapped is None else mapped
