"""Chat with mlx-lm: from a request to rows of the running batch.

A request is first in `_arrived` (its text is being read, or not even that), then in `_waiting` (its prompt is tokens,
and there is no room in the batch or in memory), then in the batch. It is dropped wherever it ends.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from localapi.worker.cache_folder import cache_folder
from localapi.worker.llm.batch import Batch
from localapi.worker.llm.constrained.grammar import (
    Constraint,
    FormatUnknown,
    GrammarCompiler,
    GrammarRefused,
    Spec,
    Tool,
    ToolCalls,
    think_block,
)
from localapi.worker.llm.detokenizer import Detokenizer
from localapi.worker.llm.kv_memory import UNSAID_TOKENS, Footprint, KVMemory, measure_footprint, spare_bytes
from localapi.worker.llm.output.parser import OutputFormat
from localapi.worker.llm.output.recognition import AUTO, Recognised, recognise
from localapi.worker.llm.output.stop_strings import AnswerText
from localapi.worker.llm.output.thinking import prompt_opens_thinking
from localapi.worker.llm.prefix_cache.cache import PrefixCache
from localapi.worker.llm.prefix_cache.disk_store import PrefixStore, fingerprint
from localapi.worker.llm.prompt import NO_TEMPLATE_NOTE, PromptRefused, PromptWriter, offered_tools
from localapi.worker.llm.request_queue import RequestQueue
from localapi.worker.llm.request_reading import ContextExceeded, Prompt, RequestReader
from localapi.worker.llm.row import Processor, RequestTotals, Row
from localapi.worker.llm.sampling import penalties_for, sampler_for
from localapi.worker.llm.serial import Serial, check_draft, empty_caches
from localapi.worker.llm.shards import plans, splitting
from localapi.worker.llm.shards.follower import Follower
from localapi.worker.llm.shards.group import join
from localapi.worker.llm.shards.plans import Lead, Plans
from localapi.worker.llm.shards.splitting import Part
from localapi.worker.llm.suited_weights import load_suited
from localapi.worker.llm.weights import LoadedModel, load_weights, logits_width
from localapi.worker.model import CannotLoad, Host, Model, first_line
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
    Lark,
    Loaded,
    Rank,
    Regex,
    Relaxed,
    Request,
    TextRequest,
    Tokenize,
    TokenizedText,
    form_param,
)

READ_CHARACTERS = 32_768
"""Characters of new prompts that are read before a decode step. Tokenizing takes about a second per million."""
UNKNOWN_CONTEXT_ANSWER_TOKENS = 32_768
"""The longest answer if neither the request nor the model sets a limit."""
MEGABYTE = 1024 * 1024


def load(options: dict[str, Any], host: Host) -> Model:
    """Return the model of an entry's options, or this process's part of it. Raises CannotLoad."""
    if host.rank is not None:
        return _load_part(options, host, host.rank)
    how, draft_path = options.get("cpu_weights", "auto"), options.get("draft")
    loaded = load_suited(
        options["path"], options.get("revision"), host, how=how, adapter=options.get("adapter"), index=True
    )
    draft = load_suited(draft_path, None, host, how=how) if draft_path else None
    return MlxLm(loaded, options, draft, wake=host.wake)


def _load_part(options: dict[str, Any], host: Host, rank: Rank) -> Model:
    """Return what a rank does: rank 0 answers the requests, the others follow it."""
    groups: list[mx.distributed.Group] = []
    listener = plans.listen(rank) if rank.number == 0 else None  # before the others can ask

    def split(model: Any, config: Mapping[str, Any]) -> Part:
        how = splitting.choose(model, config, len(rank.addresses), options.get("split", "auto"))
        groups.append(join(host))
        return splitting.split(model, how, groups[0])

    loaded = load_weights(options["path"], options.get("revision"), host.report, split=split, index=rank.number == 0)
    if listener is not None:
        lead = Lead(groups[0], plans.accept(listener, rank))
        return MlxLm(loaded, options, wake=host.wake, lead=lead)
    connection = plans.connect(rank)
    _recognised(loaded.tokenizer, options)  # the tokens that end an answer are those of rank 0
    caches = empty_caches(loaded.model)
    _footprint(loaded, None, caches)  # rank 0 measures, and the numbers go through all ranks
    batch = Batch(
        loaded.model,
        stop_tokens=sorted(loaded.tokenizer.eos_token_ids),
        max_rows=options.get("max_batch", 32),
        max_stall_seconds=0,
        prefixes=_prefixes(loaded, None, caches, options),
        token_bytes=lambda _: b"",
    )
    return Follower(batch, Plans(connection, host.wake), groups[0])


class MlxLm:
    """One model of mlx-lm. See `worker.model.Model`."""

    def __init__(
        self,
        loaded: LoadedModel,
        options: dict[str, Any],
        draft: LoadedModel | None = None,
        *,
        wake: Callable[[], None],
        lead: Lead | None = None,
    ) -> None:
        """`options`: the entry's identity, as in `backends.mlx_lm`. `wake`: as in `Host`. Raises CannotLoad.

        `lead`: tells the processes that hold the other parts of the model what to do.
        """
        tokenizer = loaded.tokenizer
        self._tokenizer = tokenizer
        recognised = _recognised(tokenizer, options)
        self._prompts = PromptWriter(tokenizer)
        self._parts = OutputFormat(tokenizer)
        self._width = logits_width(loaded.config, tokenizer)
        self._grammars = GrammarCompiler(tokenizer, self._width, loaded.index)
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
                lead=lead,
            )
        self.loaded = _loaded(loaded.config, options.get("context_length"), self._prompts)
        self.loaded.capabilities = Capabilities(
            tools=self._prompts.shows_tools,
            tool_format=recognised.tools,
            reasoning_format=recognised.reasoning,
            forced_tools=self._grammars.forces_calls,
            json_schema=bool(stop_tokens),
            **self._prompts.thinking,
        )
        if loaded.widened.says:
            self.loaded.notes.append(loaded.widened.says)
        if loaded.part is not None:
            self.loaded.notes.append(loaded.part.says)
        self._memory = _memory(loaded, draft, caches, options)
        reader = RequestReader(
            tokenizer,
            self._prompts,
            name=Path(options["path"]).name,
            context_length=self.loaded.context_length,
            needs_boundaries=prefixes.needs_boundaries,
        )
        self._arrived = RequestQueue(reader.read, wake)
        self._waiting: deque[Row] = deque()
        if lone:
            self.loaded.batched = False
            self.loaded.notes.append(f"Requests are answered one after the other because of {lone}.")
        if loaded.index is not None:
            loaded.index.wait()  # otherwise it would interrupt the first answers

    @property
    def busy(self) -> bool:
        return bool(self._batch.busy or self._waiting or self._arrived.ready)

    @property
    def waiting(self) -> int:
        return len(self._arrived) + len(self._waiting)

    @property
    def tokens(self) -> int:
        return self._batch.tokens

    def take(self, request: Request) -> None:
        assert isinstance(request, TextRequest), request  # noqa: S101  # the server sends no others to chat models
        waiting = any(row.id == request.id for row in self._waiting)
        if waiting or self._arrived.has(request.id) or self._batch.has(request.id):
            print(f"request {request.id} came twice; the second is ignored", file=sys.stderr)  # noqa: T201
        else:
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
        """Write a little of the prefix cache to disk in an idle moment; return True if there is more."""
        return self._batch.prefixes.save_some()

    def _may_join(self, row: Row) -> bool:
        rows = 1 + len(row.copies)
        return self._batch.room >= rows and self._memory.fits(row.reach, rows, self._batch.reaches())

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
            except Exception as error:  # a bug, which fails this request alone
                traceback.print_exception(error)
                events.append(Failed(request.id, "generation_failed", f"The request could not be started: {error}"))

    def _start(self, request: TextRequest, prompt: Prompt, events: list[Event]) -> None:
        """Answer immediately, or queue the request's rows. Raises PromptRefused and GrammarRefused."""
        match request:
            case Tokenize():
                events.append(TokenizedText(request.id, prompt.tokens))
            case Detokenize():
                events.append(DetokenizedText(request.id, prompt.text))
            case Chat():
                self._waiting.append(self._chat(request, prompt))
            case Complete():
                row = self._row(request, prompt, self._grammars.constraint(request.form) if request.form else None)
                if request.echo:
                    events += [Delta(request.id, prompt.text, choice) for choice in range(request.n)]
                self._waiting.append(row)

    def _chat(self, request: Chat, prompt: Prompt) -> Row:
        tools = offered_tools(request)
        constraint, relaxed = self._constraint(request, prompt)
        row = self._row(request, prompt, constraint)
        row.relaxed = relaxed
        thinking = prompt_opens_thinking(self._tokenizer, prompt.tokens, prefill=_prefill(request))
        verbatim = request.tool_choice != "required" and isinstance(request.form, Regex | Lark)
        for each in (row, *row.copies):
            each.parts = self._parts.stream(
                tools,
                starts_thinking=thinking,
                continues=request.continues,
                stop=request.stop,
                verbatim=verbatim,
            )
            each.one_call = bool(tools) and not request.parallel_tool_calls
        return row

    def _constraint(self, request: Chat, prompt: Prompt) -> tuple[Constraint | None, tuple[str, ...]]:
        """Return the constraint on the answer, and what the request asks for beyond it. Raises GrammarRefused."""
        form: Spec | None = request.form
        if request.tool_choice == "required":
            form = _tool_calls(request)
        if form is not None:
            think = think_block(self._tokenizer, prompt.tokens, _prefill(request))
            constraint = self._grammars.constraint(form, think=think)
            return constraint, constraint.relaxed
        calls = _tool_calls(request, optional=True)
        strict = [tool.name for tool in calls.tools if tool.strict]
        if request.tool_choice == "none" or not strict:
            return None, ()
        try:
            constraint = self._grammars.constraint(calls)
        except FormatUnknown:  # the model may still call them: clients that always set strict must not lose their tools
            return None, tuple(f"tools[{name}].strict" for name in strict)
        return constraint, constraint.relaxed

    def _row(self, request: Chat | Complete, prompt: Prompt, form: Constraint | None) -> Row:
        """Return the request's first answer, with the others as its copies."""
        if request.n > self._max_rows:
            raise PromptRefused(f"n is {request.n}; the maximum of this model is {self._max_rows}.", "n")
        totals = RequestTotals(request.id, len(prompt.tokens), rows_left=request.n)
        max_tokens, reach = self._extent(request, totals.prompt_tokens)
        rows = [
            Row(
                totals=totals,
                choice=choice,
                prompt=prompt.tokens,
                max_tokens=max_tokens,
                reach=reach,
                length=totals.prompt_tokens,
                sampler=sampler_for(request.sampling, choice),
                processors=self._processors(request, form),
                answer=AnswerText(
                    self._detokenizer.stream(),
                    # In chat, the client's stop strings apply to the content alone, so the output parser finds them.
                    self._prompts.stop if isinstance(request, Chat) else request.stop,
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
        """Return the most tokens of an answer, and the length of the row that memory is reserved for.

        Raises ContextExceeded and PromptRefused if that is more than the limit.
        """
        context, longest = self.loaded.context_length, self._memory.longest(request.n)
        room = context - prompt if context is not None else request.max_tokens or UNKNOWN_CONTEXT_ANSWER_TOKENS
        if request.max_tokens is None or not self._memory.said:
            answer = max(1, min(request.max_tokens or room, room, longest - prompt))
            reach = prompt + min(answer, UNSAID_TOKENS)
        else:
            answer = max(1, min(request.max_tokens, room))
            reach = prompt + answer
        if reach > longest:
            problem = self._memory.refusal(prompt, reach, request.n)
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


def _recognised(tokenizer: Any, options: dict[str, Any]) -> Recognised:
    return recognise(tokenizer, tools=options.get("tool_format", AUTO), reasoning=options.get("reasoning_format", AUTO))


def _loaded(config: dict[str, Any], asked: int | None, prompts: PromptWriter) -> Loaded:
    """Return what the server should know about the model."""
    own = config.get("max_position_embeddings") or (config.get("text_config") or {}).get("max_position_embeddings")
    notes = [] if prompts.has_template else [NO_TEMPLATE_NOTE]
    if asked and own and asked > own:
        notes.append(f"context_length is {asked}, but the model was trained for {own} tokens and may fail beyond them.")
    return Loaded(context_length=asked or own, notes=notes)


def _why_alone(loaded: LoadedModel, options: dict[str, Any]) -> str:
    """Return what mlx-lm cannot batch in this entry; empty if it can batch everything."""
    options_alone = [f"the option {name}" for name in ("draft", "kv_bits") if options.get(name)]
    caches = loaded.lone_caches
    return " and ".join([*options_alone, *([f"the model's {caches}"] if caches else [])])


def _caches(loaded: LoadedModel, draft: LoadedModel | None, kv_bits: int | None) -> list[Any]:
    """Return the model's empty caches, followed by those of the draft model. Raises CannotLoad."""
    if draft is None:
        return empty_caches(loaded.model, kv_bits=kv_bits)
    check_draft(loaded.model, loaded.tokenizer, draft.model, draft.tokenizer)
    return empty_caches(loaded.model, kv_bits=kv_bits) + empty_caches(draft.model)


def _memory(loaded: LoadedModel, draft: LoadedModel | None, caches: list[Any], options: dict[str, Any]) -> KVMemory:
    """Return the limit of memory for answers, in all processes. Raises CannotLoad if the model cannot compute."""
    footprint = _footprint(loaded, draft, caches)
    processes = 1
    if loaded.part is not None:
        footprint, processes = footprint.times(1 / loaded.part.share), loaded.part.ranks
    limit = options.get("kv_cache_mb")
    spare = spare_bytes(options.get("prefix_cache_mb", 1024) * MEGABYTE, processes)
    max_bytes = limit * MEGABYTE if limit else spare
    return KVMemory(footprint, max_bytes, together=not _why_alone(loaded, options), said=bool(limit))


def _footprint(loaded: LoadedModel, draft: LoadedModel | None, caches: list[Any]) -> Footprint:
    """Return the memory of one row in this process, after computing one. Raises CannotLoad if that fails."""
    own = len(caches) if draft is None else len(loaded.model.layers)

    def run(tokens: mx.array, filled: list[Any]) -> None:
        mx.eval(loaded.model(tokens, cache=filled[:own]))
        if draft is not None:
            mx.eval(draft.model(tokens, cache=filled[own:]))

    try:
        return measure_footprint(caches, run)
    except Exception as error:  # from the architecture
        raise CannotLoad(f"The model was read but cannot compute: {first_line(error)}.") from error


def _prefixes(
    loaded: LoadedModel, draft: LoadedModel | None, caches: list[Any], options: dict[str, Any]
) -> PrefixCache:
    store, folder, disk_mb = None, cache_folder("prefixes"), options.get("prefix_cache_disk_mb")
    if disk_mb and folder is None:
        message = "prompt caches are not stored: this user has no home. Set XDG_CACHE_HOME"
        print(message, file=sys.stderr, flush=True)  # noqa: T201
    elif disk_mb and folder is not None:
        others = [fingerprint(part) for part in (loaded.adapter, draft and draft.folder) if part]
        others += ["float32"] if loaded.widened.done else []  # then the cache is float32, too
        kv_bits = [f"kv_bits {options['kv_bits']}"] if options.get("kv_bits") else []
        made_with = fingerprint(loaded.folder, *others, *kv_bits)
        store = PrefixStore(folder, made_with, max_bytes=disk_mb * MEGABYTE)
    max_bytes = options.get("prefix_cache_mb", 1024) * MEGABYTE
    if loaded.part is not None:
        max_bytes = loaded.part.prefix_bytes(max_bytes)
    return PrefixCache(caches, max_bytes=max_bytes, store=store)


def _markers(tokenizer: Any, marks: set[str]) -> set[int]:
    """Return the tokens of the marks around thinking and tool calls, which are text even if they are special."""
    return {token for mark in marks for token in tokenizer.encode(mark, add_special_tokens=False)}
