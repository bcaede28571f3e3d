"""Answers that must have a form: grammars, and which tokens they allow next.

Knows llguidance, tokens and masks. Knows nothing of requests, and of the batch only how it calls a logits processor.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import mlx.core as mx
import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, regex_to_lark
from llguidance.hf import from_tokenizer

from localapi.worker.llm.constrained.tool_grammar import (
    GrammarRefused,
    Marks,
    Part,
    ThinkBlock,
    Tool,
    ToolCalls,
    after_thinking,
    arguments_part,
    call_parts,
    json_part,
    think_block,
)
from localapi.worker.protocol import JsonObject, JsonSchema, Lark, Regex

__all__ = [
    "Constraint",
    "GrammarRefused",
    "GrammarStuck",
    "Grammars",
    "JsonObject",
    "JsonSchema",
    "Lark",
    "Regex",
    "Spec",
    "ThinkBlock",
    "Tool",
    "ToolCalls",
    "think_block",
]

CACHED_GRAMMARS = 64
LONGEST_GRAMMAR = 131_072
"""Characters. With LIMITS it bounds what compiling can cost, which is time that no other row gets a token in."""
LONGEST_REASON = 300
LIMITS = LLParserLimits(
    initial_lexer_fuel=200_000, max_grammar_size=15_000, max_lexer_states=50_000, verbose_errors=False
)
MASK_SECONDS = 10
"""Of processor time. A mask takes milliseconds; one that takes so long never ends, and nobody else gets a token."""


Spec = JsonSchema | JsonObject | Regex | Lark | ToolCalls


_SUBJECTS: dict[type[Spec], str] = {
    JsonSchema: "The JSON schema",
    JsonObject: "JSON",
    Regex: "The regular expression",
    Lark: "The grammar",
    ToolCalls: "The tools' parameters",
}


@contextmanager
def _ending() -> Iterator[None]:
    """What is still computed after MASK_SECONDS ends with this process (SIGVTALRM): it holds the interpreter lock."""
    signal.setitimer(signal.ITIMER_VIRTUAL, MASK_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


class GrammarStuck(Exception):
    """A grammar gave up in the middle of an answer; the message is for people and says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Vocabulary:
    """The model's tokens, as llguidance knows them."""

    tokens: LLTokenizer
    width: int
    """Of the logits."""
    ends: mx.array
    """Which tokens end an answer: `width` booleans."""


