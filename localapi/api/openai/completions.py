"""`POST /v1/completions`: texts or tokens, continued without a chat template."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Struct, UnsetType
from pydantic import Field
from quart import Blueprint

from localapi.api.answers import Answer
from localapi.api.dialect import DialectBlueprint
from localapi.api.neutral_request import NeutralRequest
from localapi.api.openai import wire
from localapi.api.openai.forwarded_request import ForwardedCompletion
from localapi.api.openai.generation_request import (
    GenerationRequest,
    Grammar,
    Pattern,
    TokenNumber,
    form_of,
    refuse,
    unknown_fields,
)
from localapi.api.operation import ERRORS_OF_WORK, EVENTS, JSON, Operation, Operations
from localapi.errors import InvalidRequest
from localapi.http import body
from localapi.runtime.registry import Registry
from localapi.worker.protocol import Addition, Complete, Delta, Ended, Event, Finished, StopReason, TokenLogprob

MAX_PROMPTS: Final = 64
DEFAULT_MAX_TOKENS: Final = 16
"""OpenAI's default."""
TokenList = Annotated[list[TokenNumber], Field(min_length=1)]
_NOT_HONOURED: Final = {"best_of": (1,), "response_format": ({"type": "text"},), "suffix": ("",)}


class CompletionRequest(GenerationRequest):
    """The body."""

    prompt: Annotated[
        str | TokenList | Annotated[list[str] | list[TokenList], Field(min_length=1, max_length=MAX_PROMPTS)], Field()
    ]
    echo: bool = False
    logprobs: Annotated[int | None, Field(ge=0, le=5)] = None
    regex: Pattern | None = None
    grammar: Grammar | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """Prompts, as text or tokens."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if all(isinstance(part, int) for part in self.prompt):
            return [self.prompt]  # type: ignore[list-item]  # a list of int
        return list(self.prompt)  # type: ignore[arg-type]

    def neutral(self, ignored: Sequence[str], content: Mapping[str, Any]) -> NeutralRequest:
        """Return the neutral request. `content` is the body."""
        asks = [
            Complete(
                id=0,
                prompt=prompt,
                n=self.n,
                top_logprobs=self.logprobs,
                echo=self.echo,
                form=form_of(self.regex, self.grammar),
                original={**content, "prompt": prompt},
            )
            for prompt in self.prompts
        ]
        return NeutralRequest(
            model=self.model,
            asks=asks,
            said=self.parameters(),
            usual={"max_tokens": DEFAULT_MAX_TOKENS},
            keep_alive=self.keep_alive,
            stream=self.stream,
            ignored=ignored,
        )


def routes(registry: Registry) -> Blueprint:
    """Return the endpoint."""
    return DialectBlueprint(registry, OpenAICompletions())


class CompletionLogprobs(Struct, kw_only=True):
    """Parallel lists, including where each token begins in the response's text."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(Struct):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: StopReason


class Completion(Struct, kw_only=True):
    """Continuations of prompts."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: wire.Usage | None


class CompletionChunkChoice(Struct):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: StopReason | None


class CompletionChunk(Struct, kw_only=True):
    """Next part of the continuations."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChunkChoice]
    usage: wire.Usage | UnsetType | None = UNSET


OPERATIONS: Final[Operations] = {
    ("POST", "/v1/completions"): Operation(
        summary="Continue a text or tokens.",
        content={JSON: Completion, EVENTS: None},
        body=CompletionRequest,
        example={"prompt": "Once upon a time"},
        errors=ERRORS_OF_WORK,
    ),
}


class OpenAICompletions:
    """OpenAI's older completions."""

    path = "/v1/completions"
    error_body = staticmethod(wire.error_body)

    def parse(self, content: dict[str, Any]) -> tuple[NeutralRequest, CompletionReply]:
        try:
            request, ignored = parse_completion(content)
        except InvalidRequest as refusal:
            unread = ForwardedCompletion.read(content, refusal)
            return unread.neutral(content, refusal), CompletionReply(unread)
        return request.neutral(ignored, content), CompletionReply(request)


def parse_completion(content: dict[str, Any]) -> tuple[CompletionRequest, list[str]]:
    """Return the request, and the names of fields without effect. Raise InvalidRequest."""
    known = refuse(content, _NOT_HONOURED)
    request = body.parse(CompletionRequest, known)
    if request.echo and request.logprobs is not None:
        raise InvalidRequest("'echo' with 'logprobs' is not supported.", param="echo", code="unsupported_parameter")
    return request, unknown_fields(request, known)


class CompletionReply(wire.EventStream[Event]):
    """One reply."""

    model = ""

    def __init__(self, request: CompletionRequest | ForwardedCompletion) -> None:
        super().__init__(self._chunks_of)
        self._request = request
        self._id = f"cmpl-{secrets.token_hex(14)}"
        self._created = int(time.time())
        self._offsets: dict[int, int] = {}
        """Characters of each choice that were sent with log probabilities."""

    def whole(self, answers: Sequence[Answer], usage: Finished) -> object:
        choices = [
            CompletionChoice(at, answer.text, self._logprobs(at, answer.tokens), answer.reason)
            for at, answer in enumerate(answers)
        ]
        counted = wire.usage(usage)
        completion = Completion(id=self._id, created=self._created, model=self.model, choices=choices, usage=counted)
        return wire.with_additions(completion, answers)

    def _chunks_of(self, item: Event) -> Iterator[CompletionChunk | dict[str, Any]]:
        match item:
            case Delta():
                logprobs = self._logprobs(item.choice, item.logprobs)
                yield self._chunk(CompletionChunkChoice(item.choice, item.text, logprobs, None))
            case Ended():
                yield self._chunk(CompletionChunkChoice(item.choice, "", None, item.reason))
            case Addition():
                yield wire.chunk_with_addition(self._chunk(CompletionChunkChoice(item.choice, "", None, None)), item)
            case Finished() if self._request.include_usage and item.counted:
                yield self._chunk(usage=wire.usage(item))

    def _chunk(self, *choices: CompletionChunkChoice, usage: wire.Usage | UnsetType | None = UNSET) -> CompletionChunk:
        return CompletionChunk(id=self._id, created=self._created, model=self.model, choices=list(choices), usage=usage)

    def _logprobs(self, index: int, tokens: list[TokenLogprob]) -> CompletionLogprobs | None:
        """Return the log probabilities of a choice's next tokens, if requested."""
        if self._request.logprobs is None or not tokens:
            return None
        offsets: list[int] = []
        at = self._offsets.get(index, 0)
        for token in tokens:
            offsets.append(at)
            at += len(token.token.decode("utf-8", "ignore"))
        self._offsets[index] = at
        return CompletionLogprobs(
            tokens=[token.token.decode("utf-8", "replace") for token in tokens],
            token_logprobs=[token.logprob for token in tokens],
            top_logprobs=[{o.token.decode("utf-8", "replace"): o.logprob for o in token.top} for token in tokens],
            text_offset=offsets,
        )
