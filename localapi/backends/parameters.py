"""Request parameters for which the manifest may set defaults, with OpenAI's names and bounds; and variants of models.

One definition serves both borders: an entry's `defaults` and `locked` in YAML, and a request's body in JSON.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

import msgspec
from pydantic import AfterValidator, Field, ValidationError

from localapi.backends.option_types import Name, StrictModel
from localapi.worker.protocol import Sampling

MAX_SEED = MAX_COUNT = 2**63 - 1
"""Largest number that can be sent to a worker."""
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
        raise ValueError(f"Value cannot be sent to a model: {error}") from error
    return value


FreeObject = Annotated[dict[str, Any], AfterValidator(_sendable)]
"""JSON object whose content only the client and the model interpret."""


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
"""Parameters of `apply_chat_template` itself, which the server or other fields of a request set.

A test compares them with transformers and mlx-lm. All names that begin with `return_` are reserved too.
"""


def _template_variables(value: dict[str, Any]) -> dict[str, Any]:
    for name in value:
        if not re.fullmatch(r"[A-Za-z]\w*", name):
            raise ValueError(f"should be variables of the chat template; {name[:80]!r} is not a variable name")
        if name in TEMPLATE_PARAMETERS or name.startswith("return_"):
            raise ValueError(f"should be variables of the chat template; {name[:80]!r} is reserved")
    return value


class GenerationParameters(StrictModel):
    """Parameters of text generation; None if unset."""

    temperature: Annotated[
        float | None, Field(ge=0, le=2, description="Randomness; 0 always takes the likeliest token.", examples=[0.7])
    ] = None
    top_p: Annotated[
        float | None,
        Field(
            gt=0,
            le=1,
            description="Sample only from the likeliest tokens with this total probability.",
            examples=[0.95],
        ),
    ] = None
    top_k: Annotated[
        int | None,
        Field(ge=-1, description="Sample only from this many of the likeliest tokens; 0: all.", examples=[40]),
    ] = None
    min_p: Annotated[
        float | None,
        Field(
            ge=0,
            le=1,
            description="Minimum probability of a token, relative to the likeliest token.",
            examples=[0.05],
        ),
    ] = None
    presence_penalty: Annotated[
        float | None, Field(ge=-2, le=2, description="Penalty for tokens that were already generated.", examples=[0.5])
    ] = None
    frequency_penalty: Annotated[
        float | None,
        Field(
            ge=-2,
            le=2,
            description="Penalty for tokens in proportion to how often they were generated.",
            examples=[0.5],
        ),
    ] = None
    repetition_penalty: Annotated[
        float | None,
        Field(
            gt=0,
            le=10,
            description="Penalty for tokens in the prompt or response, as a divisor of their scores; 1: none.",
            examples=[1.1],
        ),
    ] = None
    logit_bias: Annotated[
        dict[TokenId, Annotated[float, Field(ge=-100, le=100)]] | None,
        Field(
            description="Values added to the scores of tokens, by token id; -100 forbids, 100 forces a token.",
            examples=[{"1234": -100}],
        ),
    ] = None
    max_tokens: Annotated[int | None, Field(ge=1, description="Maximum tokens to generate.", examples=[1024])] = None
    stop: Annotated[
        StopString | Annotated[list[StopString], Field(max_length=16)] | None,
        Field(
            description="Text, or list of texts, at which the response ends; not included in the response.",
            examples=["END"],
        ),
    ] = None
    seed: Annotated[
        int | None,
        Field(
            ge=-MAX_SEED,
            le=MAX_SEED,
            description="Random seed: the same seed and request give the same response.",
            examples=[42],
        ),
    ] = None

    @property
    def stop_strings(self) -> list[str]:
        """`stop` as a list, in the order given."""
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else list(self.stop)

    @property
    def longest_answer(self) -> int | None:
        """`max_tokens`, limited to a number that can be sent."""
        return None if self.max_tokens is None else min(self.max_tokens, MAX_COUNT)

    @property
    def sampling(self) -> Sampling:
        """Sampling parameters for engines; None if unset."""
        bias = self.logit_bias
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=None if self.top_k is None else min(max(self.top_k, 0), MAX_COUNT),
            min_p=self.min_p,
            seed=self.seed,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty,
            logit_bias=None if bias is None else {int(token): odds for token, odds in bias.items()},
        )


class ChatParameters(GenerationParameters):
    """Parameters of a chat response; None if unset."""

    reasoning_effort: Annotated[
        Effort | None,
        Field(description="Amount of reasoning, if the model's template supports it; none: no reasoning."),
    ] = None
    chat_template_kwargs: Annotated[
        Annotated[FreeObject, AfterValidator(_template_variables)] | None,
        Field(description="Variables for the model's chat template.", examples=[{"enable_thinking": False}]),
    ] = None

    @property
    def template_options(self) -> dict[str, Any]:
        """Variables for the chat template; engines know the template's name for `reasoning_effort`."""
        options = dict(self.chat_template_kwargs or {})
        if self.reasoning_effort is not None:
            options["reasoning_effort"] = self.reasoning_effort
        return options


