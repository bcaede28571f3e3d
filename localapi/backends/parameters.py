"""Request parameters that the manifest may give defaults for, as OpenAI names and bounds them.

One definition serves both borders: an entry's `defaults` and `locked` in YAML, and a request's body in JSON.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from localapi.worker.protocol import Sampling

MAX_SEED = MAX_COUNT = 2**63 - 1
"""What fits where numbers are sent to workers."""
MIN_SPEED, MAX_SPEED = 0.25, 4.0
MAX_VOICE = 200

StopString = Annotated[str, Field(min_length=1, max_length=1000)]
TokenId = Annotated[str, Field(pattern=r"^\d{1,9}$")]
ResponseFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


def _sendable(value: dict[str, Any]) -> dict[str, Any]:
    try:
        msgspec.msgpack.encode(value)
    except (OverflowError, RecursionError, TypeError, msgspec.MsgspecError) as error:
        raise ValueError(f"Value holds something that no model can be sent: {error}") from error
    return value


FreeObject = Annotated[dict[str, Any], AfterValidator(_sendable)]
"""A JSON object whose content is between a client and a model."""


TEMPLATE_PARAMETERS: Final = frozenset(
    {
        "add_generation_prompt",
        "args",
        "chat_template",
        "continue_final_message",
        "conversation",
        "conversations",
        "documents",
        "kwargs",
        "load_audio_from_video",
        "max_length",
        "messages",
        "padding",
        "processor_kwargs",
        "sanitize_control_tokens",
        "self",
        "tokenize",
        "tokenizer_kwargs",
        "tools",
        "truncation",
    }
)
"""What `apply_chat_template` takes itself: a request's other fields decide on it, or the server does.

So say transformers and mlx-lm; a test compares. Everything that begins with `return_` belongs to it, too.
"""


def _template_variables(value: dict[str, Any]) -> dict[str, Any]:
    for name in value:
        if not re.fullmatch(r"[A-Za-z]\w*", name):
            raise ValueError(f"should be variables of the chat template; {name[:80]!r} is no name of a variable")
        if name in TEMPLATE_PARAMETERS or name.startswith("return_"):
            raise ValueError(f"should be variables of the chat template; {name[:80]!r} is none and cannot be set here")
    return value


class GenerationParameters(BaseModel):
    """How text is generated; None means that nobody said."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    temperature: Annotated[
        float | None, Field(ge=0, le=2, description="0 always takes the likeliest token.", examples=[0.7])
    ] = None
    top_p: Annotated[
        float | None,
        Field(gt=0, le=1, description="Sample from the likeliest tokens that reach this probability.", examples=[0.95]),
    ] = None
    top_k: Annotated[
        int | None, Field(ge=-1, description="Sample from so many likeliest tokens; 0: from all.", examples=[40])
    ] = None
    min_p: Annotated[
        float | None,
        Field(
            ge=0,
            le=1,
            description="Sample from tokens at least so likely, as a share of the likeliest.",
            examples=[0.05],
        ),
    ] = None
    presence_penalty: Annotated[
        float | None, Field(ge=-2, le=2, description="Against any token that was generated already.", examples=[0.5])
    ] = None
    frequency_penalty: Annotated[
        float | None, Field(ge=-2, le=2, description="Against tokens by how often they were generated.", examples=[0.5])
    ] = None
    repetition_penalty: Annotated[
        float | None,
        Field(
            gt=0,
            le=10,
            description="Divides the odds of tokens in the prompt or answer; 1: as they are.",
            examples=[1.1],
        ),
    ] = None
    logit_bias: Annotated[
        dict[TokenId, Annotated[float, Field(ge=-100, le=100)]] | None,
        Field(
            description="Added to the odds of single tokens, by their number; -100 forbids, 100 forces.",
            examples=[{"1234": -100}],
        ),
    ] = None
    max_tokens: Annotated[int | None, Field(ge=1, description="Most tokens to generate.", examples=[1024])] = None
    stop: Annotated[
        StopString | Annotated[list[StopString], Field(max_length=16)] | None,
        Field(description="Text that ends the answer; it is not part of the answer.", examples=["END"]),
    ] = None
    seed: Annotated[
        int | None,
        Field(ge=-MAX_SEED, le=MAX_SEED, description="The same seed and request give the same answer.", examples=[42]),
    ] = None

    @property
    def stop_strings(self) -> list[str]:
        """`stop` as a list, in the order given."""
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else list(self.stop)

    @property
    def longest_answer(self) -> int | None:
        """`max_tokens`, as a number that can be sent."""
        return None if self.max_tokens is None else min(self.max_tokens, MAX_COUNT)

    @property
    def sampling(self) -> Sampling:
        """What engines draw tokens by; OpenAI's values where nobody said."""
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=min(max(self.top_k or 0, 0), MAX_COUNT),
            min_p=self.min_p or 0.0,
            seed=self.seed,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            repetition_penalty=1.0 if self.repetition_penalty is None else self.repetition_penalty,
            logit_bias={int(token): bias for token, bias in (self.logit_bias or {}).items()},
        )


class ChatParameters(GenerationParameters):
    """How a conversation is answered; None means that nobody said."""

    reasoning_effort: Annotated[
        Effort | None, Field(description="How long to think, for models whose template knows it; none: not at all.")
    ] = None
    chat_template_kwargs: Annotated[
        Annotated[FreeObject, AfterValidator(_template_variables)] | None,
        Field(description="Variables for the model's chat template.", examples=[{"enable_thinking": False}]),
    ] = None

    @property
    def template_options(self) -> dict[str, Any]:
        """Return the variables for the chat template; engines know what a template calls `reasoning_effort`."""
        options = dict(self.chat_template_kwargs or {})
        if self.reasoning_effort is not None:
            options["reasoning_effort"] = self.reasoning_effort
        return options


class SpeechParameters(BaseModel):
    """How text is spoken; None means that nobody said."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    voice: Annotated[
        str | None,
        Field(
            min_length=1, max_length=MAX_VOICE, description="Who speaks: one of the entry's voices.", examples=["alloy"]
        ),
    ] = None
    speed: Annotated[
        float | None, Field(ge=MIN_SPEED, le=MAX_SPEED, description="How fast: 2 takes half the time.", examples=[1.2])
    ] = None
    response_format: Annotated[
        ResponseFormat | None, Field(description="Format of the reply: mp3 where nobody says.", examples=["wav"])
    ] = None
    ref_audio: Annotated[str | None, Field(description="A recording of the voice to clone.", examples=["./me.wav"])] = (
        None
    )
    ref_text: Annotated[str | None, Field(description="What is said in ref_audio.", examples=["What I say in it."])] = (
        None
    )
    instruct_text: Annotated[str | None, Field(description="How to speak, in words.", examples=["Calm and slow."])] = (
        None
    )
    source_audio: Annotated[
        str | None, Field(description="Speech to say again in another voice.", examples=["./speech.wav"])
    ] = None


def objection(name: str, value: object) -> str:
    """Why a chat parameter cannot have this value; empty where it can."""
    try:
        ChatParameters.model_validate({name: value})
    except ValidationError as error:
        return error.errors()[0]["msg"].removeprefix("Input ")
    return ""
