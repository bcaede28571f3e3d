"""Answers that must have a form: grammars, and which tokens they allow next.

Knows llguidance, tokens and masks. Knows nothing of requests, and of the batch only how it calls a logits processor.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import mlx.core as mx
import msgspec
import numpy as np
from llguidance import JsonCompileOptions, LLMatcher, LLParserLimits, LLTokenizer
from llguidance.hf import from_tokenizer

from localapi.worker import tool_grammar
from localapi.worker.tool_grammar import ThinkBlock, Tool, UnknownFormat

CACHED_GRAMMARS = 64
LONGEST_SPEC = 250_000
"""Characters. With LIMITS it bounds what compiling can cost, which is time that no other row gets a token in."""
LIMITS = LLParserLimits(
    initial_lexer_fuel=200_000,
    max_grammar_size=15_000,
    max_lexer_states=50_000,
    verbose_errors=False,
)
WHITESPACE = r"( |\r?\n[ \t]{0,40})"
"""What JSON may have between its parts: enough to be indented, too little to be endless, which small models like."""
_JSON_OPTIONS = JsonCompileOptions(whitespace_pattern=WHITESPACE)


class JsonSchema(msgspec.Struct, frozen=True, tag=True):
    """JSON that this schema allows."""

    schema: str
    """The schema as JSON, with its keys in the user's order: answers name properties in that order."""


class JsonObject(msgspec.Struct, frozen=True, tag=True):
    """Any JSON object."""


class Regex(msgspec.Struct, frozen=True, tag=True):
    """Text that this regular expression matches as a whole. Rust's syntax: no look-around, no references."""

    pattern: str


class Lark(msgspec.Struct, frozen=True, tag=True):
    """Text of this grammar, in llguidance's dialect of Lark."""

    text: str


class ToolCalls(msgspec.Struct, frozen=True, tag=True):
    """One call or more, and no other text."""

    tools: tuple[Tool, ...]
    choice: str | None = None
    """The only function to call; None: any."""
    parallel: bool = True
    """Whether there may be several calls."""


Spec = JsonSchema | JsonObject | Regex | Lark | ToolCalls


class GrammarRefused(Exception):
    """The form cannot be had from this model; the message is for people and says why."""


