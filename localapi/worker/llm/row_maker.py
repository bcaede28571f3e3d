"""Make the rows of a request's responses: how each is sampled, constrained, limited and parsed.

This module knows the tokenizer, but not the batch that the rows join.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from localapi.worker.llm.constrained.grammar import (
    Constraint,
    FormatUnknown,
    GrammarCompiler,
    Spec,
    Tool,
    ToolCalls,
    think_block,
)
from localapi.worker.llm.detokenizer import Detokenizer
from localapi.worker.llm.kv_memory import UNSAID_TOKENS, KVMemory
from localapi.worker.llm.output.parser import OutputFormat
from localapi.worker.llm.output.stop_strings import AnswerText
from localapi.worker.llm.output.thinking import prompt_opens_thinking
from localapi.worker.llm.prompt import PromptRefused, offered_tools
from localapi.worker.llm.request_reading import ContextExceeded, Prompt
from localapi.worker.llm.row import Processor, RequestTotals, Row
from localapi.worker.llm.sampling import penalties_for, sampler_for
from localapi.worker.protocol import Chat, Complete, Lark, Regex, form_param

UNKNOWN_CONTEXT_ANSWER_TOKENS = 32_768
"""Maximum length of a response if neither the request nor the model sets a limit."""


class RowMaker:
    """Maker of rows for one model."""

    def __init__(
        self,
        tokenizer: Any,
        output: OutputFormat,
        grammars: GrammarCompiler,
        detokenizer: Detokenizer,
        *,
        memory: KVMemory,
        context_length: int | None,
        max_rows: int,
        width: int,
        template_stop: Sequence[str],
    ) -> None:
        """Create a maker; `width` is that of the logits, `template_stop` are strings that end each response in chat."""
        self.memory = memory
        self._tokenizer = tokenizer
        self._format = output
        self._grammars = grammars
        self._detokenizer = detokenizer
        self._context_length = context_length
        self._max_rows = max_rows
        self._width = width
        self._template_stop = template_stop

    def of_chat(self, request: Chat, prompt: Prompt, *, wait: bool = True) -> Row:
        """Return the rows of a conversation's responses. Raise ContextExceeded, PromptRefused and GrammarRefused.

        `wait` is as in `GrammarCompiler.constraint`.
        """
        tools = offered_tools(request)
        constraint, relaxed = self._constraint(request, prompt, wait=wait)
        row = self._row(request, prompt, constraint)
        row.relaxed = relaxed
        thinking = prompt_opens_thinking(self._tokenizer, prompt.tokens, prefill=_prefill(request))
        verbatim = request.tool_choice != "required" and isinstance(request.form, Regex | Lark)
        taken = {call.id for message in request.messages for call in message.calls}
        for each in (row, *row.copies):
            each.parts = self._format.stream(
                tools,
                starts_thinking=thinking,
                continues=request.continues,
                stop=request.stop,
                verbatim=verbatim,
                taken=taken,
            )
            each.one_call = bool(tools) and not request.parallel_tool_calls
        return row

    def of_completion(self, request: Complete, prompt: Prompt, *, wait: bool = True) -> Row:
        """Return the rows of a text's continuations. Raises as `of_chat`."""
        form = self._grammars.constraint(request.form, wait=wait) if request.form is not None else None
        return self._row(request, prompt, form)

    def _constraint(self, request: Chat, prompt: Prompt, *, wait: bool) -> tuple[Constraint | None, tuple[str, ...]]:
        """Return the constraint on the response, and the requirements beyond it. Raise GrammarRefused."""
        form: Spec | None = request.form
        if request.tool_choice == "required":
            form = _tool_calls(request)
        if form is not None:
            think = think_block(self._tokenizer, prompt.tokens, _prefill(request))
            constraint = self._grammars.constraint(form, think=think, wait=wait)
            return constraint, constraint.relaxed
        calls = _tool_calls(request, optional=True)
        strict = [tool.name for tool in calls.tools if tool.strict]
        if request.tool_choice == "none" or not strict:
            return None, ()
        try:
            constraint = self._grammars.constraint(calls, wait=wait)
        except FormatUnknown:  # the model may still call them: clients that always set strict must not lose their tools
            return None, tuple(f"tools[{name}].strict" for name in strict)
        return constraint, constraint.relaxed

    def _row(self, request: Chat | Complete, prompt: Prompt, form: Constraint | None) -> Row:
        """Return the request's first response, with the others as its copies."""
        if request.n > self._max_rows:
            raise PromptRefused(f"n is {request.n}; the maximum for this model is {self._max_rows}.", "n")
        totals = RequestTotals(request.id, len(prompt.tokens), rows_left=request.n)
        max_tokens, reach = self._extent(request, totals.prompt_tokens)
        rows = [
            Row(
                totals=totals,
                choice=choice,
                prompt=prompt.tokens,
                sight=prompt.sight,
                max_tokens=max_tokens,
                reach=reach,
                length=totals.prompt_tokens,
                sampler=sampler_for(request.sampling, choice),
                processors=self._processors(request, form),
                answer=AnswerText(
                    self._detokenizer.stream(),
                    # In chat, the client's stop strings apply only to the content, so the output parser finds them.
                    self._template_stop if isinstance(request, Chat) else request.stop,
                    verbatim=isinstance(request, Complete)
                    or request.continues
                    or isinstance(request.form, Regex | Lark),
                ),
                parts=None,
                top_logprobs=request.top_logprobs,
                form_param=form_param(request) if form else None,
            )
            for choice in range(request.n)
        ]
        rows[0].copies = rows[1:]
        rows[0].boundaries = prompt.boundaries
        return rows[0]

    def _extent(self, request: Chat | Complete, prompt: int) -> tuple[int, int]:
        """Return the maximum tokens of a response, and the row length for which memory is reserved.

        Raise ContextExceeded and PromptRefused if that exceeds the limit.
        """
        context, longest = self._context_length, self.memory.longest(request.n)
        room = context - prompt if context is not None else request.max_tokens or UNKNOWN_CONTEXT_ANSWER_TOKENS
        if request.max_tokens is None or not self.memory.said:
            answer = max(1, min(request.max_tokens or room, room, longest - prompt))
            reach = prompt + min(answer, UNSAID_TOKENS)
        else:
            answer = max(1, min(request.max_tokens, room))
            reach = prompt + answer
        if reach > longest:
            problem = self.memory.refusal(prompt, reach, request.n)
            raise PromptRefused(problem, "max_tokens") if prompt < longest else ContextExceeded(problem)
        return answer, reach

    def _processors(self, request: Chat | Complete, form: Constraint | None) -> list[Processor]:
        bias = request.sampling.logit_bias or {}
        wrong = [token for token in bias if not 0 <= token < self._width]
        if wrong:
            raise PromptRefused(
                f"logit_bias names the token {wrong[0]}; this model's tokens are 0 to {self._width - 1}.", "logit_bias"
            )
        penalties = penalties_for(request.sampling)
        found: list[Processor] = []
        if penalties is not None:
            found.append(penalties)
        if form is not None:
            found.append(form.fresh())
        return found


def _prefill(request: Chat) -> str:
    return request.messages[-1].text if request.continues else ""


def _tool_calls(request: Chat, *, optional: bool = False) -> ToolCalls:
    tools = tuple(
        Tool(tool.name, json.dumps(tool.parameters or {}, ensure_ascii=False), bool(tool.strict))
        for tool in request.tools
    )
    return ToolCalls(tools, request.tool_name, request.parallel_tool_calls, optional)
