"""A model's tokens as llguidance knows them: indexed, so that a mask of those that continue a text takes no time.

llguidance holds the interpreter lock while it builds the index, and no answer gets a token meanwhile. If it reads the
Hugging Face tokenizer itself that is 2 s of processor time for 151,936 tokens and 5 s for 262,144. Given the bytes of
each token it is less than half, and takes half the memory. No answer can wait for that either, so the index is built
while the weights are read.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from llguidance import LLTokenizer, TokenizerWrapper
from llguidance.hf import from_tokenizer

from localapi.worker.llm.constrained.schema_grammar import GrammarRefused
from localapi.worker.llm.detokenizer import byte_reading


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """The model's tokens as llguidance knows them."""

    tokens: LLTokenizer
    width: int
    """Width of the logits."""
    ends: mx.array
    """`width` booleans: which tokens end an answer."""


class VocabularyIndex:
    """Builds the vocabulary of a tokenizer on a separate thread, from the start."""

    def __init__(self, tokenizer: Any, width: int) -> None:
        """`tokenizer`: mlx-lm's TokenizerWrapper. `width`: that of the model's logits."""
        self._tokenizer = tokenizer
        self._width = width
        self._tokens: Future[LLTokenizer] = Future()
        threading.Thread(target=self._build, name="vocabulary", daemon=True).start()

    def wait(self) -> None:
        """Wait until the index is built, or cannot be."""
        self._tokens.exception()

    def get(self) -> Vocabulary:
        """Return the vocabulary, when it is there. Raise GrammarRefused if there cannot be one of this tokenizer."""
        try:
            tokens = self._tokens.result()
        except GrammarRefused:
            raise
        except Exception as error:  # from llguidance
            raise GrammarRefused(f"This model's tokenizer does not support structured output: {error}") from error
        mask = np.zeros(self._width, dtype=np.bool_)
        mask[_ends(self._tokenizer, self._width)] = True
        return Vocabulary(tokens=tokens, width=self._width, ends=mx.array(mask))

    def _build(self) -> None:
        try:
            self._tokens.set_result(indexed(self._tokenizer, self._width))
        except Exception as error:  # for `get`
            self._tokens.set_exception(error)


def indexed(tokenizer: Any, width: int) -> LLTokenizer:
    """Return the index. Raise GrammarRefused, and what llguidance raises."""
    ends = _ends(tokenizer, width)
    size = max(width, len(tokenizer))
    own = getattr(tokenizer, "_tokenizer", tokenizer)
    tokens = _Tokens.of(own, size)
    if tokens is None:  # a vocabulary of another kind: llguidance knows some more, and says what is wrong with others
        return from_tokenizer(own, n_vocab=size, eos_token=ends)
    return LLTokenizer(TokenizerWrapper(tokens), n_vocab=size, eos_token=ends)


def _ends(tokenizer: Any, width: int) -> list[int]:
    ends = sorted(token for token in tokenizer.eos_token_ids if token < width)
    if not ends:
        raise GrammarRefused("This model's tokenizer has no end token, so structured output would never end.")
    return ends


class _Tokens:
    """The vocabulary in the form that llguidance's TokenizerWrapper reads."""

    bos_token_id = None
    eos_token_id = 0
    """Ignored: the index is given all of them."""

    def __init__(self, tokenizer: Any, tokens: list[bytes], special: list[int]) -> None:
        self._tokenizer = tokenizer.backend_tokenizer
        self.tokens = tokens
        self.special_token_ids = special

    def __call__(self, text: bytes) -> list[int]:
        """Return the tokens as the model was taught to write this text."""
        tokens: list[int] = self._tokenizer.encode(text.decode("utf-8", "replace"), add_special_tokens=False).ids
        return tokens

    @classmethod
    def of(cls, tokenizer: Any, size: int) -> _Tokens | None:
        """Return all tokens; None if they are not plain bytes, or if the tokenizer adds a space to a text."""
        reading = byte_reading(tokenizer) if getattr(tokenizer, "is_fast", False) else None
        if reading is None:
            return None
        first = tokenizer.convert_ids_to_tokens(tokenizer.encode("a", add_special_tokens=False)[0])
        if not reading(first).startswith(b"a"):
            return None
        # Numbers that stand for no token are named by themselves, as llguidance names them: a padded vocabulary's.
        names = [f"<[{number}]>" for number in range(size)]
        names[: len(tokenizer)] = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        special = set(range(len(tokenizer), size))
        tokens = [reading(name) for name in names]
        for number, added in tokenizer.added_tokens_decoder.items():
            text = str(added)
            # As llguidance decides it. No text matches these tokens: a grammar names them by their numbers.
            if added.special or (text.startswith("<") and text.endswith(">")):
                tokens[number] = text.encode()
                special.add(number)
        return cls(tokenizer, tokens, sorted(special))
