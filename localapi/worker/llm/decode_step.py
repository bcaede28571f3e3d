"""The step in which every row of a batch gets a token or several, at no more cost than a row alone has in mlx-lm.

mlx-lm 0.32.2 computes the log probabilities of the whole vocabulary for every row, and gives a single row masks and
offsets that only several rows need. Here log probabilities are computed for rows that report them, and a single row has
the caches that `generate_step` uses.

Usually each row brings the one token that was sampled last. MLX computes the next one while this one is being sent. If
a grammar forces tokens or a guess is likely right, and a wide step costs little more, a row brings these along. Every
token after them is chosen by the row's own processors and sampler, with the logits after exactly the tokens before it;
a guess stays if it is the token that was chosen. So an answer, sampled or not, is the one that single tokens give.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from time import perf_counter
from typing import Any

import mlx.core as mx
from mlx_lm.generate import GenerationBatch
from mlx_lm.models.cache import BatchKVCache, KVCache
from mlx_lm.sample_utils import greedy_sampler

from localapi.worker.llm.speculation.draft import DraftedRow
from localapi.worker.llm.speculation.gaps import GappedKVCache, close_gaps, closed, gapped, leave_gaps, too_many
from localapi.worker.llm.speculation.lookup import Lookup
from localapi.worker.llm.speculation.speculation import LONGEST_DRAFT, LONGEST_GUESS, Proposal, Speculation

Chosen = tuple[int, Any]
"""Token, with the log probabilities of the vocabulary if the row reports them."""


class DecodeStep(GenerationBatch):
    """Rows that are decoded. Their samplers get logits, which need not be normalized."""

    samplers: Any
    logits_processors: Any
    _current_tokens: Any
    _next_tokens: Any
    reporting: Container[int] = ()
    """The uids of rows that report log probabilities."""
    ends: Container[int] = ()
    """Tokens that end a response."""
    speculation: Speculation | None = None
    """Speculation; None for single tokens only."""
    undisturbed: bool = True
    """False while prompts are being processed between steps, whose times then mean nothing."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._known: list[int | None] = [None] * len(self.uids)
        """Next token of each row, if its value is already known."""
        self._lookups: list[Lookup] = []
        """Text of each row, if there is speculation."""
        self._drafts: list[DraftedRow] = []
        """Draft model's side of each row, if there is one."""
        self._before: tuple[float, int, int] | None = None
        """Time of the end of the last step, its rows and its width; None if prompts were processed meanwhile."""

    def extend(self, batch: Any) -> None:
        """Add the rows of another batch."""
        self._join_caches()
        self.prompt_cache = closed(self.prompt_cache)
        self._known += [None] * len(batch.uids)
        if self.speculation is not None:
            self._lookups += [Lookup(tokens, self.speculation.rates) for tokens in batch.tokens]
            if self.speculation.drafter is not None:
                self._drafts += [self.speculation.drafter.row() for _ in batch.uids]
        super().extend(batch)  # type: ignore[no-untyped-call]

    def filter(self, keep: list[int]) -> None:
        """Keep these rows."""
        self.prompt_cache = closed(self.prompt_cache)
        self._known = [self._known[row] for row in keep]
        self._lookups = [self._lookups[row] for row in keep] if self._lookups else []
        self._keep_drafts(keep)
        super().filter(keep)

    def extract_cache(self, idx: int) -> list[Any]:
        """Return a row's caches. Those of a single row are its own: the caller removes the row."""
        if self._has_own_caches():
            return list(self.prompt_cache)
        self.prompt_cache = closed(self.prompt_cache)
        return super().extract_cache(idx)

    def next(self) -> list[Any]:
        """Return the next tokens of all rows: one response for each token, in the order of a row's tokens."""
        if not self.uids:
            return []
        started, before, rows = perf_counter(), self._before, len(self.uids)
        self._separate_caches()
        proposals = self._plan()
        planned = perf_counter()
        if proposals is None:
            width, chosen = 1, [[one] for one in zip(*self._step(), strict=True)]
        else:
            width, chosen = 1 + max(len(each.tokens) for each in proposals), self._step_of_several(proposals)
        ended = perf_counter()
        # What is done between two steps delays only those that need the last one's tokens.
        if self.speculation is not None and self.undisturbed and before is not None and before[1] == rows:
            if width == 1 and before[2] == 1:
                self.speculation.costs.note(rows, 1, ended - before[0])
            elif width > 1:
                self.speculation.costs.note(rows, width, ended - planned + started - before[0])
        self._before = (ended, rows, width) if self.undisturbed else None
        return self._responses(chosen)

    def _responses(self, chosen: Sequence[Sequence[Chosen]]) -> list[Any]:
        """Return the responses for these tokens of each row, and drop the rows that end with them."""
        responses, keep = [], []
        for row, tokens in enumerate(chosen):
            reason = None
            for token, logprobs in tokens:
                self._num_tokens[row] += 1
                if self._num_tokens[row] >= self.max_tokens[row]:
                    reason = "length"
                if self._matchers[row].advance(token):
                    reason = "stop"
                ended = (self.extract_cache(row), self.tokens[row]) if reason else (None, None)
                responses.append(self.Response(self.uids[row], token, logprobs, reason, *ended))
            if reason is None:
                keep.append(row)
        if len(keep) < len(self.uids):
            self.filter(keep)
        return responses

    def _step(self) -> tuple[list[int], list[Any]]:
        """Start the computation of the next tokens; return the current ones, and the log probabilities of some."""
        self._current_tokens, self._current_logprobs = self._next_tokens, self._next_logprobs
        inputs = self._current_tokens
        logits = self.model(inputs[:, None], cache=self.prompt_cache)[:, -1, :]
        logits, contexts = self._processed(inputs, logits)
        samplers = self.samplers
        if all(sampler is samplers[0] for sampler in samplers):
            sampled = samplers[0](logits)
        else:
            sampled = mx.concatenate([sample(logits[row : row + 1]) for row, sample in enumerate(samplers)], axis=0)
        self._next_tokens = sampled
        self._next_logprobs = [
            _normalised(logits[row]) if uid in self.reporting else None for row, uid in enumerate(self.uids)
        ]
        reported = [logprobs for logprobs in self._next_logprobs if logprobs is not None]
        mx.async_eval(sampled, reported, contexts)  # type: ignore[no-untyped-call]
        mx.eval(inputs, [logprobs for logprobs in self._current_logprobs if logprobs is not None])
        self._learn(inputs)
        tokens = [token for token in self._known if token is not None]
        self._known = [None] * len(tokens)
        for row_tokens, token in zip(self.tokens, tokens, strict=True):
            row_tokens.append(token)
        return tokens, self._current_logprobs

    def _processed(self, inputs: mx.array, logits: mx.array) -> tuple[mx.array, list[mx.array]]:
        """Return the logits after each row's processors, and the tokens that these were given."""
        if not any(self.logits_processors):
            return logits, []
        rows, contexts = [], []
        for row, processors in enumerate(self.logits_processors):
            changed = logits[row : row + 1]
            if processors:
                buffer: Any = self._token_context[row]
                context = buffer.update_and_fetch(inputs[row : row + 1])
                contexts.append(context)
                for process in processors:
                    changed = process(context, changed)
            rows.append(changed)
        return mx.concatenate(rows, axis=0), contexts

    # Several tokens of a row

    def _plan(self) -> list[Proposal] | None:
        """Return what each row brings besides its next token; None if single tokens are as good."""
        speculation = self.speculation
        several = len(self.uids) > 1
        if speculation is None or (several and not self._may_leave_gaps()):
            return None
        may_guess = several or self._has_only_own_caches()
        if not any(self.logits_processors):  # otherwise these wait for the next tokens anyway
            if not may_guess or not (self._drafts or any(lookup.repeats for lookup in self._lookups)):
                return None
            hopes = [self._hope(row) for row in range(len(self.uids))]
            if speculation.width([chances for chances, _ in hopes], sum(drafted for _, drafted in hopes)) == 1:
                return None
        self._learn(self._next_tokens)
        proposals = [self._proposal(row, may_guess=may_guess) for row in range(len(self.uids))]
        drafted = sum(each.draft is not None for each in proposals)
        width = speculation.width([each.chances for each in proposals], drafted)
        if width == 1:
            return None
        proposals = [self._drafted(row, each.cut(width - 1)) for row, each in enumerate(proposals)]
        return proposals if any(each.tokens for each in proposals) else None

    def _hope(self, row: int) -> tuple[list[float], bool]:
        """Return the chances of guesses about a row, and True if the draft model would make them."""
        # As long as the next token is unknown, it is one of the guesses.
        unknown = int(self._known[row] is None)
        chances = self._lookups[row].chances(LONGEST_GUESS + unknown)[unknown:]
        if self._drafts:
            drafted = self._drafts[row].chances(LONGEST_DRAFT)
            if sum(drafted) > sum(chances):
                return drafted, True
        return chances, False

    def _learn(self, tokens: mx.array) -> None:
        """Record the values of the next tokens, as far as they are not known."""
        if None not in self._known:
            return
        values: Any = tokens.tolist()
        for row, token in enumerate(values):
            if self._known[row] is None:
                self._known[row] = token
                if self._lookups:
                    self._lookups[row].add(token)

    def _proposal(self, row: int, *, may_guess: bool) -> Proposal:
        token = self._known[row]
        room = self.max_tokens[row] - self._num_tokens[row] - 1
        if token is None or token in self.ends or room <= 0:
            return Proposal()
        tokens: list[int] = []
        for process in self.logits_processors[row]:
            tokens = process.forced(token) or tokens
        forced, draft = len(tokens), None
        chances = certain = [1.0] * forced
        if may_guess:
            guesses = self._lookups[row].guess(LONGEST_GUESS)
            if guesses[:forced] == tokens:
                tokens += guesses[forced:]
                chances = certain + self._lookups[row].chances(LONGEST_GUESS, after=forced)
            if self._drafts and sum(self._drafts[row].chances(LONGEST_DRAFT)) > sum(chances[forced:]):
                draft, tokens = self._drafts[row], tokens[:forced]
                chances = certain + draft.chances(LONGEST_DRAFT)
        return Proposal(tokens, forced, chances, draft).cut(self._before_end(tokens, room))

    def _drafted(self, row: int, proposal: Proposal) -> Proposal:
        """Return the proposal with the draft model's guesses, if it should make some and has read the row's text."""
        drafter = self.speculation.drafter if self.speculation is not None else None
        count = len(proposal.chances) - proposal.forced
        if drafter is None or proposal.draft is None or count <= 0:
            return proposal
        next_token: Any = self._known[row]
        text: list[int] = [*self.tokens[row], next_token, *proposal.tokens]
        if not drafter.follow(proposal.draft, text):
            return proposal
        tokens = [*proposal.tokens, *drafter.guess(proposal.draft, text, count)]
        whole = Proposal(tokens, proposal.forced, proposal.chances, proposal.draft)
        return whole.cut(self._before_end(tokens, len(tokens)))

    def _before_end(self, tokens: Sequence[int], room: int) -> int:
        """Return how many of these tokens may be proposed: none that ends a response."""
        for i, token in enumerate(tokens[:room]):
            if token in self.ends:
                return i
        return room

    def _keep_drafts(self, keep: list[int]) -> None:
        drafter = self.speculation.drafter if self.speculation is not None else None
        if drafter is None or not self._drafts:
            return
        for row, draft in enumerate(self._drafts):
            if row not in keep:
                drafter.leave(draft, self.tokens[row])
        self._drafts = [self._drafts[row] for row in keep]

    def _step_of_several(self, proposals: Sequence[Proposal]) -> list[list[Chosen]]:
        """Compute what the rows bring; return each row's tokens that are now certain."""
        known: Any = self._known
        fed: list[list[int]] = [[token, *each.tokens] for token, each in zip(known, proposals, strict=True)]
        width = max(map(len, fed))
        if len(fed) > 1 and not all(type(cache) is GappedKVCache for cache in self.prompt_cache):
            self.prompt_cache = gapped(self.prompt_cache, len(fed))
        inputs = mx.array([tokens + [0] * (width - len(tokens)) for tokens in fed], mx.uint32)
        logits = self.model(inputs, cache=self.prompt_cache)
        best = mx.argmax(logits, axis=-1)
        mx.eval(logits, best)
        likeliest: Any = best.tolist()
        chosen: list[list[Chosen]] = []
        for row, proposal in enumerate(proposals):
            if self._is_greedy(row):
                found = [(token, None) for token in _agreed(fed[row], likeliest[row])]
            else:
                found = self._chosen(row, fed[row], proposal.forced, logits[row])
            chosen.append(found)
        self._keep(width, [len(each) for each in chosen])
        responses = []
        for row, found in enumerate(chosen):
            self.tokens[row] += fed[row][: len(found)]
            self._speculated(row, proposals[row], found)
            responses.append([(fed[row][0], self._next_logprobs[row]), *found[:-1]])
        self._known = [found[-1][0] for found in chosen]
        self._current_tokens, self._next_tokens = (
            self._next_tokens,
            mx.array([found[-1][0] for found in chosen], mx.uint32),
        )
        self._next_logprobs = [found[-1][1] for found in chosen]
        mx.eval(self._next_tokens, [logprobs for found in chosen for _, logprobs in found if logprobs is not None])
        return responses

    def _is_greedy(self, row: int) -> bool:
        plain = not self.logits_processors[row] and self.uids[row] not in self.reporting
        return plain and self.samplers[row] is greedy_sampler

    def _chosen(self, row: int, fed: list[int], forced: int, logits: mx.array) -> list[Chosen]:
        """Return the tokens after the first fed one: those that agree with the fed ones, and one more.

        `logits` has shape (width, vocabulary).
        """
        processors, sample, reports = self.logits_processors[row], self.samplers[row], self.uids[row] in self.reporting
        buffer: Any = self._token_context[row]
        found: list[Chosen] = []
        if forced and not reports:
            found = [(token, None) for token in fed[1 : forced + 1]]
            if hasattr(sample, "skip"):
                sample.skip(forced)
        seen = 0
        for i in range(len(found), len(fed)):
            changed = logits[i : i + 1]
            if processors:
                context = buffer.update_and_fetch(mx.array(fed[seen : i + 1], mx.int32))
                seen = i + 1
                for process in processors:
                    changed = process(context, changed)
            token: Any = sample(changed).item()
            found.append((token, _normalised(changed[0]) if reports else None))
            if i + 1 < len(fed) and token != fed[i + 1]:
                break
        return found

    def _keep(self, width: int, kept: list[int]) -> None:
        """Let the caches drop tokens that were fed in vain: keep only the first tokens of each row."""
        if len(kept) > 1:
            leave_gaps(self.prompt_cache, width, kept)
            if too_many(self.prompt_cache):
                close_gaps(self.prompt_cache)
        elif kept[0] < width:
            for cache in self.prompt_cache:
                cache.trim(width - kept[0])

    def _speculated(self, row: int, proposal: Proposal, found: Sequence[Chosen]) -> None:
        assert self.speculation is not None  # noqa: S101  # nothing is proposed without it
        self.speculation.count(proposal, len(found) - 1)
        for i, (token, _) in enumerate(found):
            self._lookups[row].add(token, forced=i < proposal.forced)

    # Caches

    def _has_own_caches(self) -> bool:
        return any(type(cache) is KVCache for cache in self.prompt_cache)

    def _has_only_own_caches(self) -> bool:
        return all(type(cache) is KVCache for cache in self.prompt_cache)

    def _may_leave_gaps(self) -> bool:
        return all(isinstance(cache, BatchKVCache) for cache in self.prompt_cache)

    def _separate_caches(self) -> None:
        """Give a single row the caches that it would have without a batch."""
        if len(self.uids) == 1 and self._may_leave_gaps():
            self.prompt_cache = [cache.extract(0) for cache in closed(self.prompt_cache)]

    def _join_caches(self) -> None:
        """Prepare a single row's caches for a batch of several rows."""
        if self._has_own_caches():
            self.prompt_cache = [cache.merge([cache]) for cache in self.prompt_cache]


def _agreed(fed: Sequence[int], likeliest: Sequence[int]) -> list[int]:
    """Return the likeliest tokens as long as the fed tokens agree with them, and one more."""
    found = []
    for i, token in enumerate(likeliest[: len(fed)]):
        found.append(token)
        if i + 1 < len(fed) and token != fed[i + 1]:
            break
    return found


def _normalised(logits: mx.array) -> mx.array:
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)