class _Stuck(Exception):
    """A grammar gave up in the middle of an answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Vocabulary:
    """The model's tokens, as llguidance knows them."""

    tokens: LLTokenizer
    width: int
    """Of the logits."""
    ends: mx.array
    """Which tokens end an answer: booleans, `width` of them."""


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
                self._take(tokens, logits)
            self._started = True
            return mx.where(self._allowed(), logits, -mx.inf)
        except Exception as error:  # must not reach the other rows; the engine fails this request alone
            self.error = error
            return logits

    def _take(self, tokens: mx.array, logits: mx.array) -> None:
        last = tokens[-1]
        mx.async_eval(last)
        mx.async_eval(logits)  # after `last`: the model works while the mask is made
        if not self._matcher.is_stopped() and not self._matcher.consume_token(int(last.item())):
            raise _Stuck(self._matcher.get_error())

    def _allowed(self) -> mx.array:
        """Which tokens may come next."""
        if not self._matcher.is_stopped():
            self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        if self._matcher.is_error():
            raise _Stuck(self._matcher.get_error())
        if self._matcher.is_stopped():
            return self._vocabulary.ends
        allowed = np.unpackbits(self._bits.view(np.uint8), bitorder="little")[: self._vocabulary.width]
        count = np.count_nonzero(allowed)
        if count == 1:
            self._respell(allowed)
        elif not count:
            raise _Stuck("no token of the model continues the grammar")
        return mx.array(allowed.view(np.bool_))

    def _respell(self, allowed: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        """Where the grammar forces text that spells a special token ("<think>"), put common tokens in its place.

        llguidance's mask then holds the special token, which its own parser refuses.
        """
        if self._matcher.validate_tokens([int(allowed.argmax())]):
            return
        forced = self._matcher.compute_ff_bytes().decode("utf-8", "ignore")
        spelled = self._vocabulary.tokens.greedy_tokenize(forced)
        if not spelled or not self._matcher.validate_tokens(spelled[:1]):
            raise _Stuck("the grammar demands a special token inside text")
        allowed[:] = 0
        allowed[spelled[0]] = 1


class Grammars:
    """Makes one model's constraints."""

    def __init__(self, tokenizer: Any, vocab_size: int) -> None:
        """`tokenizer`: mlx-lm's TokenizerWrapper; `vocab_size`: the width of the model's logits."""
        self._tokenizer = tokenizer
        self._width = vocab_size
        self._compiled = lru_cache(CACHED_GRAMMARS)(self._compile)

    def constraint(self, spec: Spec, *, think: ThinkBlock | None = None) -> Constraint:
        """The constraint for one answer. Raises GrammarRefused."""
        return Constraint(self._compiled(spec, think), self._vocabulary)

    def think_block(self, prompt: list[int]) -> ThinkBlock | None:
        """How the model may think after this prompt, before the part that has a form; None where it may not."""
        return tool_grammar.think_block(self._tokenizer, prompt)

    @cached_property
    def _vocabulary(self) -> _Vocabulary:
        """Made when it is first needed: it takes a second for a large vocabulary."""
        ends = sorted(token for token in self._tokenizer.eos_token_ids if token < self._width)
        if not ends:
            raise GrammarRefused("This model's tokenizer names no end token, so an answer in a form would never end.")
        size = max(self._width, len(self._tokenizer))
        try:
            tokens = from_tokenizer(getattr(self._tokenizer, "_tokenizer", self._tokenizer), n_vocab=size, eos_token=ends)
        except Exception as error:
            raise GrammarRefused(f"Answers in a form are not possible with this model's tokenizer: {error}") from error
        mask = np.zeros(self._width, dtype=np.bool_)
        mask[ends] = True
        return _Vocabulary(tokens=tokens, width=self._width, ends=mx.array(mask))

    def _compile(self, spec: Spec, think: ThinkBlock | None) -> LLMatcher:
        tokens = self._vocabulary.tokens
        grammar = self._grammar(spec, think)
        if len(grammar) > LONGEST_SPEC:
            raise GrammarRefused(f"The grammar is too long: {len(grammar)} characters; at most {LONGEST_SPEC} work.")
        matcher = LLMatcher(tokens, grammar, log_level=0, limits=LIMITS)
        if not matcher.is_error():
            matcher.compute_bitmask()  # some find out only here; and the copies start with this work done
        if matcher.is_error():
            raise GrammarRefused(_reason(spec, matcher.get_error()))
        if matcher.is_stopped() and not matcher.is_accepting():
            raise GrammarRefused(_reason(spec, "no text satisfies it"))
        return matcher

    def _grammar(self, spec: Spec, think: ThinkBlock | None) -> str:
        """What llguidance compiles."""
        match spec:
            case ToolCalls():
                parts = self._tool_calls(spec)
            case JsonSchema(schema):
                parts = [_json(schema)]
            case JsonObject():
                parts = [_json('{"type": "object"}')]
            case Regex(pattern):
                parts = json.loads(LLMatcher.grammar_from_regex(pattern))["grammars"]
            case Lark(text):
                parts = [{"lark_grammar": text}]
        if think is not None:
            parts = tool_grammar.after_thinking(think, parts, self._marks)
        return json.dumps({"grammars": parts})

    def _tool_calls(self, spec: ToolCalls) -> list[dict[str, Any]]:
        tools = [tool for tool in spec.tools if spec.choice in (None, tool.name)]
        if not tools:
            raise GrammarRefused(f"There is no tool {spec.choice!r}." if spec.choice else "There is no tool to call.")
        try:
            return tool_grammar.tool_calls(self._tokenizer, tools, self._marks, parallel=spec.parallel)
        except UnknownFormat as error:
            raise GrammarRefused(str(error)) from error

    def _marks(self, text: str) -> list[int | str]:
        """The text as this model writes it: special tokens by their number, and other text between them."""
        pieces: list[int | str] = []
        for token in self._tokenizer.encode(text, add_special_tokens=False):
            if self._vocabulary.tokens.is_special_token(token):
                pieces.append(token)
        return pieces or [text]
