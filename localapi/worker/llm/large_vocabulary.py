"""Choose from a large vocabulary on the processor: sort no more tokens than the result depends on.

MLX sorts all of them for `top_p`, in 35 ms for 151,936 tokens, and takes another 3 for the random numbers, while the
rest of a step of a small model takes 10. Here a coarse pass finds the few tokens around the limit, and only those are
sorted. The results are exact: those of sorting everything. All arrays are numpy's; logits need not be normalized.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

BLOCK: Final = 64
"""Tokens of which only the likeliest counts in the coarse pass of `kth_largest`."""
BINS: Final = 1024
BINS_PER_UNIT: Final = 32
"""Bins of `nucleus_limit` for a factor of e in the probability. The last bin contains everything less likely."""


class SamplingLimits(NamedTuple):
    """The parameters that limit which tokens may be sampled."""

    temperature: float
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0


def draw(logits: Floats, limits: SamplingLimits, uniform: float) -> int:
    """Return a random token, given `logits` (vocabulary,) and `uniform`, a random number from 0 to below 1.

    The token is the first one, in the vocabulary's order, at which the probabilities of the tokens so far, among those
    within the limits, exceed `uniform`. The temperature applies after the limits.
    """
    top = logits.max()
    if not np.isfinite(top):  # the model computed no numbers, and no token is better than another
        return int(logits.argmax())
    least = _least(logits, limits)
    tokens = np.flatnonzero(logits >= least) if least > -np.inf else None
    within = logits if tokens is None else logits[tokens]
    # Single precision is exact enough for each weight, not for their sum, and its exponential is much faster.
    weights = np.exp((within - top) * logits.dtype.type(1 / limits.temperature))
    sums = np.cumsum(weights, dtype=np.float64)
    drawn = int(np.searchsorted(sums, uniform * sums[-1], side="right"))
    return drawn if tokens is None else int(tokens[drawn])


def _least(logits: Floats, limits: SamplingLimits) -> float:
    """Return the smallest logit that is within all limits. Each of them is a threshold, so the highest one decides."""
    least = -np.inf
    if limits.top_p < 1.0:
        least = nucleus_limit(logits, limits.top_p)
    if limits.min_p > 0:
        least = max(least, float(logits.max() + np.log(logits.dtype.type(limits.min_p))))
    if 0 < limits.top_k < logits.size:
        least = max(least, kth_largest(logits, limits.top_k))
    return least


def nucleus_limit(logits: Floats, top_p: float) -> float:
    """Return the smallest logit among the most likely tokens whose probabilities add up to `top_p`.

    Adds up the probabilities in bins of similar tokens. Only the tokens of the bin that contains the limit are sorted.
    """
    top = logits.max()
    depths = top - logits
    bins = np.minimum(depths * BINS_PER_UNIT, BINS - 1).astype(np.intp)
    masses = np.cumsum(np.bincount(bins, weights=np.exp(-depths), minlength=BINS))
    wanted = top_p * masses[-1]
    at = int(np.searchsorted(masses, wanted))
    band = np.sort(logits[bins == at])[::-1]
    before = masses[at - 1] if at else 0.0
    sums = before + np.cumsum(np.exp(band - top), dtype=np.float64)
    # Rounding may leave the last sum below `wanted`.
    return float(band[min(int(np.searchsorted(sums, wanted)), band.size - 1)])


def kth_largest(values: Floats, k: int) -> float:
    """Return the k-th largest value, for k from 1 to the number of values.

    The k-th largest of the blocks' maxima is at most that, so only values from there on are partitioned.
    """
    blocks = values.size // BLOCK
    if k <= blocks:
        maxima = values[: blocks * BLOCK].reshape(blocks, BLOCK).max(axis=1)
        values = values[values >= np.partition(maxima, blocks - k)[blocks - k]]
    return float(np.partition(values, values.size - k)[values.size - k])


def largest(values: Floats, k: int) -> list[int]:
    """Return the indices of the k largest values, the largest first, and of equal ones the first."""
    k = min(k, values.size)
    if k == 0:
        return []
    indices = np.flatnonzero(values >= kth_largest(values, k))
    # A stable sort keeps equal values in their order.
    order = np.argsort(-values[indices], kind="stable")
    return [int(index) for index in indices[order[:k]]]
