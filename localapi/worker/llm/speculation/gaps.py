"""Caches of rows that keep different numbers of the tokens they were fed.

mlx-lm's `BatchKVCache` holds rows that all grow by the same number of tokens. Moving the kept tokens together would
copy the whole cache in each step. Instead, the others are left in place, as gaps that no token attends to, until rows
come or go, or the gaps become too many.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import mlx.core as mx
import numpy as np
from mlx_lm.models.base import create_causal_mask
from mlx_lm.models.cache import BatchKVCache
from numpy.typing import NDArray

MOST: Final = 0.1
"""Maximum share of a cache that may be gaps."""


class Gaps:
    """Gaps in the caches of a batch; the same in every layer."""

    def __init__(self, rows: int) -> None:
        self._gaps: NDArray[np.bool_] = np.zeros((rows, 0), np.bool_)
        self._array: mx.array | None = None

    def __bool__(self) -> bool:
        return bool(self._gaps.any())

    def upto(self, width: int) -> NDArray[np.bool_]:
        """Return (rows, width) booleans."""
        if self._gaps.shape[1] < width:
            self._gaps = np.pad(self._gaps, ((0, 0), (0, width - self._gaps.shape[1])))
        return self._gaps[:, :width]

    def array(self, width: int) -> mx.array:
        if self._array is None or self._array.shape[1] != width:
            self._array = mx.array(self.upto(width))
        return self._array

    def add(self, row: int, start: int, end: int) -> None:
        self.upto(end)[row, start:end] = True
        self._array = None


class GappedKVCache(BatchKVCache):
    """Cache of one layer, with gaps."""

    def __init__(self, cache: BatchKVCache, gaps: Gaps) -> None:
        self.__dict__.update(cache.__dict__)
        self.gaps = gaps

    def make_mask(self, N: int, return_array: bool = False, **kwargs: Any) -> mx.array:  # noqa: N803  # mlx-lm's name
        """Return the mask of N new tokens (rows, 1, N, length)."""
        if not self.gaps:
            return super().make_mask(N, return_array, **kwargs)  # type: ignore[no-any-return]
        window = kwargs.pop("window_size", None)
        length = self._idx + N
        gaps = self.gaps.array(length)[:, None, None, :]
        mask: mx.array = create_causal_mask(N, offset=self._idx, left_padding=self.left_padding, **kwargs) & ~gaps
        if window is not None:  # which counts the row's tokens, not places
            places = mx.cumsum((~gaps).astype(mx.int32), axis=-1)
            own = places[..., self._idx :].swapaxes(-1, -2)
            mask = mask & (own < places + window)
        return mask


def gapped(caches: Sequence[Any], rows: int) -> list[Any]:
    """Return the caches of a batch as caches that may have gaps."""
    gaps = Gaps(rows)
    return [GappedKVCache(cache, gaps) for cache in caches]


def closed(caches: Sequence[Any]) -> list[Any]:
    """Return the caches of a batch as caches without gaps; others unchanged."""
    if not any(type(cache) is GappedKVCache for cache in caches):
        return list(caches)
    close_gaps(caches)
    plain = []
    for cache in caches:
        plain.append(BatchKVCache([]))
        plain[-1].state = cache.state
    return plain


def leave_gaps(caches: Sequence[Any], width: int, kept: Sequence[int]) -> None:
    """Keep the first tokens of the last `width` of each row; the numbers may differ."""
    first = caches[0]
    surplus = width - max(kept)
    dropped = mx.array([width - surplus - count for count in kept])
    start = first._idx - width
    for cache in caches:
        if surplus:
            cache.trim(surplus)
        cache.offset = cache.offset - dropped
    for row, count in enumerate(kept):
        if count < width - surplus:
            first.gaps.add(row, start + count, start + width - surplus)


def too_many(caches: Sequence[Any]) -> bool:
    """Return True if the gaps should be closed."""
    first = caches[0]
    return bool(first.gaps.upto(first._idx).sum(axis=1).max(initial=0) > max(64, MOST * first._idx))


def close_gaps(caches: Sequence[Any]) -> None:
    """Move the tokens of each row together, to the end of its row."""
    first = caches[0]
    if not first.gaps:
        return
    length = first._idx
    padding = np.array(first.left_padding)
    valid = ~first.gaps.upto(length) & (np.arange(length) >= padding[:, None])
    counts = valid.sum(axis=1)
    longest = int(counts.max())
    # A stable sort keeps the order of a row's tokens; what is no token comes before them.
    order = mx.array(np.argsort(valid, axis=1, kind="stable")[:, length - longest :])[:, None, :, None]
    left_padding = mx.array(longest - counts, mx.int32)
    gaps = Gaps(len(counts))
    for cache in caches:
        cache.keys = mx.take_along_axis(cache.keys[..., :length, :], order, axis=2)
        cache.values = mx.take_along_axis(cache.values[..., :length, :], order, axis=2)
        cache.left_padding, cache._idx, cache.gaps = left_padding, longest, gaps
