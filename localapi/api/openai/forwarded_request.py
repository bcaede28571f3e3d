"""Bodies that cannot be interpreted here, but perhaps by the server to which they are forwarded.

Such a server may know parameters, message parts and tools that this one does not. Only what this server needs itself is
checked.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, ValidationError

from localapi.api.neutral_request import NeutralRequest
from localapi.api.openai.generation_request import MAX_CHOICES, MAX_NAME, BodyObject, StreamOptions
from localapi.backends.parameters import ChatParameters, objection
from localapi.errors import InvalidRequest
from localapi.worker.protocol import Chat, Complete


class ForwardedRequest(BodyObject):
    """Fields that chats and completions have in common."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, defer_build=True)

    model: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] = 1
    stream: bool = False
    stream_options: StreamOptions | None = None

    @classmethod
    def read(cls, content: dict[str, Any], refusal: InvalidRequest) -> Self:
        """Return the body. Raise `refusal`, which says what is wrong with it, if not even this much can be read."""
        try:
            return cls.model_validate(content)
        except ValidationError:
            raise refusal from None

    @property
    def include_usage(self) -> bool:
        """True if a stream ends with a chunk of usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def request(self, ask: Chat | Complete, content: dict[str, Any], refusal: InvalidRequest) -> NeutralRequest:
        """Return the request with the parameters that can be read."""
        said: dict[str, Any] = {}
        for name in ChatParameters.model_fields:
            if name in content and not objection(name, content[name]):
                said[name] = content[name]
        limits = [name for name in ("max_tokens", "max_completion_tokens") if name in content]
        return NeutralRequest(
            model=self.model,
            asks=[ask],
            said=ChatParameters.model_validate(said),
            names={"max_tokens": limits},
            stream=self.stream,
            refusal=refusal,
        )


class ForwardedChat(ForwardedRequest):
    """The body of a chat."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]

    def neutral(self, content: dict[str, Any], refusal: InvalidRequest) -> NeutralRequest:
        """Return the neutral request. `content` is the body."""
        return self.request(Chat(id=0, messages=[], n=self.n, original=content), content, refusal)


class ForwardedCompletion(ForwardedRequest):
    """The body of a completion."""

    prompt: str | list[Any]
    logprobs: int | None = None

    def neutral(self, content: dict[str, Any], refusal: InvalidRequest) -> NeutralRequest:
        """Return the neutral request. `content` is the body."""
        prompts = 1
        if isinstance(self.prompt, list) and not all(isinstance(part, int) for part in self.prompt):
            prompts = len(self.prompt)
        ask = Complete(id=0, prompt="", n=self.n * prompts, original=content)
        return self.request(ask, content, refusal)
