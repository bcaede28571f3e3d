"""Request parameters that the manifest may give defaults for, as OpenAI names and bounds them.

One definition serves both borders: an entry's `defaults` in YAML and a request's body in JSON.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_SEED = 2**63 - 1

StopString = Annotated[str, Field(min_length=1, max_length=1000)]


class ChatParameters(BaseModel):
    """How an answer is generated; None means that nobody said."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    temperature: Annotated[float | None, Field(ge=0, le=2, description="0 always takes the likeliest token.")] = None
    top_p: Annotated[
        float | None, Field(gt=0, le=1, description="Sample from the likeliest tokens that reach this probability.")
    ] = None
    max_tokens: Annotated[int | None, Field(ge=1, description="Most tokens to generate.")] = None
    stop: Annotated[
        StopString | Annotated[list[StopString], Field(max_length=16)] | None,
        Field(description="Text that ends the answer; it is not part of the answer."),
    ] = None
    seed: Annotated[
        int | None,
        Field(ge=-MAX_SEED, le=MAX_SEED, description="The same seed and request give the same answer."),
    ] = None

    @property
    def stop_strings(self) -> list[str]:
        """`stop` as a list, in the order given."""
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else list(self.stop)


class SpeechParameters(BaseModel):
    """How text is spoken; None means that nobody said."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    voice: Annotated[str | None, Field(min_length=1)] = None
    speed: Annotated[float | None, Field(ge=0.25, le=4)] = None
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] | None = None
    ref_audio: Annotated[str | None, Field(description="A recording of the voice to clone.")] = None
    ref_text: Annotated[str | None, Field(description="What is said in ref_audio.")] = None
    instruct_text: Annotated[str | None, Field(description="How to speak, in words.")] = None
    source_audio: Annotated[str | None, Field(description="Speech to say again in another voice.")] = None
