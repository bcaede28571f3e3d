"""Chat with mlx-lm: from a request to rows of the running batch.

A request is first in `_arrived` (nothing done yet), then in `_waiting` (its prompt is tokens, and the batch has no
room), then in the batch. It is dropped wherever it ends.
"""

from __future__ import annotations

import json
import os
import sys
from collections import deque
from pathlib import Path
from typing import Any

import mlx.core as mx

from localapi.worker.answer import Answer
from localapi.worker.batch import Batch
from localapi.worker.detokenizer import Detokenizer
from localapi.worker.engine import Host
from localapi.worker.grammar import Constraint, GrammarRefused, Grammars, Spec, Tool, ToolCalls, think_block
from localapi.worker.parts import PartsFormat, prompt_opens_thinking
from localapi.worker.penalties import penalties_for
from localapi.worker.prefix_cache import PrefixCache, boundaries
from localapi.worker.prefix_store import PrefixStore, fingerprint
from localapi.worker.prompt import NO_TEMPLATE_NOTE, PromptRefused, PromptWriter
from localapi.worker.protocol import (
    Chat,
    Complete,
    Delta,
    Detokenize,
    Event,
    Failed,
    Lark,
    Loaded,
    Regex,
    Request,
    Speak,
    Text,
    TextRequest,
    Tokenize,
    Tokens,
)
from localapi.worker.row import Processor, Row, Tally
from localapi.worker.sampling import sampler_for
from localapi.worker.serial import Serial, check_draft, empty_caches
from localapi.worker.weights import LoadedModel, load_weights

TOKENIZED_CHARACTERS = 65_536
"""Characters of new prompts after which a decode step comes first. Tokenizing takes about a second per million."""
UNKNOWN_CONTEXT_ANSWER_TOKENS = 32_768
"""The longest answer where neither the request nor the model sets an end: it must not fill the memory."""
MEGABYTE = 1024 * 1024


class ContextExceeded(Exception):
    """The prompt does not fit."""


def load(options: dict[str, Any], host: Host) -> MlxLm:
    """The model that the entry's options name. Raises CannotLoad."""
    loaded = load_weights(options["path"], options.get("revision"), host.report, adapter=options.get("adapter"))
    draft = load_weights(options["draft"], None, host.report) if options.get("draft") else None
    return MlxLm(loaded, options, draft)


