"""`POST /v1/completions`: texts or tokens, continued without a chat template."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final

from pydantic import Field
from quart import Blueprint

from localapi.api import reply_shapes as shapes
from localapi.api.answers import Answer
from localapi.api.dialect import DialectBlueprint
from localapi.api.neutral_request import NeutralRequest
from localapi.api.openai import wire
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
from localapi.worker.protocol import Complete, Delta, Ended, Event, Finished, TokenLogprob

MAX_PROMPTS: Final = 64
DEFAULT_MAX_TOKENS: Final = 16
"""As OpenAI's."""
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
        """Return each prompt, as text or tokens."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if all(isinstance(part, int) for part in self.prompt):
            return [self.prompt]  # type: ignore[list-item]  # a list of int
        return list(self.prompt)  # type: ignore[arg-type]

    def neutral(self, ignored: Sequence[str]) -> NeutralRequest:
        """Return the request as all dialects give it."""
        asks = [
            Complete(
                id=0,
                prompt=prompt,
                n=self.n,
                top_logprobs=self.logprobs,
                echo=self.echo,
                form=form_of(self.regex, self.grammar),
            )
            for prompt in self.prompts
        ]
        return NeutralRequest(
            model=self.model,
            asks=asks,
            said=self.parameters(),
            usual={"max_tokens": DEFAULT_MAX_TOKENS},
            stream=self.stream,
            ignored=ignored,
        )


def routes(registry: Registry) -> Blueprint:
    """Return the endpoint."""
    return DialectBlueprint(registry, OpenAICompletions())


OPERATIONS: Final[Operations] = {
    ("POST", "/v1/completions"): Operation(
        summary="The continuation of a text or of tokens.",
        content={JSON: shapes.CompletionReply, EVENTS: None},
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
        known = refuse(content, _NOT_HONOURED)
        request = body.parse(CompletionRequest, known)
        if request.echo and request.logprobs is not None:
            raise InvalidRequest("'echo' with 'logprobs' is not supported.", param="echo", code="unsupported_parameter")
        return request.neutral(unknown_fields(request, known)), CompletionReply(request)


class CompletionReply(wire.EventStream[Event]):
    """One reply."""

    model = ""

    def __init__(self, request: CompletionRequest) -> None:
        super().__init__(self._chunks_of)
        self._request = request
        self._id = f"cmpl-{secrets.token_hex(14)}"
        self._created = int(time.time())
        self._offsets: dict[int, int] = {}
        """Characters of each choice that were sent with log probabilities."""

    def whole(self, answers: Sequence[Answer], usage: Finished) -> dict[str, Any]:
        choices = [self._choice(at, answer.text, answer.tokens, answer.reason) for at, answer in enumerate(answers)]
        return {**self._frame(), "choices": choices, "usage": wire.usage(usage)}

    def _chunks_of(self, item: Event) -> Iterator[dict[str, Any]]:
        match item:
            case Delta():
                yield {**self._frame(), "choices": [self._choice(item.choice, item.text, item.logprobs, None)]}
            case Ended():
                yield {**self._frame(), "choices": [self._choice(item.choice, "", [], item.reason)]}
            case Finished() if self._request.include_usage:
                yield {**self._frame(), "choices": [], "usage": wire.usage(item)}

    def _choice(self, index: int, text: str, tokens: list[TokenLogprob], reason: str | None) -> dict[str, Any]:
        found = self._logprobs(index, tokens) if self._request.logprobs is not None and tokens else None
        return {"index": index, "text": text, "logprobs": found, "finish_reason": reason}

    def _logprobs(self, index: int, tokens: list[TokenLogprob]) -> dict[str, Any]:
        """Return OpenAI's older form: parallel lists, with where each token begins in the answer's text."""
        offsets: list[int] = []
        at = self._offsets.get(index, 0)
        for token in tokens:
            offsets.append(at)
            at += len(token.token.decode("utf-8", "ignore"))
        self._offsets[index] = at
        return {
            "tokens": [token.token.decode("utf-8", "replace") for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{o.token.decode("utf-8", "replace"): o.logprob for o in token.top} for token in tokens],
            "text_offset": offsets,
        }

    def _frame(self) -> dict[str, Any]:
        return {"id": self._id, "object": "text_completion", "created": self._created, "model": self.model}
