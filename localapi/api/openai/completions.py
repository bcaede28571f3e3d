"""`POST /v1/completions`: texts or tokens, continued without a chat template."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from pydantic import Field
from quart import Blueprint, Response

from localapi.api.openai.choices import usage
from localapi.api.openai.generation_request import (
    GenerationRequest,
    Grammar,
    Pattern,
    TokenNumber,
    form_of,
    refuse,
    request_ids,
    settled,
    unknown_fields,
)
from localapi.backends.parameters import GenerationParameters
from localapi.errors import InvalidRequest
from localapi.http import body
from localapi.http.generation import Generation
from localapi.http.replies import json_reply
from localapi.kinds.chat import CHAT, chat_options
from localapi.runtime.lease import Lease
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
        """Each prompt, as text or tokens."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if all(isinstance(part, int) for part in self.prompt):
            return [self.prompt]  # type: ignore[list-item]  # a list of int
        return list(self.prompt)  # type: ignore[arg-type]


def routes(registry: Registry) -> Blueprint:
    """The endpoint."""
    blueprint = Blueprint("completions", __name__)

    @blueprint.post("/v1/completions")
    async def create_completion() -> Response:
        content = refuse(await body.read_object(), _NOT_HONOURED)
        request = body.parse(CompletionRequest, content)
        if request.echo and request.logprobs is not None:
            raise InvalidRequest("'echo' with 'logprobs' is not supported.", param="echo", code="unsupported_parameter")
        completion = TextCompletion(registry, request)
        reply = await completion.stream() if request.stream else await completion.whole()
        return body.name_locked(completion.overruled, body.name_ignored(unknown_fields(request, content), reply))

    return blueprint


@dataclass
class TextCompletion:
    """One reply. The answers to prompt p are the choices from p * n on."""

    registry: Registry
    request: CompletionRequest
    id: str = field(default_factory=lambda: f"cmpl-{secrets.token_hex(14)}")
    created: int = field(default_factory=lambda: int(time.time()))
    overruled: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._generation = Generation(self.registry, self.request.model, self._requests_for, CHAT)
        _, self.overruled = settled(GenerationParameters, self.request, chat_options(self._generation.entry.options))
        self._first_choice: dict[int, int] = {}
        self._offsets: dict[int, int] = {}
        self._total = Finished(0, 0, 0)
        self._left = len(self.request.prompts)

    def _requests_for(self, lease: Lease) -> list[Complete]:
        said, self.overruled = settled(GenerationParameters, self.request, chat_options(lease.entry.options))
        requests = [
            Complete(
                id=next(request_ids),
                prompt=prompt,
                sampling=said.sampling,
                max_tokens=said.longest_answer or DEFAULT_MAX_TOKENS,
                stop=said.stop_strings,
                n=self.request.n,
                top_logprobs=self.request.logprobs,
                echo=self.request.echo,
                form=form_of(self.request.regex, self.request.grammar),
            )
            for prompt in self.request.prompts
        ]
        self._first_choice = {request.id: at * self.request.n for at, request in enumerate(requests)}
        return requests

    async def whole(self) -> Response:
        """The reply when all is known."""
        count = len(self.request.prompts) * self.request.n
        texts: list[list[str]] = [[] for _ in range(count)]
        tokens: list[list[TokenLogprob]] = [[] for _ in range(count)]
        reasons: list[str | None] = [None] * count
        async with aclosing(self._generation.events()) as events:
            async for item in events:
                if isinstance(item, Delta):
                    texts[self._choice(item)].append(item.text)
                    tokens[self._choice(item)] += item.logprobs
                elif isinstance(item, Ended):
                    reasons[self._choice(item)] = item.reason
                elif isinstance(item, Finished):
                    self._count(item)
        choices = [self._object(at, "".join(texts[at]), tokens[at], reasons[at]) for at in range(count)]
        return json_reply({**self._frame(), "choices": choices, "usage": usage(self._total)})

    async def stream(self) -> Response:
        """The reply in chunks."""
        return await self._generation.stream(self._chunks)

    def _chunks(self, item: Event) -> Iterator[dict[str, Any]]:
        if isinstance(item, Delta):
            yield {**self._frame(), "choices": [self._object(self._choice(item), item.text, item.logprobs, None)]}
        elif isinstance(item, Ended):
            yield {**self._frame(), "choices": [self._object(self._choice(item), "", [], item.reason)]}
        elif isinstance(item, Finished):
            self._count(item)
            if self._left == 0 and self.request.include_usage:
                yield {**self._frame(), "choices": [], "usage": usage(self._total)}

    def _choice(self, item: Delta | Ended) -> int:
        return self._first_choice[item.id] + item.choice

    def _count(self, item: Finished) -> None:
        self._left -= 1
        total = self._total
        self._total = Finished(
            0,
            total.prompt_tokens + item.prompt_tokens,
            total.completion_tokens + item.completion_tokens,
            total.cached_tokens + item.cached_tokens,
        )

    def _object(self, index: int, text: str, tokens: list[TokenLogprob], reason: str | None) -> dict[str, Any]:
        found = self._logprobs(index, tokens) if self.request.logprobs is not None and tokens else None
        return {"index": index, "text": text, "logprobs": found, "finish_reason": reason}

    def _logprobs(self, index: int, tokens: list[TokenLogprob]) -> dict[str, Any]:
        """OpenAI's older form: parallel lists, with where each token begins in the answer's text."""
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
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self._generation.entry.id,
        }
