"""Constrain responses to a form: compile grammars, and mask the tokens that they do not allow next.

This module knows llguidance, tokens and masks, but no requests, and of the batch only how it calls a logits processor.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache, partial
from typing import Any

import mlx.core as mx
import numpy as np
from llguidance import LLMatcher, regex_to_lark

from localapi.worker.llm.constrained.compiling import LIMITS, Grammar, problem_of
from localapi.worker.llm.constrained.marks import Marks
from localapi.worker.llm.constrained.schema_grammar import (
    AS_WRITTEN,
    PIECEWISE,
    TYPE_ONLY,
    GrammarRefused,
    any_object,
    below,
    grammar_of_schema,
)
from localapi.worker.llm.constrained.tool_grammar import (
    AnswerGrammar,
    FormatUnknown,
    Tool,
    ToolCalls,
    after_thinking,
    grammar_of_arguments,
    grammar_of_calls,
)
from localapi.worker.llm.constrained.vocabulary import Vocabulary, VocabularyIndex
from localapi.worker.llm.output.thinking import ThinkBlock, think_block
from localapi.worker.protocol import JsonObject, JsonSchema, Lark, Regex

__all__ = [
    "Constraint",
    "FormatUnknown",
    "GrammarCompiler",
    "GrammarRefused",
    "GrammarStuck",
    "JsonObject",
    "JsonSchema",
    "Lark",
    "NotCompiled",
    "Regex",
    "Spec",
    "ThinkBlock",
    "Tool",
    "ToolCalls",
    "think_block",
]

CACHED_GRAMMARS = 64
LONGEST_GRAMMAR = 131_072
"""Maximum characters of a grammar. Together with LIMITS, this bounds the cost of compiling."""
LONGEST_REASON = 300
MASK_SECONDS = 10
"""Maximum processor time of one mask. It normally takes milliseconds; one that takes this long never ends."""


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
    """End this process (SIGVTALRM) after MASK_SECONDS in the block, because llguidance holds the interpreter lock."""
    signal.setitimer(signal.ITIMER_VIRTUAL, MASK_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


class NotCompiled(Exception):
    """A grammar is not compiled yet. `compile` does that, on any thread."""

    def __init__(self, compile: Callable[[], None]) -> None:  # noqa: A002
        super().__init__("the grammar is not compiled yet")
        self.compile = compile


class GrammarStuck(Exception):
    """A grammar gave up during a response. The message tells the user why."""


class Constraint:
    """Logits processor for one row: it leaves only the tokens that its grammar allows, and at the end an end token.

    The content of `tokens` at the first call is the prompt, which is ignored. From then on, it takes the new tokens of
    each call. `error` is set if something went wrong: later tokens are unconstrained and not a valid response.
    `relaxed` names requirements that are not enforced.
    """

    def __init__(self, grammar: LLMatcher, vocabulary: Vocabulary, relaxed: tuple[str, ...] = ()) -> None:
        """`grammar` is copied, not changed."""
        self.relaxed = relaxed
        self._grammar = grammar
        self._matcher = grammar.deep_copy()
        self._vocabulary = vocabulary
        self._bits = np.zeros((vocabulary.tokens.vocab_size + 31) // 32, dtype=np.uint32)
        self._length: int | None = None
        """Number of tokens of the prompt and response taken so far; None before the first call."""
        self.error: Exception | None = None

    def fresh(self) -> Constraint:
        """Return the same constraint for a response that starts now."""
        return Constraint(self._grammar, self._vocabulary, self.relaxed)

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        """Return the masked logits. Never raises.

        `tokens` are the prompt and the response so far; `logits` has shape (1, vocabulary).
        """
        if self.error is not None:
            return logits
        try:
            if self._length is None:
                self._length = len(tokens)
            elif len(tokens) > self._length:  # their values may have to be waited for
                new: Any = tokens[self._length :].tolist()
                self._take(new)
            return mx.where(self._allowed(), logits, -mx.inf)
        except Exception as error:  # must not affect the other rows; the engine fails only this request
            self.error = error
            return logits

    def forced(self, token: int) -> list[int]:
        """Take the response's next token and return those that must follow it. Never raises.

        They are what the mask would leave one by one, because llguidance forces text in the tokens that the tokenizer
        would write. They never include an end token.
        """
        if self.error is not None or self._length is None:
            return []
        try:
            self._take([token])
            if self._matcher.is_stopped():
                return []
            with _ending():
                tokens = self._matcher.compute_ff_tokens()
                return tokens[: self._matcher.validate_tokens(tokens)]
        except Exception as error:  # as in a call
            self.error = error
            return []

    def _take(self, tokens: list[int]) -> None:
        assert self._length is not None  # noqa: S101  # no token is taken before the first mask
        self._length += len(tokens)
        for token in tokens:
            with _ending():
                taken = self._matcher.is_stopped() or self._matcher.consume_token(token)
            if not taken:
                raise GrammarStuck(self._matcher.get_error())

    def _allowed(self) -> mx.array:
        """Return which tokens may come next."""
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
        """Replace a special token ("<think>") by a common one if the grammar only forces its text.

        llguidance's mask then contains the special token, which its own parser refuses.
        """
        if self._matcher.validate_tokens([int(allowed.argmax())]):
            return
        forced = self._matcher.compute_ff_bytes().decode("utf-8", "ignore")
        spelled = self._vocabulary.tokens.greedy_tokenize(forced)[:1]
        if not self._matcher.validate_tokens(spelled):
            raise GrammarStuck("the grammar demands a special token inside text")
        allowed[:] = 0
        allowed[spelled] = 1


class _Compiled:
    """A compiled grammar and what it relaxes, or why it is refused; None until that is known."""

    outcome: tuple[LLMatcher, tuple[str, ...]] | GrammarRefused | None = None


class GrammarCompiler:
    """Compiler of the grammars of one model."""

    def __init__(self, tokenizer: Any, vocab_size: int, index: VocabularyIndex | None = None) -> None:
        """Create a compiler from mlx-lm's TokenizerWrapper and the width of the model's logits.

        `index` is the index of the tokens, if it is being built. Otherwise the first grammar waits for it.
        """
        self._index = index
        self._tokenizer = tokenizer
        self._width = vocab_size
        self._marks = Marks(tokenizer)
        self._compiled = lru_cache(CACHED_GRAMMARS)(lambda _spec, _think: _Compiled())
        self._compiling = threading.Lock()

    def constraint(self, spec: Spec, *, think: ThinkBlock | None = None, wait: bool = True) -> Constraint:
        """Return the constraint for one response. Raise GrammarRefused; NotCompiled if not to `wait` for its grammar.

        If `think`, the model may think first.
        """
        compiled = self._compiled(spec, think)
        if compiled.outcome is None:
            compile_it = partial(self._compile_once, compiled, spec, think)
            if not wait:
                raise NotCompiled(compile_it)
            compile_it()
        if isinstance(compiled.outcome, GrammarRefused):
            raise type(compiled.outcome)(str(compiled.outcome))  # a new one: each raise adds to an error's traceback
        assert compiled.outcome is not None  # noqa: S101  # it is compiled now
        matcher, relaxed = compiled.outcome
        return Constraint(matcher, self._vocabulary, relaxed)

    @property
    def forces_calls(self) -> bool:
        """True if the model's format of tool calls is known, so that a call can be required."""
        try:
            self._grammars(ToolCalls((Tool("f", "{}", False),), None, True, False), AS_WRITTEN)
        except GrammarRefused:
            return False
        return True

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return (self._index or VocabularyIndex(self._tokenizer, self._width)).get()

    def _compile_once(self, compiled: _Compiled, spec: Spec, think: ThinkBlock | None) -> None:
        with self._compiling:
            if compiled.outcome is None:
                try:
                    compiled.outcome = self._compile(spec, think)
                except GrammarRefused as error:
                    compiled.outcome = error

    def _compile(self, spec: Spec, think: ThinkBlock | None) -> tuple[LLMatcher, tuple[str, ...]]:
        """Return the grammar and the places that it relaxes: none if it compiles, otherwise as few as possible."""
        problem = ""
        tries = (AS_WRITTEN, PIECEWISE, TYPE_ONLY) if _may_relax(spec) else (AS_WRITTEN,)
        for kept in tries:
            found = self._grammars(spec, kept)
            grammars = found.grammars
            if think is not None:
                grammars = after_thinking(
                    think,
                    grammars,
                    self._marks,
                    verbatim=isinstance(spec, Regex | Lark),
                    calls=isinstance(spec, ToolCalls),
                )
            matcher, problem = self._matcher(grammars)
            if not problem:
                return matcher, found.relaxed
            if isinstance(spec, JsonSchema) and problem.startswith(("NoExtension", "Unsatisfiable")):
                break
        raise self._refusal(spec, problem)

    def _matcher(self, grammars: list[Grammar]) -> tuple[Any, str]:
        """Return the compiled grammar, or its error."""
        grammar = json.dumps({"grammars": grammars})
        if len(grammar) > LONGEST_GRAMMAR:
            return None, f"it is too long: {len(grammar)} characters; the maximum is {LONGEST_GRAMMAR}"
        matcher = LLMatcher(self._vocabulary.tokens, grammar, log_level=0, limits=LIMITS)
        if not matcher.is_error():
            matcher.compute_bitmask()  # some errors show only here, and every copy starts with this work done
        if matcher.is_error() or (matcher.is_stopped() and not matcher.is_accepting()):
            return None, matcher.get_error() or "NoExtension"
        return matcher, ""

    def _grammars(self, spec: Spec, kept: int) -> AnswerGrammar:
        """Return the grammars for llguidance, and the places that they leave out."""
        match spec:
            case JsonSchema(schema=text, strict=strict, closed=closed):
                found = grammar_of_schema("The JSON schema", _read(text), strict=strict, closed=closed, kept=kept)
                return AnswerGrammar([found.grammar], below("response_format.schema", found.relaxed))
            case JsonObject():
                return AnswerGrammar([any_object()], ())
            case Regex(pattern=pattern):
                return AnswerGrammar([{"lark_grammar": f"start: /{regex_to_lark(pattern, 'd')}/"}], ())
            case Lark(text=text):
                return AnswerGrammar([{"lark_grammar": text}], ())
            case ToolCalls():
                return grammar_of_calls(self._tokenizer, spec, self._marks, kept=kept)

    def _refusal(self, spec: Spec, reason: str) -> GrammarRefused:
        """Return llguidance's reason as an error that a user can read."""
        subject = _SUBJECTS[type(spec)]
        if isinstance(spec, ToolCalls):
            for tool in spec.tools:
                problem = problem_of(grammar_of_arguments(tool).grammar)
                if problem:
                    subject, reason = f"The parameters of {tool.name}", problem
                    break
        if reason.startswith("NoExtension"):
            reason = "no text satisfies it"
        reason = reason.replace("<non-verbose/>", "").strip()
        if len(reason) > LONGEST_REASON:
            reason = reason[:LONGEST_REASON] + "…"
        return GrammarRefused(f"{subject} cannot be followed: {reason}")


def _may_relax(spec: Spec) -> bool:
    match spec:
        case JsonSchema(strict=strict):
            return not strict
        case ToolCalls(tools=tools):
            return not all(tool.strict for tool in tools)
        case _:
            return False


def _read(text: str) -> object:
    try:
        schema: object = json.loads(text)
    except ValueError as error:
        raise GrammarRefused(f"The JSON schema is not a JSON object: {error}.") from error
    except RecursionError as error:
        raise GrammarRefused("The JSON schema is nested too deeply.") from error
    if not isinstance(schema, dict | bool):
        raise GrammarRefused(f"The JSON schema must be a JSON object; found {type(schema).__name__}.")
    return schema
