"""Load a model for mlx-lm, or a part of one, and choose the batch that computes it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from localapi.system.folders import cache_folder
from localapi.worker.llm.answering import Answerer, TextSide, recognised
from localapi.worker.llm.batch import Batch
from localapi.worker.llm.kv_memory import Footprint, KVMemory, measure_footprint, spare_bytes
from localapi.worker.llm.prefix_cache.cache import PrefixCache
from localapi.worker.llm.prefix_cache.disk_store import PrefixStore, fingerprint
from localapi.worker.llm.prompt import NO_TEMPLATE_NOTE, PromptWriter
from localapi.worker.llm.request_reading import RequestReader
from localapi.worker.llm.serial import Serial, check_draft, empty_caches
from localapi.worker.llm.shards import plans, splitting
from localapi.worker.llm.shards.follower import Follower
from localapi.worker.llm.shards.group import join
from localapi.worker.llm.shards.plans import Lead, Plans
from localapi.worker.llm.shards.splitting import ModelPart
from localapi.worker.llm.speculation.draft import Drafter
from localapi.worker.llm.speculation.speculation import Speculation
from localapi.worker.llm.weights import LoadedModel, load_suited, load_weights
from localapi.worker.model import CannotLoad, Host, Model, first_line
from localapi.worker.protocol import (
    Loaded,
    Rank,
)

MEGABYTE = 1024 * 1024
DRAFT_SHARE = 0.25
"""Memory for prompt prefixes that a draft model gets in addition to the model's own: a share of `prefix_cache_mb`."""


def load(options: dict[str, Any], host: Host) -> Model:
    """Return the model of an entry's options, or this process's part of it. Raise CannotLoad."""
    if host.rank is not None:
        return _load_part(options, host, host.rank)
    how, draft_path = options.get("cpu_weights", "auto"), options.get("draft")
    loaded = load_suited(
        options["path"], options.get("revision"), host, how=how, adapter=options.get("adapter"), index=True
    )
    draft = load_suited(draft_path, None, host, how=how) if draft_path else None
    return MlxLm(loaded, options, draft, wake=host.wake)


def _load_part(options: dict[str, Any], host: Host, rank: Rank) -> Model:
    """Return the part of a rank: rank 0 answers the requests, the others follow it."""
    groups: list[mx.distributed.Group] = []
    listener = plans.listen(rank) if rank.number == 0 else None  # before the others can ask

    def split(model: Any, config: Mapping[str, Any]) -> ModelPart:
        how = splitting.choose(model, config, len(rank.addresses), options.get("split", "auto"))
        groups.append(join(host))
        return splitting.split(model, how, groups[0])

    loaded = load_weights(options["path"], options.get("revision"), host.report, split=split, index=rank.number == 0)
    if listener is not None:
        lead = Lead(groups[0], plans.accept(listener, rank))
        return MlxLm(loaded, options, wake=host.wake, lead=lead)
    connection = plans.connect(rank)
    recognised(loaded.tokenizer, options)  # the tokens that end an answer are those of rank 0
    caches = empty_caches(loaded.model)
    _footprint(loaded, None, caches)  # rank 0 measures, and the numbers go to all ranks
    batch = Batch(
        loaded.model,
        stop_tokens=sorted(loaded.tokenizer.eos_token_ids),
        max_rows=options.get("max_batch", 32),
        max_stall_seconds=0,
        prefixes=_prefixes(loaded, None, caches, options),
        token_bytes=lambda _: b"",
    )
    return Follower(batch, Plans(connection, host.wake), groups[0])


