"""The interface between the batches of texts and the network that computes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from localapi.worker.model import CannotLoad

Vectors = npt.NDArray[np.float32]
"""One row for each text."""


@dataclass(frozen=True)
class Tokens:
    """A text as the network reads it."""

    ids: list[int]
    types: list[int]
    """0 for the first text of a pair, 1 for the second; all 0 for a text alone."""
    truncated: bool = False


class TooLong(ValueError):
    """A text has more tokens than the model reads, and may not be truncated."""

    def __init__(self, count: int, limit: int) -> None:
        super().__init__(f"it has {count} tokens, and the model reads {limit} at most")


def check_tokens(tokens: Sequence[int], vocabulary: int) -> None:
    """Raise ValueError if one of the tokens is not in a vocabulary of this size."""
    wrong = [token for token in tokens if not 0 <= token < vocabulary]
    if wrong:
        raise ValueError(f"the model has no token {wrong[0]}; its tokens are 0 to {vocabulary - 1}")


def limit(wanted: int | None, own: int, *, usual: int) -> int:
    """Return the most tokens of a text: what the entry wants, or `usual`. Raise CannotLoad above the model's own."""
    if wanted is not None and wanted > own:
        raise CannotLoad(f"max_tokens is {wanted}, but the model reads {own} tokens at most.")
    return wanted or usual


class Encoder(Protocol):
    """A loaded network with its tokenizer."""

    @property
    def width(self) -> int:
        """Number of columns of the vectors; 1 for a model that scores."""

    def read(self, text: str | list[int], pair: str | None, *, truncate: bool) -> Tokens:
        """Return the tokens of a text, or of a pair. Raise TooLong, and ValueError for tokens that do not exist."""

    def encode(self, batch: Sequence[Tokens]) -> Vectors:
        """Return what the network makes of each text: a vector of length 1, or a score from 0 to 1."""