class MlxLm:
    """The engine: see `engine.Engine`."""

    def __init__(self, loaded: LoadedModel, options: dict[str, Any], draft: LoadedModel | None = None) -> None:
        """`options`: the entry's identity, as `backends.mlx_lm` has it. Raises CannotLoad."""
        tokenizer = loaded.tokenizer
        self._name = Path(options["path"]).name
        self._tokenizer = tokenizer
        self._prompts = PromptWriter(tokenizer)
        self._parts = PartsFormat(tokenizer)
        self._grammars = Grammars(tokenizer, _vocabulary(loaded))
        self._detokenizer = Detokenizer(tokenizer, markers=_markers(tokenizer, self._parts.marks))
        self._max_rows: int = options.get("max_batch", 32)
        lone = _why_alone(loaded, options)
        caches = _caches(loaded, draft, options.get("kv_bits"))
        prefixes = _prefixes(loaded, draft, caches, options)
        stop_tokens, token_bytes = sorted(tokenizer.eos_token_ids), self._detokenizer.token_bytes
        self._batch: Batch | Serial
        if lone:
            self._batch = Serial(
                loaded.model,
                draft=draft.model if draft else None,
                caches=caches,
                stop_tokens=stop_tokens,
                max_rows=self._max_rows,
                prefixes=prefixes,
                token_bytes=token_bytes,
            )
        else:
            self._batch = Batch(
                loaded.model,
                stop_tokens=stop_tokens,
                max_rows=self._max_rows,
                max_stall_seconds=options.get("max_stall_ms", 100) / 1000,
                prefixes=prefixes,
                token_bytes=token_bytes,
            )
        self._arrived: deque[TextRequest] = deque()
        self._waiting: deque[Row] = deque()
        self.loaded = _loaded(loaded.config, options.get("context_length"), self._prompts)
        if lone:
            self.loaded.batched = False
            self.loaded.notes.append(f"Requests are answered one after the other, because of {lone}.")

    @property
    def busy(self) -> bool:
        return bool(self._batch.busy or self._waiting or self._arrived)

    def take(self, request: Request) -> None:
        assert not isinstance(request, Speak), request  # noqa: S101  # the server asks speech models for speech
        known = {queued.id for queued in self._arrived} | {row.id for row in self._waiting}
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
        while self._waiting and self._batch.room > len(self._waiting[0].copies):
            self._batch.join(self._waiting.popleft(), events)
        self._batch.step(events)
        if not self.busy:
            mx.clear_cache()
        return events

    def save_some(self) -> bool:
        """In an idle moment: write a little of what is worth keeping to disk; whether there is more."""
        return self._batch.prefixes.save_some()

    def _prepare(self, events: list[Event]) -> None:
        """Make rows of arrived requests, as many as decoding can wait for."""
        characters = 0
        while self._arrived and characters < TOKENIZED_CHARACTERS:
            request = self._arrived.popleft()
            characters += _characters(request)
            try:
                self._start(request, events)
            except ContextExceeded as error:
                events.append(Failed(request.id, "context_length_exceeded", str(error), "messages"))
            except PromptRefused as error:
                events.append(Failed(request.id, "invalid_request", str(error), error.param))
            except GrammarRefused as error:
                events.append(Failed(request.id, "invalid_request", str(error), _form_param(request)))
            except Exception as error:  # of one request: the others go on
                events.append(Failed(request.id, "invalid_request", f"{error}"))

    def _start(self, request: TextRequest, events: list[Event]) -> None:
        """Answer at once, or make rows. Raises PromptRefused, GrammarRefused, ContextExceeded, ValueError."""
        match request:
            case Tokenize():
                events.append(Tokens(request.id, self._tokens(request)))
            case Detokenize():
                events.append(Text(request.id, self._text(request.tokens)))
            case Chat():
                self._waiting.append(self._chat(request))
            case Complete():
                row = self._completion(request)
                if request.echo:
                    text = self._text(row.prompt)
                    events += [Delta(request.id, text, choice) for choice in range(request.n)]
                self._waiting.append(row)

    def _tokens(self, request: Tokenize) -> list[int]:
        if request.messages is not None:
            return self._prompts.conversation(request.messages)
        return list(self._tokenizer.encode(request.text or "", add_special_tokens=request.special))

    def _text(self, tokens: list[int]) -> str:
        self._check_tokens(tokens)
        return str(self._tokenizer.decode(tokens, skip_special_tokens=False))

    def _check_tokens(self, tokens: list[int]) -> None:
        vocabulary = len(self._tokenizer)
        if wrong := next((token for token in tokens if token >= vocabulary), None):
            raise PromptRefused(f"There is no token {wrong}: this model's are 0 to {vocabulary - 1}.", "tokens")

    def _chat(self, request: Chat) -> Row:
        prompt = self._prompts.tokens(request)
        room = self._room(prompt)
        tools = request.tools if request.tool_choice != "none" else []
        form: Spec | None = _tool_calls(request) if request.tool_choice == "required" else request.form
        constraint = self._grammars.constraint(form, think=think_block(self._tokenizer, prompt)) if form else None
        row = self._row(request, prompt, room, constraint)
        prefill = str(request.messages[-1].get("content") or "") if request.continues else ""
        thinking = prompt_opens_thinking(self._tokenizer, prompt, prefill=prefill)
        for each in (row, *row.copies):
            each.parts = self._parts.stream(tools, starts_thinking=thinking)
            each.one_call = bool(tools) and not request.parallel_tool_calls
        rendering = self._prompts.rendering(request) if self._batch.prefixes.needs_boundaries else None
        row.boundaries = boundaries(rendering, rendering.messages, prompt) if rendering else []
        return row

    def _completion(self, request: Complete) -> Row:
        prompt = request.prompt if isinstance(request.prompt, list) else list(self._tokenizer.encode(request.prompt))
        self._check_tokens(prompt)
        if not prompt:
            raise PromptRefused("The prompt is empty.", "prompt")
        constraint = self._grammars.constraint(request.form) if request.form else None
        return self._row(request, prompt, self._room(prompt), constraint)

    def _row(self, request: Chat | Complete, prompt: list[int], room: int | None, form: Constraint | None) -> Row:
        """The request's first answer, with the others as its copies."""
        if request.n > self._max_rows:
            raise PromptRefused(f"n is {request.n}; this model answers {self._max_rows} at a time.", "n")
        tally = Tally(request.id, len(prompt), rows_left=request.n)
        rows = [
            Row(
                tally=tally,
                choice=choice,
                prompt=prompt,
                max_tokens=_answer_tokens(request.max_tokens, room),
                sampler=sampler_for(request.sampling, choice),
                processors=self._processors(request, form),
                answer=Answer(
                    self._detokenizer.stream(),
                    [*request.stop, *(self._prompts.stop if isinstance(request, Chat) else ())],
                    verbatim=isinstance(request, Complete) or request.continues,
                ),
                parts=None,
                top_logprobs=request.top_logprobs,
            )
            for choice in range(request.n)
        ]
        rows[0].copies = rows[1:]
        return rows[0]

    def _processors(self, request: Chat | Complete, form: Constraint | None) -> list[Processor]:
        penalties = penalties_for(request.sampling)
        found: list[Processor] = []
        if penalties is not None:
            found.append(penalties)
        if form is not None:
            found.append(form.fresh())
        return found

    def _room(self, prompt: list[int]) -> int | None:
        """How many tokens the answer may have; None: nobody knows. Raises ContextExceeded."""
        context = self.loaded.context_length
        if context is not None and len(prompt) >= context:
            raise ContextExceeded(f"The prompt has {len(prompt)} tokens; {self._name}'s context is {context} tokens.")
        return None if context is None else context - len(prompt)


