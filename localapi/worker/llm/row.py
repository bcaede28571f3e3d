"""One response while it grows: from tokens to the events of OpenAI's API. This module knows no MLX.

A request has one row for each of its `n` responses. What they have in common is counted in their `RequestTotals`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from localapi.worker.llm.output.parser import Content, OutputItem, OutputParser, Reasoning
from localapi.worker.llm.output.sections import CallStart
from localapi.worker.llm.output.stop_strings import AnswerText
from localapi.worker.protocol import Delta, Ended, Event, Finished, TokenLogprob, ToolArguments, ToolStart

FinishReason = Literal["stop", "length"]


class Processor(Protocol):
    """Processor that changes the logits before a token is sampled.

    It never raises; `error` is set if something went wrong.
    """

    error: Exception | None

    def __call__(self, tokens: Any, logits: Any) -> Any:
        """Return the changed logits.

        `tokens` are the prompt and the response so far; they may have grown by several.
        """

    def forced(self, token: int) -> list[int]:
        """Return the tokens that must follow if this is the next one."""


@dataclass(slots=True)
class RequestTotals:
    """Totals of the rows of one request."""

    id: int
    prompt_tokens: int
    rows_left: int = 1
    cached_tokens: int = 0
    completion_tokens: int = 0
    """All generated tokens, including those that end responses, as vLLM and mlx_lm.server count."""
    reasoning_tokens: int = 0

    def finished(self) -> Finished:
        return Finished(self.id, self.prompt_tokens, self.completion_tokens, self.cached_tokens, self.reasoning_tokens)


@dataclass(slots=True, kw_only=True)
class Row:
    """One response, ready for the batch."""

    totals: RequestTotals
    choice: int
    prompt: list[int]
    """Tokens of the prompt."""
    max_tokens: int
    reach: int
    """Tokens of prompt and response for which memory is reserved."""
    length: int
    """Number of tokens of both so far."""
    sampler: Any
    processors: list[Processor]
    answer: AnswerText
    parts: OutputParser | None
    """Output parser; None if all text is the answer."""
    top_logprobs: int | None = None
    form_param: str | None = None
    """Field of the request that gives the response a form."""
    relaxed: tuple[str, ...] = ()
    """Places in the request that require more than is enforced."""
    one_call: bool = False
    """True if the response ends with its first tool call."""
    boundaries: list[int] = field(default_factory=list)
    """Lengths of the prompt's prefixes that later prompts may share."""
    sight: Any = None
    """Input of the model besides the prompt's tokens."""
    copies: list[Row] = field(default_factory=list)
    """Other responses to the same prompt, which need not compute it again."""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    """Log probabilities of tokens whose text is still held back."""

    @property
    def id(self) -> int:
        return self.totals.id

    def grow(self, token: int, reason: FinishReason | None, events: list[Event]) -> bool:
        """Add one token; return True if it is the response's last. A stop token is not text.

        Raise the error of a processor or the sampler.
        """
        self.totals.completion_tokens += 1
        self.length += 1
        self.reach = max(self.reach, self.length)
        for step in (*self.processors, self.sampler):
            error = getattr(step, "error", None)
            if error is not None:
                raise error
        text = "" if reason == "stop" else self.answer.push(token)
        if reason is not None:
            text += self.answer.finish()
        if self.answer.stopped:
            reason = "stop"
        events += self._events(text, reason)
        if reason is None and self.parts is not None and self.parts.stopped:
            reason = "stop"
            events += self._end(reason)
        if reason is None and self.one_call and self.parts is not None and self.parts.complete_calls:
            reason = "stop"
            events += self._end(reason)
        return reason is not None

    def _events(self, text: str, reason: FinishReason | None) -> Iterator[Event]:
        if self.parts is None:
            if text:
                yield self._delta(text)
        else:
            if self.parts.state == "reasoning":
                self.totals.reasoning_tokens += 1
            yield from map(self._event, self.parts.push(text))
        if reason is not None:
            yield from self._end(reason)

    def _end(self, reason: FinishReason) -> Iterator[Event]:
        ending: Literal["stop", "length", "tool_calls"] = reason
        stop_string = self.answer.stop_string
        if self.parts is not None:
            yield from map(self._event, self.parts.finish(cut=reason == "length"))
            if self.parts.stopped:
                ending = "stop"
            stop_string = self.parts.stop_string  # the answer's own are the template's
            if ending == "stop" and self.parts.calls_end_answer:
                ending = "tool_calls"
        if self.logprobs:
            yield self._delta("")
        yield Ended(self.id, self.choice, ending, stop_string)
        self.totals.rows_left -= 1
        if self.totals.rows_left == 0:
            yield self.totals.finished()

    def _event(self, part: OutputItem) -> Event:
        match part:
            case Content():
                return self._delta(part.text)
            case Reasoning():
                return self._delta(part.text, reasoning=True)
            case CallStart():
                return ToolStart(self.id, self.choice, part.index, part.call_id, part.name)
            case _:
                return ToolArguments(self.id, self.choice, part.index, part.text)

    def _delta(self, text: str, *, reasoning: bool = False) -> Delta:
        logprobs, self.logprobs = self.logprobs, []
        return Delta(self.id, text, self.choice, reasoning, logprobs)