class MlxLm(Answerer):
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
        """Load a model from the entry's identity, as in `backends.mlx_lm`; `wake` is as in `Host`. Raise CannotLoad.

        `lead` sends plans to the processes that hold the other parts of the model.
        """
        text = TextSide(loaded.tokenizer, loaded.config, options, loaded.index)
        max_rows: int = options.get("max_batch", 32)
        lone = _why_alone(loaded, options)
        caches = _caches(loaded, draft, options.get("kv_bits"))
        own_caches = caches[: len(loaded.model.layers)] if draft is not None else caches
        prefixes = _prefixes(loaded, draft if lone else None, caches if lone else own_caches, options)
        batch: Batch | Serial
        if lone:
            batch = Serial(
                loaded.model,
                draft=draft.model if draft else None,
                caches=caches,
                stop_tokens=text.stop_tokens,
                max_rows=max_rows,
                prefixes=prefixes,
                token_bytes=text.detokenizer.token_bytes,
            )
        else:
            max_stall_seconds = options.get("max_stall_ms", 100) / 1000
            # Ranks know the tokens that rank 0 has sampled, but not what it would guess.
            may_speculate = lead is None and options.get("speculation", "auto") == "auto"
            drafter = None
            if draft is not None:
                own = caches[len(own_caches) :]
                max_bytes = int(DRAFT_SHARE * options.get("prefix_cache_mb", 1024) * MEGABYTE)
                drafter = Drafter(draft.model, own, PrefixCache(own, max_bytes=max_bytes), max_stall_seconds)
            batch = Batch(
                loaded.model,
                stop_tokens=text.stop_tokens,
                max_rows=max_rows,
                max_stall_seconds=max_stall_seconds,
                prefixes=prefixes,
                token_bytes=text.detokenizer.token_bytes,
                lead=lead,
                speculation=Speculation(text.width, max_stall_seconds, drafter=drafter) if may_speculate else None,
            )
        facts = _loaded(loaded, options.get("context_length"), text.prompts, lone)
        facts.capabilities = text.capabilities()
        reader = RequestReader(
            text.tokenizer,
            text.prompts,
            name=Path(options["path"]).name,
            context_length=facts.context_length,
            needs_boundaries=prefixes.needs_boundaries,
        )
        memory = _memory(loaded, draft, caches, options)
        super().__init__(text, reader, batch, loaded=facts, memory=memory, max_rows=max_rows, wake=wake)


def trained_context(config: dict[str, Any]) -> int | None:
    """Return the tokens of context that a config.json names; None if it names none."""
    of_text: dict[str, Any] = config.get("text_config") or {}
    named: int | None = config.get("max_position_embeddings") or of_text.get("max_position_embeddings")
    return named


def _loaded(loaded: LoadedModel, asked: int | None, prompts: PromptWriter, lone: str) -> Loaded:
    """Return the facts about the model for the server. `lone` is why it answers one request at a time, if it does."""
    own = trained_context(loaded.config)
    notes = [] if prompts.has_template else [NO_TEMPLATE_NOTE]
    if asked and own and asked > own:
        notes.append(f"context_length is {asked}, but the model was trained for {own} tokens and may fail beyond them.")
    if loaded.widened.says:
        notes.append(loaded.widened.says)
    if loaded.part is not None:
        notes.append(loaded.part.says)
    if lone:
        notes.append(f"Requests are answered one after the other because of {lone}.")
    return Loaded(context_length=asked or own, notes=notes, batched=not lone)


def _why_alone(loaded: LoadedModel, options: dict[str, Any]) -> str:
    """Return what mlx-lm cannot batch in this entry; empty if it can batch everything."""
    reasons = ["the option kv_bits"] if options.get("kv_bits") else []
    if loaded.lone_caches:
        reasons.append(f"the model's {loaded.lone_caches}")
    return " and ".join(reasons)


def _caches(loaded: LoadedModel, draft: LoadedModel | None, kv_bits: int | None) -> list[Any]:
    """Return the model's empty caches, followed by those of the draft model. Raise CannotLoad."""
    if draft is None:
        return empty_caches(loaded.model, kv_bits=kv_bits)
    check_draft(loaded.model, loaded.tokenizer, draft.model, draft.tokenizer)
    return empty_caches(loaded.model, kv_bits=kv_bits) + empty_caches(draft.model)


def _memory(loaded: LoadedModel, draft: LoadedModel | None, caches: list[Any], options: dict[str, Any]) -> KVMemory:
    """Return the limit of memory for answers, in all processes. Raise CannotLoad if the model cannot compute."""
    footprint = _footprint(loaded, draft, caches)
    processes = 1
    if loaded.part is not None:
        footprint, processes = footprint.times(1 / loaded.part.share), loaded.part.ranks
    limit = options.get("kv_cache_mb")
    spare = spare_bytes(options.get("prefix_cache_mb", 1024) * MEGABYTE, processes)
    max_bytes = limit * MEGABYTE if limit else spare
    return KVMemory(footprint, max_bytes, together=not _why_alone(loaded, options), said=bool(limit))


def _footprint(loaded: LoadedModel, draft: LoadedModel | None, caches: list[Any]) -> Footprint:
    """Return the memory of one row in this process, after computing one. Raise CannotLoad if that fails."""
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
