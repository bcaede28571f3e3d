"""What a client may say to `POST /v1/chat/completions`: fields, bounds, and which of OpenAI's are not honoured yet."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from localapi.api.body import parse
from localapi.backends.parameters import ChatParameters
from localapi.errors import InvalidRequest
from localapi.worker.protocol import Chat, Sampling

_ids = itertools.count(1)
MAX_MESSAGES: Final = 100_000


class _Part(BaseModel):
    """Anything in an object that is not named here is left to the clients that put it there."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class TextPart(_Part):
    type: Literal["text"]
    text: str


Content = str | list[TextPart]


class InstructionMessage(_Part):
    role: Literal["system", "developer"]
    content: Content
    name: str | None = None


class UserMessage(_Part):
    role: Literal["user"]
    content: Content
    name: str | None = None


class CalledFunction(_Part):
    name: str
    arguments: str


class ToolCall(_Part):
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class AssistantMessage(_Part):
    role: Literal["assistant"]
    content: Content | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None


class ToolMessage(_Part):
    role: Literal["tool"]
    content: Content
    tool_call_id: str


Message = Annotated[InstructionMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class StreamOptions(_Part):
    include_usage: bool = False
    include_obfuscation: bool = False
    """Padding against observers of the network; on one machine there is nothing to pad."""


class ChatRequest(ChatParameters):
    """The body. Unknown fields are kept in `model_extra`, to be named in the reply."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    model: Annotated[str, Field(min_length=1)]
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    stream: bool = False
    stream_options: StreamOptions | None = None

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk of usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def to_chat(self, defaults: BaseModel) -> Chat:
        """The request as engines take it, with an entry's defaults where this says nothing."""
        said = ChatParameters.model_validate(
            {**defaults.model_dump(exclude_none=True), **self.model_dump(include=_PARAMETERS, exclude_none=True)}
        )
        sampling = Sampling(
            temperature=1.0 if said.temperature is None else said.temperature,
            top_p=1.0 if said.top_p is None else said.top_p,
            seed=said.seed,
        )
        return Chat(
            id=next(_ids),
            messages=[_plain(message) for message in self.messages],
            sampling=sampling,
            max_tokens=self.max_completion_tokens or said.max_tokens,
            stop=said.stop_strings,
        )


_PARAMETERS = set(ChatParameters.model_fields)

_NO_EFFECT: Final = frozenset(
    {"user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"}
)
"""OpenAI's fields that say something about the caller or the bill, not about the answer."""

_NOT_HONOURED: Final[Mapping[str, tuple[Any, ...]]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "min_p": (0,),
    "modalities": (["text"],),
    "moderation": (),
    "n": (1,),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "presence_penalty": (0,),
    "reasoning_effort": (),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_k": (0, -1),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""Parameters that this server knows and does not honour yet, with the values that ask for nothing."""


def parse_chat(content: dict[str, Any]) -> tuple[ChatRequest, list[str]]:
    """The request, and the names of the fields that nobody knows. Raises InvalidRequest."""
    for name, harmless in _NOT_HONOURED.items():
        if name in content and not any(_same(content[name], value) for value in harmless):
            raise InvalidRequest(
                f"The parameter '{name}' is not supported by this server yet. Leave it out.",
                param=name,
                code="unsupported_parameter",
            )
    _refuse_other_parts(content.get("messages"))
    known = {key: value for key, value in content.items() if key not in _NOT_HONOURED and key not in _NO_EFFECT}
    request = parse(ChatRequest, known)
    return request, sorted(request.model_extra or ())


def _same(given: object, harmless: object) -> bool:
    """Equal, and a boolean only equals a boolean: `n: true` is not `n: 1`."""
    return given == harmless and isinstance(given, bool) == isinstance(harmless, bool)


def _refuse_other_parts(messages: object) -> None:
    """Say plainly that an image is not read, before pydantic says that its type is not 'text'."""
    for at, message in enumerate(messages if isinstance(messages, list) else ()):
        content = message.get("content") if isinstance(message, dict) else None
        for place, part in enumerate(content if isinstance(content, list) else ()):
            kind = part.get("type") if isinstance(part, dict) else None
            if isinstance(kind, str) and kind != "text":
                raise InvalidRequest(
                    f"Message parts of type {kind!r} are not supported; send text parts only.",
                    param=f"messages[{at}].content[{place}].type",
                    code="unsupported_content",
                )


def _plain(message: Message) -> dict[str, Any]:
    """The message with its content as one string, as chat templates expect it."""
    plain = message.model_dump(exclude_none=True)
    if isinstance(message.content, list):
        plain["content"] = "".join(part.text for part in message.content)
    return plain
