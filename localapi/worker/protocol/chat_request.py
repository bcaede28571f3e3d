"""Requests to chat models: conversations, texts to continue, and texts to split into tokens."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Sampling(msgspec.Struct, frozen=True):
    """Sampling parameters. None if neither the client nor the manifest sets it, so that the engine decides."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    """Number of tokens; 0 for all."""
    min_p: float | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[int, float] | None = None


class TextPart(msgspec.Struct, frozen=True, tag="text"):
    """A paragraph of a message."""

    text: str


class ImagePart(msgspec.Struct, frozen=True, tag="image"):
    """Image in a message."""

    url: str
    """A data: URL with the image, or its URL, as the client wrote it."""
    detail: str | None = None
    """Resolution for the model, in OpenAI's terms: "low", "high", "auto"."""
    data: bytes | None = None
    """Image file, once the server has fetched and checked it. The URL is empty then."""


class AudioPart(msgspec.Struct, frozen=True, tag="audio"):
    """A recording in a message."""

    data: bytes
    """An audio file."""
    format: str
    """Format of the file, as the client wrote it or, once the server has checked the file, as FFmpeg names it."""
    max_seconds: float = 0.0
    """Maximum length, once the server has checked the file."""


Part = TextPart | ImagePart | AudioPart


class FunctionCall(msgspec.Struct, frozen=True):
    """Call that the model made on an earlier turn."""

    id: str
    name: str
    arguments: str | dict[str, Any] = ""
    """Text that the model generated, JSON or not; some clients send an object instead."""


class Message(msgspec.Struct, frozen=True):
    """A turn of a conversation."""

    role: str
    """system, developer, user, assistant or tool."""
    content: str | list[Part] = ""
    name: str | None = None
    reasoning: str | None = None
    """Reasoning of the model on that turn."""
    calls: list[FunctionCall] = []
    call_id: str | None = None
    """Id of the call whose result this is, for the role tool."""

    @property
    def text(self) -> str:
        """Text of the message. Parts are paragraphs: texts that should stay apart are sent as separate parts."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))


class FunctionTool(msgspec.Struct, frozen=True, omit_defaults=True):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """JSON Schema of its arguments."""
    strict: bool | None = None
    """True if the arguments must match the schema."""


class JsonSchema(msgspec.Struct, frozen=True, tag=True):
    """JSON that this schema allows."""

    schema: str
    """Schema as JSON, with its keys in the user's order: responses name properties in that order."""
    strict: bool = False
    """True if objects are closed, and a schema that cannot be enforced exactly is refused; otherwise it is relaxed."""
    closed: bool = False
    """True if objects are closed in any case: they have only named properties, unless the schema says more."""


class JsonObject(msgspec.Struct, frozen=True, tag=True):
    """Any JSON object."""


class Regex(msgspec.Struct, frozen=True, tag=True):
    """Text that this regular expression matches as a whole."""

    pattern: str


class Lark(msgspec.Struct, frozen=True, tag=True):
    """Text of this grammar, in llguidance's dialect of Lark."""

    text: str


Form = JsonSchema | JsonObject | Regex | Lark
"""Form that a response must have."""


class Answering(msgspec.Struct, kw_only=True):
    """Fields that chat and completion requests have in common."""

    id: int
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    """Maximum tokens; None until the model stops or its context is full."""
    stop: list[str] = []
    n: int = 1
    """Number of responses to the prompt."""
    top_logprobs: int | None = None
    """Number of likeliest tokens to report with each token's log probability; None: no log probabilities."""
    form: Form | None = None
    original: dict[str, Any] | None = None
    """Body in OpenAI's form, with the manifest's values, for an engine that forwards it to another server."""


class Chat(Answering, tag=True, kw_only=True):
    """Server to worker: continue this conversation."""

    messages: list[Message]
    tools: list[FunctionTool] = []
    tool_choice: Literal["none", "auto", "required"] = "auto"
    tool_name: str | None = None
    """Function that must be called; tool_choice is "required" then."""
    parallel_tool_calls: bool = True
    template_options: dict[str, Any] = {}
    """Variables for the chat template."""
    continues: bool = False
    """True if the last message is the start of the response, which continues it."""


class Complete(Answering, tag=True, kw_only=True):
    """Server to worker: continue this text."""

    prompt: str | list[int]
    echo: bool = False
    """True if the response starts with the prompt."""


def form_param(request: Answering) -> str:
    """Return the request's field that requires a form, or a call, which is a form too."""
    match request.form:
        case Regex():
            return "regex"
        case Lark():
            return "grammar"
        case None:
            required = isinstance(request, Chat) and request.tool_choice == "required"
            return "tool_choice" if required else "tools"
        case _:
            return "response_format"


class Tokenize(msgspec.Struct, tag=True):
    """Server to worker: return the tokens of a text, or of a conversation as the model would read it."""

    id: int
    text: str | None = None
    chat: Chat | None = None
    """The conversation, with its tools and template variables."""
    special: bool = True
    """True if the tokens that start and end a text are added, and special tokens in it are recognized."""


class Detokenize(msgspec.Struct, tag=True):
    """Server to worker: return the text of tokens."""

    id: int
    tokens: list[int]


TextRequest = Chat | Complete | Tokenize | Detokenize
