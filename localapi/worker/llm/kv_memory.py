"""Estimate the memory that responses take while they grow, and decide which may start within the limit.

The memory of a row follows from the shapes of the model's caches: most layers keep something for every token, sliding
windows for the last ones, and recurrent layers a state of fixed size. All rows of a batch are as long as the longest.
"""

from __future__ import annotations

import bisect
import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from localapi.worker.llm.prefix_cache.disk_store import arrays_in
from localapi.worker.llm.prefix_cache.layers import flat

STEP_TOKENS = 256
"""The step by which mlx-lm's caches grow."""
UNSAID_TOKENS = 2048
"""Assumed length of a response if its maximum or the memory is not set: clients request tens of thousands of tokens
without meaning a limit. Most responses are shorter; a longer one counts as it grows."""
SHARE = 0.5
"""Share of the memory that the model and its prefix cache leave. The rest is for intermediate results and other models.
"""
LEAST_SHARE = 0.125
"""Minimum share of all memory, for a model that leaves less."""
_FAR = 1 << 40


@dataclass(frozen=True)
class Footprint:
    """Memory of one row."""

    fixed: int
    """Bytes that do not depend on its length."""
    layers: tuple[tuple[float, int], ...]
    """Bytes per token and maximum number of tokens, for each layer."""

    def bytes(self, tokens: int) -> int:
        """Return the size of a row with this many tokens."""
        held = -(-tokens // STEP_TOKENS) * STEP_TOKENS
        return self.fixed + int(sum(size * min(held, most) for size, most in self.layers))

    def times(self, factor: float) -> Footprint:
        """Return the footprint of a model of which this one is a part."""
        return Footprint(int(self.fixed * factor), tuple((size * factor, most) for size, most in self.layers))

    def tokens(self, max_bytes: int) -> int:
        """Return the length of the longest row within this size."""
        return bisect.bisect_right(range(_FAR), max_bytes, key=self.bytes) - 1


def measure_footprint(empty: Sequence[Any], run: Callable[[mx.array, list[Any]], None]) -> Footprint:
    """Return the footprint of rows with such caches. `run` computes two tokens with the model."""
    caches = copy.deepcopy(list(empty))
    run(mx.array([[0, 0]]), caches)
    fixed, layers = 0, list[tuple[float, int]]()
    for cache in flat(caches):
        arrays = list(arrays_in([getattr(cache, "keys", None), getattr(cache, "values", None)]))
        if arrays:
            most = getattr(cache, "max_size", None) or getattr(cache, "chunk_size", None) or _FAR
            layers.append((sum(array.nbytes / array.shape[2] for array in arrays), most))
        else:
            fixed += sum(array.nbytes for array in arrays_in(cache.state))
    mx.clear_cache()
    return Footprint(fixed, tuple(layers))


def spare_bytes(reserved: int, processes: int = 1) -> int:
    """Return the memory for responses if no limit is set.

    `reserved` are bytes for other uses, `processes` the number of processes like this one.
    """
    device = mx.device_info()
    limit = device.get("max_recommended_working_set_size") or device.get("total_memory")  # of Metal, of CUDA
    total = int(limit or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return int(max(SHARE * (total - processes * mx.get_active_memory() - reserved), LEAST_SHARE * total))


@dataclass(frozen=True)
class KVMemory:
    """Memory limit for the responses of one model."""

    footprint: Footprint
    max_bytes: int
    together: bool
    """True if rows grow at the same time, False if one after the other."""
    said: bool = True
    """True if `max_bytes` is configured, not an estimate, so that no response that may exceed it is started."""

    @property
    def most_bytes(self) -> int:
        """Maximum bytes for one request while nothing else runs."""
        return self.max_bytes if self.said else int(self.max_bytes / SHARE)

    def longest(self, rows: int) -> int:
        """Return the maximum length of each of this many rows, if no others run."""
        return self.footprint.tokens(self.most_bytes // (rows if self.together else 1))

    def fits(self, tokens: int, rows: int, running: Sequence[int]) -> bool:
        """Return True if this many rows of this many tokens may join others. `running` are the tokens of those."""
        if not running:
            return True
        return (len(running) + rows) * self.footprint.bytes(max(tokens, *running)) <= self.max_bytes

    def refusal(self, prompt: int, reach: int, rows: int) -> str:
        """Return the error for a request that needs more than the limit."""
        needed = self.footprint.bytes(reach) * (rows if self.together else 1)
        what = f"{rows} responses" if rows > 1 else "A response"
        return (
            f"{what} of up to {reach - prompt} tokens after a prompt of {prompt} may take {_megabytes(needed)}; this "
            f"model's kv_cache_mb is {_megabytes(self.most_bytes)}. Shorten the prompt or lower max_tokens."
        )


def _megabytes(size: int) -> str:
    return f"{size / 1024 / 1024:.1f} MB"
