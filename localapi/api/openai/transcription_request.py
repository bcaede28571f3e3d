"""Fields of a transcription's form, checked: everything in a form is text, and names of lists have brackets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from localapi.api.openai.generation_request import MAX_NAME
from localapi.api.openai.transcript import Granularity
from localapi.errors import InvalidRequest
from localapi.http import body

LISTS: Final = frozenset({
    "timestamp_granularities", "include", "known_speaker_names", "known_speaker_references",
})  # fmt: skip
SUBTITLES: Final = frozenset({"srt", "vtt"})
MAX_PROMPT: Final = 20_000
_BRACKETS: Final = re.compile(r"\[(\d*)\]$")
_OBJECT: Final = re.compile(r"(\w+)\[\w+\]$")


class TranscriptionFields(BaseModel):
    """Fields of a transcription request."""

    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)

    model: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    language: Annotated[
        str | None, Field(min_length=2, max_length=40, description="Spoken language: a code such as en, or a name.")
    ] = None
    prompt: Annotated[
        str | None, Field(max_length=MAX_PROMPT, description="Example text that shows names and style to the model.")
    ] = None
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt", "diarized_json"] = "json"
    temperature: Annotated[float | None, Field(ge=0, le=1, allow_inf_nan=False)] = None
    timestamp_granularities: list[Granularity] = []
    stream: bool = False
    include: list[Literal["logprobs"]] = []
    chunking_strategy: str | None = None
    known_speaker_names: list[str] = []
    known_speaker_references: list[str] = []

    @property
    def granularities(self) -> Sequence[Granularity]:
        """Units whose times are requested."""
        return self.timestamp_granularities or ("segment",)


class TranscriptionForm(TranscriptionFields):
    """File, with what to do with it."""

    file: Annotated[bytes, Field(json_schema_extra={"format": "binary"}, description="Audio or video of any kind.")]


def read_fields(fields: Mapping[str, Sequence[str]]) -> tuple[TranscriptionFields, dict[str, Any]]:
    """Return the request, and the fields as they were understood. Empty fields are unset. Raise InvalidRequest."""
    content: dict[str, Any] = {}
    for written, values in fields.items():
        name = _BRACKETS.sub("", written)
        given = [value for value in values if value]
        nested = _OBJECT.fullmatch(written)
        if not given:
            continue
        if nested and nested[1] == "chunking_strategy":
            # An object, such as {"type": "server_vad"}, arrives in parts, which another server gets unchanged.
            content["chunking_strategy"] = written
            continue
        if name in LISTS:
            content.setdefault(name, []).extend(given)
        elif len(given) > 1 and name in TranscriptionFields.model_fields:
            raise InvalidRequest(f"The form has the field '{name}' {len(given)} times. Send it once.", param=name)
        else:
            content[name] = given[-1]
    request = body.parse(TranscriptionFields, content)
    return request, content


def check_for_own_engine(request: TranscriptionFields) -> None:
    """Raise InvalidRequest for valid requests that only other servers support."""
    if request.response_format == "diarized_json":
        raise InvalidRequest(
            "This model cannot identify speakers, so diarized_json is not available. Use verbose_json.",
            param="response_format",
            code="unsupported_parameter",
        )
    for name in ("known_speaker_names", "known_speaker_references"):
        if getattr(request, name):
            raise InvalidRequest(
                f"This model cannot identify speakers, so '{name}' must be omitted.",
                param=name,
                code="unsupported_parameter",
            )
    if request.include:
        raise InvalidRequest(
            "This model gives no log probabilities of tokens. Remove 'include'; verbose_json has the average of "
            "each segment.",
            param="include",
            code="unsupported_parameter",
        )
    if request.timestamp_granularities and request.response_format != "verbose_json":
        raise InvalidRequest(
            "'timestamp_granularities' needs the response_format verbose_json.", param="timestamp_granularities"
        )
    if request.stream and request.response_format in SUBTITLES:
        raise InvalidRequest(
            f"{request.response_format} cannot be streamed. Remove 'stream', or use verbose_json, whose last event "
            "has the times.",
            param="stream",
        )
    if request.chunking_strategy not in (None, "auto"):
        raise InvalidRequest(
            "Audio is always split at pauses, so 'chunking_strategy' can only be auto.",
            param="chunking_strategy",
            code="unsupported_parameter",
        )
