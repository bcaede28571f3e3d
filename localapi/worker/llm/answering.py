"""Turn requests into rows of the running batch, whatever computes them.

A request is first in `_arrived` (its text is not read yet), then in `_waiting` (its prompt is tokenized, but there is
no room in the batch or in memory), then in the batch. It can end in any of these states.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from localapi.worker.llm.constrained.grammar import GrammarCompiler, GrammarRefused, NotCompiled
from localapi.worker.llm.constrained.vocabulary import VocabularyIndex
from localapi.worker.llm.detokenizer import Detokenizer
from localapi.worker.llm.output.parser import OutputFormat
from localapi.worker.llm.output.recognition import AUTO, Recognised, recognise
from localapi.worker.llm.prompt import PromptRefused, PromptWriter
from localapi.worker.llm.request_queue import RequestQueue
from localapi.worker.llm.request_reading import ContextExceeded, Prompt, RequestReader
from localapi.worker.llm.row import Row
from localapi.worker.llm.row_maker import RowMaker
from localapi.worker.llm.weights import logits_width
from localapi.worker.protocol import (
    Answering,
    Capabilities,
    Chat,
    Complete,
    Delta,
    Detokenize,
    DetokenizedText,
    Event,
    Failed,
    Loaded,
    Relaxed,
    Request,
    Speculated,
    TextRequest,
    Tokenize,
    TokenizedText,
    form_param,
)

if TYPE_CHECKING:
    from localapi.worker.llm.batch import Batch
    from localapi.worker.llm.kv_memory import KVMemory
    from localapi.worker.llm.serial import Serial

READ_CHARACTERS = 32_768
"""Characters of new prompts that are read before a decode step. Tokenizing takes about a second per million."""


def recognised(tokenizer: Any, options: Mapping[str, Any]) -> Recognised:
    """Set the formats of calls and reasoning on a tokenizer, by an entry's options and its template; return them."""
    return recognise(tokenizer, tools=options.get("tool_format", AUTO), reasoning=options.get("reasoning_format", AUTO))


class TextSide:
    """Text as one chat model reads and writes it: prompts, grammars, tokens and the format of its output."""

    def __init__(
        self,
        tokenizer: Any,
        config: Mapping[str, Any],
        options: Mapping[str, Any],
        index: VocabularyIndex | None = None,
    ) -> None:
        """Create it from mlx-lm's TokenizerWrapper and the entry's options; `index` is as in `GrammarCompiler`."""
        self.tokenizer = tokenizer
        self.index = index
        self._formats = recognised(tokenizer, options)
        self.prompts = PromptWriter(tokenizer)
        self.output = OutputFormat(tokenizer)
        self.width = logits_width(config, tokenizer)
        self.grammars = GrammarCompiler(tokenizer, self.width, index)
        # The marks around reasoning and calls are text even if they are special tokens.
        marks = {token for mark in self.output.marks for token in tokenizer.encode(mark, add_special_tokens=False)}
        self.detokenizer = Detokenizer(tokenizer, markers=marks)
        self.stop_tokens: list[int] = sorted(tokenizer.eos_token_ids)

    def capabilities(self, **media: bool) -> Capabilities:
        """Return what the model can do. `media` tells whether it accepts images and audio, if it may."""
        return Capabilities(
            tools=self.prompts.shows_tools,
            tool_format=self._formats.tools,
            reasoning_format=self._formats.reasoning,
            forced_tools=self.grammars.forces_calls,
            json_schema=bool(self.stop_tokens),
            **self.prompts.thinking,
            **media,
        )


