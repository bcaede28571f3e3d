"""Chat models: conversations, completions and tokens."""

from __future__ import annotations

from typing import Final

import msgspec

from localapi.backends.command import Command
from localapi.backends.echo import Echo
from localapi.backends.mlx_lm import MlxLm
from localapi.backends.mlx_vlm import MlxVlm
from localapi.backends.openai import OpenAI
from localapi.backends.options import ChatOptions, EntryOptions
from localapi.backends.parameters import MEDIA, ChatParameters, VariantOptions, VariantParameters
from localapi.backends.pool import ChatPool, GiveUpAfter
from localapi.backends.recognition import chat_backend
from localapi.backends.secret import SecretPlace
from localapi.kinds.kind import Kind, ModelObject, Variables, by_name
from localapi.observability.counters import FIRST_SECONDS, TOKEN_SECONDS, Counters, Metric
from localapi.worker.protocol import Capabilities, Finished, Loaded

PROMPT_TOKENS: Final = Metric("prompt_tokens", "Prompt tokens.")
CACHED_TOKENS: Final = Metric("cached_tokens", "Prompt tokens that were not recomputed.")
COMPLETION_TOKENS: Final = Metric("completion_tokens", "Generated tokens.")
TIME_TO_FIRST_TOKEN: Final = Metric(
    "time_to_first_token_seconds", "Time from the request to its first token.", FIRST_SECONDS
)
TIME_PER_OUTPUT_TOKEN: Final = Metric(
    "time_per_output_token_seconds", "Time from one token of a response to the next.", TOKEN_SECONDS
)


def count_answer(counters: Counters, model: str, answer: Finished, first_seconds: float, rest_seconds: float) -> None:
    """Count a complete response. `rest_seconds` is the time from the first token to the last."""
    if not answer.counted:
        return
    counters.count(model, PROMPT_TOKENS, answer.prompt_tokens)
    counters.count(model, CACHED_TOKENS, answer.cached_tokens)
    counters.count(model, COMPLETION_TOKENS, answer.completion_tokens)
    if answer.completion_tokens:
        counters.observe(model, TIME_TO_FIRST_TOKEN, first_seconds)
    if answer.completion_tokens > 1:
        counters.observe(model, TIME_PER_OUTPUT_TOKEN, rest_seconds / (answer.completion_tokens - 1))


def chat_options(options: EntryOptions) -> ChatOptions:
    """Return the options of an entry that is known to be in this section."""
    assert isinstance(options, ChatOptions)  # noqa: S101
    return options


FEATURES: Final = {
    "tools": "tools",
    "forced_tools": "tool_choice",
    "json_schema": "response_format",
    "thinking_switch": "reasoning_effort",
    "thinking_levels": "reasoning_effort",
    "vision": "image",
    "hearing": "audio",
}
"""Features that a backend must honour for a capability, as in `ChatOptions.honours`."""


def capabilities(options: ChatOptions, loaded: Loaded | None) -> Capabilities:
    """Return what an entry's model can do, as reported when it was loaded, otherwise by its files."""
    known = options.expected() if loaded is None else loaded.capabilities
    lacking = [name for name, feature in FEATURES.items() if feature not in options.honours]
    return msgspec.structs.replace(known, **dict.fromkeys(lacking, False))


def media(options: ChatOptions, can: Capabilities) -> frozenset[str]:
    """Return the media that a model accepts besides text, as far as known."""
    lacking = {name for name, able in (("image", can.vision), ("audio", can.hearing)) if able is False}
    return (options.honours & MEDIA) - lacking


class ChatModel(ModelObject, kw_only=True):
    """Chat model. Facts that only the loaded model knows are null before that."""

    context_length: int | None = None
    batched: bool = True
    capabilities: Capabilities = Capabilities()

    def describe(self, options: EntryOptions, loaded: Loaded | None) -> None:
        chat = chat_options(options)
        self.capabilities = capabilities(chat, loaded)
        self.input = (*self.input, *sorted(media(chat, self.capabilities)))
        if loaded is not None:
            self.context_length, self.batched = loaded.context_length, loaded.batched
            return
        self.context_length = options.identity().options.get("context_length")
        self.batched = not chat.answers_alone


CHAT: Final = Kind(
    name="chat",
    description="Chat models by id.",
    options=ChatOptions,
    backends=by_name(Echo, MlxLm, MlxVlm, OpenAI, Command, ChatPool),
    usual_backend="mlx-lm",
    variables=Variables(
        entry_id="local-chat",
        names=("CHAT_MODEL_ID", "MODEL_ID"),
        options={"path": ("CHAT_MODEL_PATH", "MODEL_PATH")},
        backend="mlx-lm",
    ),
    nested={
        ChatParameters: "chat.ID.defaults and chat.ID.locked",
        VariantOptions: "chat.ID.variants.NAME",
        VariantParameters: "defaults and locked of variants",
        SecretPlace: "chat.ID.key and ID.env.NAME",
        GiveUpAfter: "give_up_after of pools",
    },
    endpoints=(
        "localapi.api.openai.chat",
        "localapi.api.openai.responses.endpoints",
        "localapi.api.openai.completions",
        "localapi.api.openai.tokens",
        "localapi.api.anthropic.messages",
        "localapi.api.ollama.text",
        "localapi.api.ollama.models",
    ),
    metrics=(PROMPT_TOKENS, CACHED_TOKENS, COMPLETION_TOKENS, TIME_TO_FIRST_TOKEN, TIME_PER_OUTPUT_TOKEN),
    count=count_answer,
    model=ChatModel,
    recognize=chat_backend,
)