def _tool_calls(request: Chat) -> ToolCalls:
    functions = [tool["function"] for tool in request.tools]
    tools = tuple(
        Tool(f["name"], json.dumps(f.get("parameters") or {}, ensure_ascii=False), bool(f.get("strict")))
        for f in functions
    )
    return ToolCalls(tools, request.tool_name, request.parallel_tool_calls)


def _form_param(request: TextRequest) -> str:
    """The field that asked for the form."""
    match request:
        case Chat(form=Regex()) | Complete(form=Regex()):
            return "regex"
        case Chat(form=Lark()) | Complete(form=Lark()):
            return "grammar"
        case Chat(form=None):
            return "tool_choice"
        case _:
            return "response_format"


def _characters(request: TextRequest) -> int:
    match request:
        case Chat():
            return sum(len(str(message.get("content"))) for message in request.messages) + len(str(request.tools))
        case Complete():
            return len(request.prompt)
        case Tokenize():
            return len(request.text or str(request.messages))
        case Detokenize():
            return len(request.tokens)


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


def _vocabulary(loaded: LoadedModel) -> int:
    """The width of the model's logits, which may be padded beyond the tokenizer's vocabulary."""
    config = loaded.config
    return int(config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size") or len(loaded.tokenizer))


def _why_alone(loaded: LoadedModel, options: dict[str, Any]) -> str:
    """What mlx-lm cannot batch in this entry; empty: nothing."""
    options_alone = [f"the option {name}" for name in ("draft", "kv_bits") if options.get(name)]
    caches = loaded.lone_caches
    return " and ".join([*options_alone, *([f"the model's {caches}"] if caches else [])])


def _caches(loaded: LoadedModel, draft: LoadedModel | None, kv_bits: int | None) -> list[Any]:
    """The model's empty caches, followed by those of the draft model. Raises CannotLoad."""
    if draft is None:
        return empty_caches(loaded.model, kv_bits=kv_bits)
    check_draft(loaded.model, loaded.tokenizer, draft.model, draft.tokenizer)
    return empty_caches(loaded.model, kv_bits=kv_bits) + empty_caches(draft.model)


def _prefixes(
    loaded: LoadedModel, draft: LoadedModel | None, caches: list[Any], options: dict[str, Any]
) -> PrefixCache:
    store = None
    if options.get("prefix_cache_disk_mb"):
        disk_bytes = options["prefix_cache_disk_mb"] * MEGABYTE
        others = [fingerprint(folder) for folder in (loaded.adapter, draft and draft.folder) if folder]
        kv_bits = [f"kv_bits {options['kv_bits']}"] if options.get("kv_bits") else []
        store = PrefixStore(_cache_folder(), fingerprint(loaded.folder, *others, *kv_bits), max_bytes=disk_bytes)
    max_bytes = options.get("prefix_cache_mb", 1024) * MEGABYTE
    return PrefixCache(caches, max_bytes=max_bytes, store=store)


def _cache_folder() -> Path:
    """Where systems keep what can be made again (https://specifications.freedesktop.org/basedir-spec)."""
    home = "~/Library/Caches" if sys.platform == "darwin" else os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "localapi" / "prefixes"


def _markers(tokenizer: Any, marks: set[str]) -> set[int]:
    """Tokens of the marks around thinking and tool calls: text, even where the tokenizer calls them special."""
    return {token for mark in marks for token in tokenizer.encode(mark, add_special_tokens=False)}
