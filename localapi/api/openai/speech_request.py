"""Body of `POST /v1/audio/speech`: OpenAI's fields, and those of other speech servers."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from localapi.api.openai.generation_request import MAX_NAME, NO_EFFECT
from localapi.api.speech.neutral_speech import NeutralSpeech
from localapi.backends.parameters import MAX_VOICE, ResponseFormat, SpeechParameters
from localapi.backends.speech import ENGINE_OPTIONS
from localapi.errors import InvalidRequest
from localapi.http import body

_TAG: Final = re.compile(r"[A-Za-z]{2,3}([_-][A-Za-z0-9]{1,8})*")
"""Pattern of a BCP 47 language tag."""
EMPTY_IS_UNSAID: Final = frozenset({*ENGINE_OPTIONS, "instructions", "voice"})
"""Fields that clients send empty if their user set nothing."""


def _voice_name(value: object) -> object:
    """Return the name in OpenAI's `{"id": name}`."""
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
    """False: the reply has a length, and is sent once the speech is complete."""
    language: str | None = None
    """Language of the text, as a BCP 47 tag; "auto" and "" count as unset."""
    timestamps: Literal["sentence", "word"] | None = None
    """Unit of the times to report: in the reply's JSON, or as events."""

    def neutral(self) -> NeutralSpeech:
        """Return the neutral request. Raise InvalidRequest."""
        said = self.model_dump(include=set(SpeechParameters.model_fields), exclude_none=True)
        names: dict[str, list[str]] = {}
        for name, older in (("response_format", "format"), ("instruct_text", "instructions")):
            value = getattr(self, older)
            if value is None:
                continue
            if said.setdefault(name, value) != value:
                raise InvalidRequest(f"'{older}' and '{name}' mean the same and differ here. Send one.", param=older)
            names[name] = [older]
        ignored = sorted(self.model_extra or ())
        language = self.language
        if language is not None and not _TAG.fullmatch(language):
            language = None
            ignored.append("language")
        return NeutralSpeech(
            model=self.model,
            input=self.input,
            said=SpeechParameters.model_validate(said),
            names=names,
            language=language,
            timestamps=self.timestamps,
            stream=self.stream,
            ignored=ignored,
        )


def parse_speech(content: dict[str, Any]) -> SpeechRequest:
    """Return the body without fields that are empty because the user set nothing. Raise InvalidRequest."""
    return body.parse(
        SpeechRequest,
        {
            key: value
            for key, value in content.items()
            if key not in NO_EFFECT
            and not (value == "" and key in EMPTY_IS_UNSAID)
            and not (key == "language" and isinstance(value, str) and value.strip().lower() in ("", "auto"))
        },
    )
