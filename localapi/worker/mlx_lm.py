"""Chat with mlx-lm: from a request to a row of the running batch.

A request is first in `_arrived` (nothing done yet), then in `_waiting` (its prompt is tokens, and the batch has no
room), then in the batch. It is dropped wherever it ends.
"""

from __future__ import annotations

import sys
from collections import deque
from pathlib import Path
from typing import Any

import mlx.core as mx

from localapi.worker.answer import Answer
from localapi.worker.batch import Batch, Row
from localapi.worker.detokenizer import Detokenizer
from localapi.worker.engine import Report
from localapi.worker.prompt import NO_TEMPLATE_NOTE, PromptRefused, PromptWriter
from localapi.worker.protocol import Chat, Event, Failed, Loaded
from localapi.worker.sampling import sampler_for
from localapi.worker.weights import LoadedModel, load_weights

TOKENIZED_CHARACTERS = 65_536
"""Characters of new prompts after which a decode step comes first. Tokenizing takes about a second per million."""
UNKNOWN_CONTEXT_ANSWER_TOKENS = 32_768
"""The longest answer where neither the request nor the model sets an end: it must not fill the memory."""


def load(options: dict[str, Any], report: Report) -> MlxLm:
    """The model that the entry's options name. Raises CannotLoad."""
    return MlxLm(
        load_weights(options["path"], options.get("revision"), report),
        name=Path(options["path"]).name,
        context_length=options.get("context_length"),
        max_batch=options.get("max_batch", 32),
    )


class MlxLm:
    """The engine: see `engine.Engine`."""

    def __init__(self, loaded: LoadedModel, *, name: str, context_length: int | None, max_batch: int) -> None:
        """`name`: what messages call the model. `context_length` None: what the model's config says."""
        tokenizer = loaded.tokenizer
        self._name = name
        self._prompts = PromptWriter(tokenizer)
        self._detokenizer = Detokenizer(tokenizer, markers=_markers(tokenizer))
        self._batch = Batch(loaded.model, stop_tokens=sorted(tokenizer.eos_token_ids), max_rows=max_batch)
        self._arrived: deque[Chat] = deque()
        self._waiting: deque[Row] = deque()
        self.loaded = _loaded(loaded.config, context_length, self._prompts)

    @property
    def busy(self) -> bool:
        return bool(self._batch.busy or self._waiting or self._arrived)

    def chat(self, request: Chat) -> None:
        known = (queued.id for queue in (self._arrived, self._waiting) for queued in queue)
        if request.id in known or self._batch.has(request.id):
            print(f"request {request.id} came twice; the second is ignored", file=sys.stderr)  # noqa: T201
        else:
            self._arrived.append(request)

    def cancel(self, id: int) -> None:  # noqa: A002  # the protocol's word
        self._arrived = deque(request for request in self._arrived if request.id != id)
        self._waiting = deque(row for row in self._waiting if row.id != id)
        self._batch.leave(id)

    def step(self) -> list[Event]:
        events: list[Event] = []
        if self._arrived:
            self._prepare(events)
        if rows := [self._waiting.popleft() for _ in range(min(self._batch.room, len(self._waiting)))]:
            self._batch.join(rows, events)
        self._batch.step(events)
        if not self.busy:
            mx.clear_cache()
        return events

    def _prepare(self, events: list[Event]) -> None:
        """Make rows of arrived requests, as many as decoding can wait for."""
        characters = 0
        while self._arrived and characters < TOKENIZED_CHARACTERS:
            request = self._arrived.popleft()
            characters += sum(len(str(message.get("content"))) for message in request.messages)
            row = self._row(request)
            if isinstance(row, Failed):
                events.append(row)
            else:
                self._waiting.append(row)

    def _row(self, request: Chat) -> Row | Failed:
        """The request, ready for the batch; or why it never will be."""
        try:
            prompt = self._prompts.tokens(request)
            sampler = sampler_for(request.sampling)
        except PromptRefused as error:
            return Failed(request.id, "invalid_request", str(error), error.param)
        except ValueError as error:
            return Failed(request.id, "invalid_request", str(error))
        context = self.loaded.context_length
        if context is not None and len(prompt) >= context:
            message = f"The prompt has {len(prompt)} tokens; {self._name}'s context is {context} tokens."
            return Failed(request.id, "context_length_exceeded", message, "messages")
        return Row(
            id=request.id,
            prompt=prompt,
            prompt_tokens=len(prompt),
            max_tokens=_answer_tokens(request.max_tokens, None if context is None else context - len(prompt)),
            sampler=sampler,
            answer=Answer(self._detokenizer.stream(), [*request.stop, *self._prompts.stop]),
        )


def _answer_tokens(asked: int | None, room: int | None) -> int:
    """The longest answer to this request: what was asked for, as far as the context has room."""
    if room is None:
        room = UNKNOWN_CONTEXT_ANSWER_TOKENS if asked is None else asked
    return max(1, room if asked is None else min(asked, room))


def _loaded(config: dict[str, Any], asked: int | None, prompts: PromptWriter) -> Loaded:
    """What there is to say about the model."""
    own = config.get("max_position_embeddings") or (config.get("text_config") or {}).get("max_position_embeddings")
    notes = [] if prompts.has_template else [NO_TEMPLATE_NOTE]
    if asked and own and asked > own:
        notes.append(f"context_length is {asked}; the model was made for {own} tokens, and may write nonsense beyond.")
    return Loaded(context_length=asked or own, notes=notes)


def _markers(tokenizer: Any) -> set[int]:
    """Tokens of the marks around thinking and tool calls: text, even where the tokenizer calls them special."""
    marks = (
        tokenizer.think_start_tokens,
        tokenizer.think_end_tokens,
        tokenizer.tool_call_start_tokens,
        tokenizer.tool_call_end_tokens,
    )
    return {token for mark in marks if mark for token in mark}
