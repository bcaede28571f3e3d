"""Split mlx-lm's cache of each layer into slices that can be stored, and build caches from slices."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm.models.cache import CacheList, KVCache, QuantizedKVCache, RotatingKVCache

from localapi.worker.llm.prefix_cache.disk_store import Arrays, CacheSlice, SliceKind, arrays_in
from localapi.worker.llm.prefix_cache.tree import Slot


@dataclass(slots=True)
class PrefixMatch:
    """Arrays and states from which a hit is built."""

    length: int
    sequences: dict[int, list[Arrays]] = field(default_factory=dict)
    states: Mapping[int, Any] = field(default_factory=dict)
    used: list[Slot] = field(default_factory=list)
    """Slots from the deepest node to the root."""


class Layers:
    """The kinds of caches that a model's layers have."""

    def __init__(self, empty: Sequence[Any]) -> None:
        self._empty = list(empty)
        kinds = list(enumerate(flat(empty)))
        self._types = [type(cache) for _, cache in kinds]
        self.whole = {i for i, cache in kinds if type(cache) in {KVCache, QuantizedKVCache}}
        self.windows: dict[int, int] = {i: cache.max_size for i, cache in kinds if type(cache) is RotatingKVCache}
        self.states = {i for i, _ in kinds} - self.whole - self.windows.keys()
        self.have_near = bool(self.windows or self.states)
        self.widest = max(self.windows.values(), default=0)

    def taken(self, caches: Sequence[Any], length: int) -> dict[SliceKind, CacheSlice] | None:
        """Return the content of the caches after `length` tokens, not evaluated; None if one cannot be stored."""
        whole, windows, states = {}, {}, {}
        leaves = flat(caches)
        if len(leaves) != len(self._types):
            return None
        for i, cache in enumerate(leaves):
            if i in self.states:
                states[i] = cache.state
            elif type(cache) is not self._types[i] or cache.offset != length or getattr(cache, "keep", 0):
                return None
            elif i in self.windows:
                size = min(length, self.windows[i])
                both = (cache._temporal_order(array) for array in (cache.keys, cache.values))
                windows[i] = tuple(array[..., -size:, :] for array in both)
            else:
                whole[i] = tuple(array[..., :length, :] for array in arrays_in([cache.keys, cache.values]))
        return {"whole": CacheSlice(whole), "near": CacheSlice(windows, states)}

    def built(self, found: PrefixMatch) -> list[Any]:
        """Return new caches with the content of a match."""
        number = iter(range(len(found.sequences) + len(found.states)))

        def filled(empty: Any) -> Any:
            if isinstance(empty, CacheList):
                return CacheList(*(filled(cache) for cache in empty.caches))  # type: ignore[no-untyped-call]
            layer, cache = next(number), copy.copy(empty)
            if layer in found.states:
                cache.state = tree_map(copy.copy, found.states[layer])
                return cache
            arrays = tuple(joined(pieces) for pieces in zip(*found.sequences[layer], strict=True))
            half = len(arrays) // 2
            cache.keys, cache.values = arrays if half == 1 else (list(arrays[:half]), list(arrays[half:]))
            cache.offset = found.length
            if layer in self.windows:
                cache.keep, cache._idx = 0, cache.keys.shape[2]
            return cache

        return [filled(cache) for cache in self._empty]


def flat(caches: Sequence[Any]) -> list[Any]:
    """Return the caches, with composite caches replaced by their parts."""
    found: list[Any] = []
    for cache in caches:
        if isinstance(cache, CacheList):
            found += flat(cache.caches)
        else:
            found.append(cache)
    return found


def cut(array: mx.array, low: int, high: int) -> mx.array:
    """Return a range of tokens, as a new array even if it is all of them."""
    return copy.copy(array) if low == 0 and high == array.shape[2] else array[..., low:high, :]


def joined(pieces: Sequence[mx.array]) -> mx.array:
    """Return the pieces as one array."""
    return pieces[0] if len(pieces) == 1 else mx.concatenate(list(pieces), axis=2)