class Constraint:
    """A logits processor for one row: leaves only tokens that its grammar allows, and at the end an end token.

    The batch calls it once for each token, with the one before as the last of `tokens`; so it counts no prompt.
    `error` is what went wrong: the tokens since then are free, and no answer.
    """

    def __init__(self, grammar: LLMatcher, vocabulary: _Vocabulary) -> None:
        """`grammar` is not changed."""
        self._grammar = grammar
        self._matcher = grammar.deep_copy()
        self._vocabulary = vocabulary
        self._bits = np.zeros((vocabulary.tokens.vocab_size + 31) // 32, dtype=np.uint32)
        self._started = False
        self.error: Exception | None = None

    def fresh(self) -> Constraint:
        """The same constraint, for an answer that starts now."""
        return Constraint(self._grammar, self._vocabulary)

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        """`tokens`: prompt and answer so far; `logits`: (1, vocabulary), masked in what is returned. Never raises."""
        if self.error is not None:
            return logits
        try:
            if self._started:
                self._take(tokens)
            self._started = True
            return mx.where(self._allowed(), logits, -mx.inf)
        except Exception as error:  # must not reach the other rows; the engine fails this request alone
            self.error = error
            return logits

    def _take(self, tokens: mx.array) -> None:
        token: Any = tokens[-1].item()  # waits for the model
        with _ending():
            taken = self._matcher.is_stopped() or self._matcher.consume_token(token)
        if not taken:
            raise GrammarStuck(self._matcher.get_error())

    def _allowed(self) -> mx.array:
        """Which tokens may come next."""
        if not self._matcher.is_stopped():
            with _ending():
                self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        if self._matcher.is_error():
            raise GrammarStuck(self._matcher.get_error())
        if self._matcher.is_stopped():
            return self._vocabulary.ends
        allowed = np.unpackbits(self._bits.view(np.uint8), bitorder="little")[: self._vocabulary.width]
        count = np.count_nonzero(allowed)
        if count == 0:
            raise GrammarStuck("no token of the model continues the grammar")
        if count == 1:
            self._respell(allowed)
        return mx.array(allowed.view(np.bool_))

    def _respell(self, allowed: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        """Where the grammar forces text that spells a special token ("<think>"), put a common token in its place.

        llguidance's mask then holds the special token, which its own parser refuses.
        """
        if self._matcher.validate_tokens([int(allowed.argmax())]):
            return
        forced = self._matcher.compute_ff_bytes().decode("utf-8", "ignore")
        spelled = self._vocabulary.tokens.greedy_tokenize(forced)[:1]
        if not self._matcher.validate_tokens(spelled):
            raise GrammarStuck("the grammar demands a special token inside text")
        allowed[:] = 0
        allowed[spelled] = 1


class Grammars:
    """Makes one model's constraints."""

    def __init__(self, tokenizer: Any, vocab_size: int) -> None:
        """`tokenizer`: mlx-lm's TokenizerWrapper; `vocab_size`: the width of the model's logits."""
        self._tokenizer = tokenizer
        self._width = vocab_size
        self._marks = Marks(tokenizer)
        self._compiled = lru_cache(CACHED_GRAMMARS)(self._compile)

    def constraint(self, spec: Spec, *, think: ThinkBlock | None = None) -> Constraint:
        """The constraint for one answer, which may think first. Raises GrammarRefused."""
        return Constraint(self._compiled(spec, think), self._vocabulary)

    @cached_property
    def _vocabulary(self) -> _Vocabulary:
        """Made when it is first needed: that takes about a second where the vocabulary is large."""
        ends = sorted(token for token in self._tokenizer.eos_token_ids if token < self._width)
        if not ends:
            raise GrammarRefused("This model's tokenizer names no end token, so an answer in a form would never end.")
        size = max(self._width, len(self._tokenizer))
        hf_tokenizer = getattr(self._tokenizer, "_tokenizer", self._tokenizer)
        try:
            tokens = from_tokenizer(hf_tokenizer, n_vocab=size, eos_token=ends)
        except Exception as error:
            raise GrammarRefused(f"Answers in a form are not possible with this model's tokenizer: {error}") from error
        mask = np.zeros(self._width, dtype=np.bool_)
        mask[ends] = True
        return _Vocabulary(tokens=tokens, width=self._width, ends=mx.array(mask))

    def _compile(self, spec: Spec, think: ThinkBlock | None) -> LLMatcher:
        grammar = json.dumps({"grammars": self._parts(spec, think)})
        if len(grammar) > LONGEST_GRAMMAR:
            raise GrammarRefused(f"The grammar is too long: {len(grammar)} characters; at most {LONGEST_GRAMMAR} work.")
        matcher = LLMatcher(self._vocabulary.tokens, grammar, log_level=0, limits=LIMITS)
        if not matcher.is_error():
            matcher.compute_bitmask()  # some errors show only here; and every copy starts with this work done
        if matcher.is_error() or (matcher.is_stopped() and not matcher.is_accepting()):
            problem = matcher.get_error()
            impossible = not problem or problem.startswith("NoExtension")
            raise self._refusal(spec, "no text satisfies it" if impossible else problem)
        return matcher

    def _parts(self, spec: Spec, think: ThinkBlock | None) -> list[Part]:
        """What llguidance compiles."""
        match spec:
            case JsonSchema(schema=schema):
                parts = [json_part(schema)]
            case JsonObject():
                parts = [json_part('{"type": "object"}')]
            case Regex(pattern=pattern):
                parts = [{"lark_grammar": f"start: /{regex_to_lark(pattern, 'd')}/"}]
            case Lark(text=text):
                parts = [{"lark_grammar": text}]
            case ToolCalls():
                parts = call_parts(self._tokenizer, spec, self._marks)
        if think is None:
            return parts
        return after_thinking(think, parts, self._marks, verbatim=isinstance(spec, Regex | Lark))

    def _refusal(self, spec: Spec, reason: str) -> GrammarRefused:
        """What llguidance has to say, as people should read it."""
        subject = _SUBJECTS[type(spec)]
        for tool in spec.tools if isinstance(spec, ToolCalls) else ():
            arguments = json.dumps({"grammars": [arguments_part(tool)]})
            if problem := LLMatcher.validate_grammar(arguments, limits=LIMITS):
                subject, reason = f"The parameters of {tool.name}", problem
                break
        reason = reason.replace("<non-verbose/>", "").strip()
        if len(reason) > LONGEST_REASON:
            reason = reason[:LONGEST_REASON] + "…"
        return GrammarRefused(f"{subject} cannot be followed: {reason}")