FORMS: Final = frozenset({"response_format", "regex", "grammar"})
TEXT_FEATURES: Final = FORMS | {
    *("n", "logprobs", "tools", "tool_choice", "parallel_tool_calls", "continue_final_message", "echo"),
}
"""Further features of text requests; `tool_choice` stands for a forced tool call."""
MEDIA: Final = frozenset({"image", "audio"})
"""Media in messages besides text."""
TEXT: Final = TEXT_FEATURES | ChatParameters.model_fields.keys()
"""Everything that a backend can honour except media."""


class SpeechParameters(StrictModel):
    """Parameters of speech; None if unset."""

    voice: Annotated[
        str | None,
        Field(min_length=1, max_length=MAX_VOICE, description="Voice: one of the entry's voices.", examples=["alloy"]),
    ] = None
    speed: Annotated[
        float | None,
        Field(ge=MIN_SPEED, le=MAX_SPEED, description="Speed factor; 2 takes half the time.", examples=[1.2]),
    ] = None
    response_format: Annotated[
        ResponseFormat | None, Field(description="Audio format of the reply; mp3 by default.", examples=["wav"])
    ] = None
    ref_audio: Annotated[str | None, Field(description="Recording with the voice to clone.", examples=["./me.wav"])] = (
        None
    )
    ref_text: Annotated[str | None, Field(description="Transcript of ref_audio.", examples=["What I say in it."])] = (
        None
    )
    instruct_text: Annotated[
        str | None, Field(description="Instructions for the style of speaking.", examples=["Calm and slow."])
    ] = None
    source_audio: Annotated[
        str | None, Field(description="Recording to convert to the chosen voice.", examples=["./speech.wav"])
    ] = None


def objection(name: str, value: object) -> str:
    """Return why a chat parameter cannot have this value, or "" if it can."""
    try:
        ChatParameters.model_validate({name: value})
    except ValidationError as error:
        return error.errors()[0]["msg"].removeprefix("Input ")
    return ""


class VariantParameters(ChatParameters):
    """Parameters of a chat response, and the system prompt; None if unset."""

    system: Annotated[
        str | None,
        Field(
            min_length=1,
            description="System prompt: in `defaults`, for conversations without one; in `locked`, replacing theirs.",
            examples=["Answer in one sentence."],
        ),
    ] = None


class VariantOptions(StrictModel):
    """Additional name for a model, with its own parameters."""

    aliases: Annotated[
        list[Name], Field(description="Additional names for this variant in requests.", examples=[["gpt-4o"]])
    ] = []
    description: Annotated[
        str | None, Field(description="Shown in the model list instead of the entry's.", examples=["Thinks first."])
    ] = None
    defaults: Annotated[
        VariantParameters,
        Field(
            description="Request parameters that apply unless a request sets them; they precede the entry's own "
            "defaults.",
            examples=[{"temperature": 0.2, "system": "Answer in one sentence."}],
        ),
    ] = VariantParameters()
    locked: Annotated[
        VariantParameters,
        Field(
            description="Request parameters that override the request; they precede the entry's own locks.",
            examples=[{"reasoning_effort": "none"}],
        ),
    ] = VariantParameters()
