"""Answer one request after the other, for what mlx-lm cannot batch: draft models, quantized and some other caches.

It has the interface of `batch.Batch`, and like it does all MLX work on the caller's thread. A request is admitted when
the previous one has ended. One step computes a piece of its prompt or one token.
"""

from __future__ import annotations

import copy
import traceback
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.generate import generate_step, generation_stream, speculative_generate_step
from mlx_lm.models.cache import KVCache, make_prompt_cache
from mlx_lm.utils import maybe_set_recommended_wired_limit

from localapi.worker.llm.batch import PREFILL_TOKENS, failure
from localapi.worker.llm.constrained.grammar import GrammarStuck
from localapi.worker.llm.prefix_cache.cache import PrefixCache
from localapi.worker.llm.row import FinishReason, Processor, Row
from localapi.worker.llm.sampling import token_logprob
from localapi.worker.model import CannotLoad, first_line
from localapi.worker.protocol import Event, Prefill

DRAFT_TOKENS = 3
"""Number of tokens that the draft model proposes: the default of mlx_lm's command line and server."""
GROUP_SIZES = (64, 32)
"""Numbers that share a scale in a quantized cache, the preferred one first. A head's width must be a multiple."""


class Serial:
    """Rows of the one request that is being answered. The first one grows."""

    def __init__(
        self,
        model: Any,
        *,
        draft: Any | None,
        caches: list[Any],
        stop_tokens: Sequence[int],
        max_rows: int,
        prefixes: PrefixCache,
        token_bytes: Callable[[int], bytes],
    ) -> None:
        """Start empty.

        `caches` are the model's empty caches, followed by the draft's; `prefixes` is for the same caches.
        """
        self.prefixes = prefixes
        self.speculation = None
        self._model = model
        self._draft = draft
        self._empty = caches
        self._stop_tokens = set(stop_tokens)
        self._max_rows = max_rows
        self._token_bytes = token_bytes
        self.tokens = 0
        """Number of tokens generated so far."""
        self._rows: deque[Row] = deque()
        self._caches: list[Any] = []
        self._tokens: list[int] = []
        """Tokens of the first row, as far as they are computed."""
        self._answer: Generator[tuple[Any, ...]] | None = None
        """mlx-lm's tokens for the first row, once its prompt is computed."""
        maybe_set_recommended_wired_limit()  # the batch API does this itself

    @property
    def busy(self) -> bool:
        return bool(self._rows)

    @property
    def room(self) -> int:
        """Number of rows that may join: those of one request."""
        return 0 if self._rows else self._max_rows

    def reaches(self) -> list[int]:
        """Return nothing, because no row joins while another runs."""
        return []

    def join(self, row: Row, events: list[Event]) -> None:
        """Accept the first row of a request, with its copies."""
        copies, row.copies = row.copies, []
        if copies:
            row.boundaries = sorted({*row.boundaries, len(row.prompt) - 1})
        self._rows += [row, *copies]
        self._attempt(lambda: self._begin(row), events)

    def leave(self, id: int) -> None:  # noqa: A002
        """Remove a request's rows. Unknown ids are ignored."""
        if any(row.id == id for row in self._rows):
            self._rows.clear()
            self._end(keep=True)

    def step(self, events: list[Event]) -> None:
        """Compute a piece of the prompt, or one token."""
        if self._rows:
            self._attempt(lambda: self._advance(self._rows[0], events), events)

    def _attempt(self, work: Callable[[], None], events: list[Event]) -> None:
        """Run one piece of work. An error ends this request and leaves nothing for the next one."""
        row = self._rows[0]
        try:
            work()
        except Exception as error:  # from MLX, from mlx-lm, or from the request's own sampler and processors
            if not isinstance(error, GrammarStuck):
                traceback.print_exception(error)
            events.append(failure(row, error))
            self._rows.clear()
            self._end(keep=False)

    def _begin(self, row: Row) -> None:
        """Start from the longest prefix of the prompt that is still cached."""
        hit = self.prefixes.fetch(row.prompt)
        self._caches = hit.caches if hit else copy.deepcopy(self._empty)
        self._tokens = row.prompt[: hit.length] if hit else []
        row.totals.cached_tokens = max(row.totals.cached_tokens, len(self._tokens))

    def _advance(self, row: Row, events: list[Event]) -> None:
        if len(self._tokens) < len(row.prompt) - 1:
            self._prefill(row, events)
            return
        self._answer = self._answer or self._generator(row)
        token, logprobs, *_ = next(self._answer)
        if len(self._tokens) < len(row.prompt):
            self._tokens = list(row.prompt)
        self._write(row, token, logprobs, events)

    def _write(self, row: Row, token: int, logprobs: mx.array, events: list[Event]) -> None:
        """Add a token to the response; after the last one, start the next response."""
        self._tokens.append(token)
        if self._take(row, token, logprobs, events):
            self._end(keep=True)
            self._rows.popleft()
            if self._rows:
                self._begin(self._rows[0])

    def _prefill(self, row: Row, events: list[Event]) -> None:
        """Compute the next piece of the prompt, up to a point worth storing; its last token is left to mlx-lm."""
        start, last = len(self._tokens), len(row.prompt) - 1
        end = min([start + PREFILL_TOKENS, last, *(at for at in row.boundaries if at > start)])
        piece = mx.array([row.prompt[start:end]])
        with mx.stream(generation_stream):
            layers = len(self._caches) if self._draft is None else len(self._model.layers)
            self._model(piece, cache=self._caches[:layers])
            if self._draft is not None:
                self._draft(piece, cache=self._caches[layers:])
            mx.eval([cache.state for cache in self._caches])
        mx.clear_cache()
        self._tokens = row.prompt[:end]
        if last - row.totals.cached_tokens > PREFILL_TOKENS:
            events.append(Prefill(row.id, end + 1 if end == last else end, len(row.prompt)))
        if end in row.boundaries:
            self.prefixes.keep(self._tokens, copy.deepcopy(self._caches))

    def _generator(self, row: Row) -> Generator[tuple[Any, ...]]:
        """Return a generator of tokens; without a draft if there are processors, which cannot revert tokens."""
        head, last = mx.array(row.prompt[:-1], mx.uint32), mx.array(row.prompt[-1:], mx.uint32)
        if self._draft is not None and not row.processors:
            return speculative_generate_step(
                last,
                self._model,
                self._draft,
                num_draft_tokens=DRAFT_TOKENS,
                max_tokens=row.max_tokens,
                sampler=row.sampler,
                prompt_cache=self._caches,
            )
        layers = len(self._caches) if self._draft is None else len(self._model.layers)
        return generate_step(
            last,
            self._model,
            max_tokens=row.max_tokens,
            sampler=row.sampler,
            logits_processors=[_after(head, processor) for processor in row.processors],
            prompt_cache=self._caches[:layers],
        )

    def _take(self, row: Row, token: int, logprobs: mx.array, events: list[Event]) -> bool:
        """Add one token to the row; return whether it is the last."""
        reason: FinishReason | None = None
        if token in self._stop_tokens:
            reason = "stop"
        elif len(self._tokens) - len(row.prompt) >= row.max_tokens:
            reason = "length"
        if row.top_logprobs is not None and reason != "stop":
            row.logprobs.append(token_logprob(token, logprobs, row.top_logprobs, self._token_bytes))
        self.tokens += 1
        return row.grow(token, reason, events)

    def _end(self, *, keep: bool) -> None:
        """Stop the first row's generator. Its computed caches may serve the next turn."""
        if self._answer is not None:
            self._answer.close()  # reverts what the draft was ahead by
        if keep and self._tokens:
            if self._draft is not None:
                self._level()
            self.prefixes.keep(self._tokens, self._caches)
        self._answer, self._caches, self._tokens = None, [], []

    def _level(self) -> None:
        """Bring the caches of model and draft to the same length; they end a few tokens apart."""
        length = min(len(self._tokens), *(cache.offset for cache in self._caches))
        for cache in self._caches:
            cache.trim(cache.offset - length)
        self._tokens = self._tokens[:length]


