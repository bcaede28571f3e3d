"""A model's tokens as llguidance knows them: indexed, so that masks of possible continuations take no time.

llguidance holds the interpreter lock while it builds the index, so no response gets a token meanwhile. If it reads the
Hugging Face tokenizer itself, that takes 2 s of processor time for 151,936 tokens and 5 s for 262,144. Given the bytes
of each token, it takes less than half the time and a third of the memory. Responses cannot wait for that either, so the
index is built while the weights are read.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from llguidance import LLTokenizer, TokenizerWrapper
from llguidance.hf import from_tokenizer

from localapi.worker.llm.constrained.schema_grammar import GrammarRefused
from localapi.worker.llm.detokenizer import byte_reading

_SLICES = LLTokenizer.general_slices()[1:3]
"""Text without quotes of up to 10 and of up to 30 characters: tokens that llguidance allows or forbids at once.

llguidance has four such sets, and each one takes 60 bytes for a token of the vocabulary. The other two, whitespace and
text of any length, made no mask faster: few tokens are longer than 30 characters.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """The model's tokens as llguidance knows them."""

    tokens: LLTokenizer
    width: int
    """Width of the logits."""
    ends: mx.array
    """Mask of the tokens that end a response, `width` booleans."""


class VocabularyIndex:
    """Builder of a tokenizer's vocabulary on a separate thread, starting at once."""

    def __init__(self, tokenizer: Any, width: int) -> None:
        """Start with mlx-lm's TokenizerWrapper and the width of the model's logits."""
        self._tokenizer = tokenizer
        self._width = width
        self._tokens: Future[LLTokenizer] = Future()
        threading.Thread(target=self._build, name="vocabulary", daemon=True).start()

    def wait(self) -> None:
        """Wait until the index is built or has failed."""
        self._tokens.exception()

    def get(self) -> Vocabulary:
        """Return the vocabulary once it is built. Raise GrammarRefused if this tokenizer cannot have one."""
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
    """Return the index. Raise GrammarRefused, or llguidance's error."""
    ends = _ends(tokenizer, width)
    size = max(width, len(tokenizer))
    own = getattr(tokenizer, "_tokenizer", tokenizer)
    tokens = _Tokens.of(own, size)
    # a vocabulary of another kind: llguidance knows some more, and reports what is wrong with others
    if tokens is None:
        return from_tokenizer(own, n_vocab=size, eos_token=ends)
    wrapper = TokenizerWrapper(tokens)
    index = LLTokenizer(wrapper, n_vocab=size, eos_token=ends, slices=_SLICES)
    tokens.tokens = wrapper.tokens = ()  # the index keeps the wrapper for its tokenizer, and has copied its tokens
    return index


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

    def __init__(self, tokenizer: Any, tokens: Sequence[bytes], special: list[int]) -> None:
        self._tokenizer = tokenizer.backend_tokenizer
        self.tokens = tokens
        self.special_token_ids = special

    def __call__(self, text: bytes) -> list[int]:
        """Return the tokens in which the model was trained to write this text."""
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
        # Numbers without a token, as in a padded vocabulary, are named as llguidance names them.
        names = [f"<[{number}]>" for number in range(size)]
        names[: len(tokenizer)] = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        special = set(range(len(tokenizer), size))
        tokens = [reading(name) for name in names]
        for number, added in tokenizer.added_tokens_decoder.items():
            text = str(added)
            # As llguidance decides it. No text matches these tokens: a grammar names them by number.
            if added.special or (text.startswith("<") and text.endswith(">")):
                tokens[number] = text.encode()
                special.add(number)
        return cls(tokenizer, tokens, sorted(special))