class Answerer:
    """Chat model without the part that loads and computes it. See `worker.model.Model`."""

    def __init__(
        self,
        text: TextSide,
        reader: RequestReader,
        batch: Batch | Serial,
        *,
        loaded: Loaded,
        memory: KVMemory,
        max_rows: int,
        wake: Callable[[], None],
    ) -> None:
        """Create it; `max_rows` is the maximum number of responses to one request, `wake` is as in `Host`."""
        self.loaded = loaded
        self._batch = batch
        self._rows = RowMaker(
            text.tokenizer,
            text.output,
            text.grammars,
            text.detokenizer,
            memory=memory,
            context_length=loaded.context_length,
            max_rows=max_rows,
            width=text.width,
            template_stop=text.prompts.stop,
        )
        self._arrived = RequestQueue(reader.read, wake)
        self._waiting: deque[Row] = deque()
        if text.index is not None:
            text.index.wait()  # otherwise it would interrupt the first responses

    @property
    def busy(self) -> bool:
        return bool(self._batch.busy or self._waiting or self._arrived.ready)

    @property
    def waiting(self) -> int:
        return len(self._arrived) + len(self._waiting)

    @property
    def tokens(self) -> int:
        return self._batch.tokens

    @property
    def speculated(self) -> Speculated | None:
        """Return the counts of speculation; None if there is none."""
        known = self._batch.speculation
        return None if known is None else Speculated(known.forced, known.proposed, known.accepted)

    def take(self, request: Request) -> None:
        assert isinstance(request, TextRequest), request  # noqa: S101  # the server sends no others to chat models
        self._arrived.add(request)

    def cancel(self, id: int) -> None:  # noqa: A002  # the protocol's word
        self._arrived.cancel(id)
        self._waiting = deque(row for row in self._waiting if row.id != id)
        self._batch.leave(id)

    def step(self) -> list[Event]:
        events: list[Event] = []
        self._prepare(events)
        while self._waiting and self._may_join(self._waiting[0]):
            row = self._waiting.popleft()
            if row.relaxed:
                events.append(Relaxed(row.id, list(row.relaxed)))
            self._batch.join(row, events)
        self._batch.step(events)
        if not self.busy:
            mx.clear_cache()
        return events

    def save_some(self) -> bool:
        """Write a part of the prefix cache to disk at an idle moment; return True if there is more."""
        return self._batch.prefixes.save_some()

    def _may_join(self, row: Row) -> bool:
        rows = 1 + len(row.copies)
        return self._batch.room >= rows and self._rows.memory.fits(row.reach, rows, self._batch.reaches())

    def _prepare(self, events: list[Event]) -> None:
        """Turn queued requests into rows, as many as decoding can wait for."""
        characters = 0
        while self._arrived.ready and characters < READ_CHARACTERS:
            arrival = self._arrived.take()
            request = arrival.request
            characters += arrival.characters
            try:
                prompt = self._arrived.prompt(arrival)
                if prompt is not None:
                    self._start(request, prompt, events)
            except ContextExceeded as error:
                param = "prompt" if isinstance(request, Complete) else "messages"
                events.append(Failed(request.id, "context_length_exceeded", str(error), param))
            except PromptRefused as error:
                events.append(Failed(request.id, "invalid_request", str(error), error.param))
            except GrammarRefused as error:
                assert isinstance(request, Answering)  # noqa: S101  # the others have no form
                events.append(Failed(request.id, "invalid_request", str(error), form_param(request)))
            except ValueError as error:  # an invalid value that the server does not check
                events.append(Failed(request.id, "invalid_request", str(error)))
            except Exception as error:  # a bug; only this request fails
                traceback.print_exception(error)
                events.append(Failed(request.id, "generation_failed", f"The request could not be started: {error}"))

    def _start(self, request: TextRequest, prompt: Prompt, events: list[Event]) -> None:
        """Answer immediately, or queue the request's rows. Raise PromptRefused and GrammarRefused."""
        # Some grammars take 0.2 s to compile. The thread does that if running responses would have to wait for it.
        wait = not (self._batch.busy or self._waiting)
        try:
            match request:
                case Tokenize():
                    events.append(TokenizedText(request.id, prompt.tokens))
                case Detokenize():
                    events.append(DetokenizedText(request.id, prompt.text))
                case Chat():
                    self._waiting.append(self._rows.of_chat(request, prompt, wait=wait))
                case Complete():
                    row = self._rows.of_completion(request, prompt, wait=wait)
                    if request.echo:
                        events += [Delta(request.id, prompt.text, choice) for choice in range(request.n)]
                    self._waiting.append(row)
        except NotCompiled as missing:
            self._arrived.put_back(request, prompt, missing.compile)