def _after(head: mx.array, processor: Processor) -> Callable[[mx.array, mx.array], Any]:
    """Return the processor with the whole prompt as its input, because mlx-lm only knows the prompt's last token."""
    return lambda tokens, logits: processor(mx.concatenate([head, tokens]), logits)


def empty_caches(model: Any, *, kv_bits: int | None = None) -> list[Any]:
    """Return a model's caches before the first token, quantized if `kv_bits` is set. Raise CannotLoad.

    Only caches that grow with every token are quantized. Sliding windows and recurrent states stay as they are.
    """
    if kv_bits is None:
        return make_prompt_cache(model)
    if not any(type(cache) is KVCache for cache in make_prompt_cache(model)):
        raise CannotLoad("kv_bits: this model has no KV cache that mlx-lm can quantize. Remove kv_bits.")
    problem = ""
    for group_size in GROUP_SIZES:
        try:
            _try(model, _quantised(model, kv_bits, group_size))
        except Exception as error:  # heads of another width, attention that knows no quantized cache
            problem = problem or first_line(error)
        else:
            return _quantised(model, kv_bits, group_size)
    raise CannotLoad(f"kv_bits: mlx-lm cannot quantize this model's KV cache: {problem}. Remove kv_bits.")


def _quantised(model: Any, bits: int, group_size: int) -> list[Any]:
    return [
        cache.to_quantized(group_size=group_size, bits=bits) if type(cache) is KVCache else cache
        for cache in make_prompt_cache(model)
    ]


def _try(model: Any, caches: list[Any]) -> None:
    for tokens in ([[0, 0]], [[0]]):
        mx.eval(model(mx.array(tokens), cache=caches))


def check_draft(model: Any, tokenizer: Any, draft: Any, draft_tokenizer: Any) -> None:
    """Raise CannotLoad if these two models cannot work together."""
    if tokenizer.get_vocab() != draft_tokenizer.get_vocab():
        raise CannotLoad(
            "draft: the draft model's vocabulary differs from the model's. Use a draft model of the same family, or "
            "remove draft."
        )
    for subject, each in (("the model", model), ("the draft model", draft)):
        caches = make_prompt_cache(each)
        if any(type(cache) is not KVCache for cache in caches) or len(caches) != len(each.layers):
            kinds = ", ".join(sorted({type(cache).__name__ for cache in caches}))
            raise CannotLoad(
                f"draft: {subject} uses {kinds}, from which mlx-lm cannot remove rejected tokens. Remove "
                "draft, or use another model."
            )
