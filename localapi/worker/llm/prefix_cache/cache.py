"""Keep what a model has computed of earlier prompts, so that one with the same beginning computes only the rest.

The cache is a tree of token sequences. Each node is a stretch of tokens, and conversations with the same beginning
share its nodes.

Layers that keep every token store their arrays of just that stretch, so a longer conversation adds only its tail, and a
prompt may use any number of its tokens ("whole"). Other layers store what they have ("near"): sliding windows store the
last tokens, which serve at every point with a full window before it, and recurrent layers store the state after the
stretch, which serves only at that point. Models with such layers need their caches saved at good points: `boundaries`.

The least recently used arrays are evicted first. Near ones are separate from whole ones, because each turn of a
conversation leaves near ones that only a return to that turn needs. Everything is done on the model's thread (MLX's
arrays are bound to it). Stored arrays are never changed.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from localapi.worker.llm.prefix_cache.disk_store import (
    Arrays,
    CacheSlice,
    PrefixStore,
    TokenArray,
    arrays_in,
)
from localapi.worker.llm.prefix_cache.layers import Layers, PrefixMatch, cut
from localapi.worker.llm.prefix_cache.tree import Node, Slot, common_length
from localapi.worker.llm.prompt_boundaries import LEAST_TOKENS


@dataclass(frozen=True)
class Hit:
    """Computed prefix of a prompt."""

    caches: list[Any]
    """mlx-lm's caches, one for each layer, for `BatchGenerator.insert_segments(caches=[...])`. The caller owns them."""
    length: int
    """The number of tokens in them; at least one less than the prompt has, because a model needs some input."""


class PrefixCache:
    """The prefix cache of one model. It counts hits and misses."""

    def __init__(self, empty: Sequence[Any], *, max_bytes: int, store: PrefixStore | None = None) -> None:
        """Create a cache; `empty` are the model's caches before the first token, from `make_prompt_cache(model)`."""
        self.hits = 0
        self.misses = 0
        self.tokens_reused = 0
        self.nbytes = 0
        """Size of the arrays in memory."""
        self._layers = Layers(empty)
        self._max_bytes = max_bytes
        self._store = store
        self._root = Node(None, 0, np.empty(0, np.int32))
        self._recent: OrderedDict[Slot, None] = OrderedDict()
        """The slots in memory, the least recently used first, and those of a node's children before its own."""
        self._unsaved: deque[Slot] = deque()
        self._saving: Generator[None] | None = None
        for record in store.records() if store else ():
            _, at = self._walk(record.tokens)  # what it continues already exists
            if record.kind == "whole" and record.start <= at < len(record.tokens):
                self._path(record.tokens)[-1].whole.record = record
            elif record.kind == "near" and (at == len(record.tokens) or not self._layers.whole):
                self._path(record.tokens)[-1].near.record = record

    @property
    def needs_boundaries(self) -> bool:
        """True if saving at `boundaries` is useful: not if every layer keeps every token."""
        return self._layers.have_near

    def __len__(self) -> int:
        """Return the number of nodes in memory."""
        return len({slot.node for slot in self._recent})

    def __bool__(self) -> bool:
        """Return True even for an empty cache, so that `if cache` tests whether there is one."""
        return True

    def clear(self) -> None:
        """Drop what is in memory. Files on disk can still be used."""
        while self._recent:
            self._evict()

    def fetch(self, tokens: Sequence[int]) -> Hit | None:
        """Return the longest usable prefix of these tokens; None if there is none."""
        wanted = np.array(tokens, np.int32)
        while True:
            path, matched = self._walk(wanted)
            try:
                found = self._find(path, min(matched, len(tokens) - 1))
                break
            except _LostError as lost:
                self._forget(lost.slot)
        if found is None:
            self.misses += 1
            return None
        self.hits += 1
        self.tokens_reused += found.length
        caches = self._layers.built(found)
        self._touch(found.used)
        self._shrink()
        return Hit(caches, found.length)

    def covers(self, tokens: Sequence[int]) -> bool:
        """Return True if `put` of these tokens would add nothing, so that their caches need not be extracted."""
        path, matched = self._walk(np.array(tokens, np.int32))
        if matched < len(tokens):
            return False
        try:
            return not self.needs_boundaries or (path[-1].end == matched and self._found(path, matched) is not None)
        except _LostError as lost:
            self._forget(lost.slot)
            return False
        finally:
            self._shrink()

    def keep(self, tokens: Sequence[int], caches: Sequence[Any]) -> None:
        """Store these caches with `put`, unless that would add nothing."""
        if tokens and not self.covers(tokens):
            self.put(tokens, caches)

    def put(self, tokens: Sequence[int], caches: Sequence[Any]) -> None:
        """Store the content of these caches after exactly these tokens. The caller keeps owning them.

        Nothing is stored if it is too short or too large, or if caches do not count their tokens as usual.
        """
        length = len(tokens)
        taken = self._layers.taken(caches, length)
        if taken is None or length < LEAST_TOKENS or sum(data.nbytes for data in taken.values()) > self._max_bytes:
            return
        wanted = np.array(tokens, np.int32)
        if not self.needs_boundaries and self._walk(wanted)[1] == length:
            return
        path = self._path(wanted)
        new: dict[Slot, CacheSlice] = {}
        for node in path:
            whole = taken["whole"].cut(length, node.start, node.end)
            if node.whole.data is None and whole:
                new[node.whole] = whole
            near = taken["near"].cut(length, node.start, node.end)
            better = near.better_than(self._loaded_or_none(node.near)) if near else None
            if better is not None:
                new[node.near] = better
        mx.eval([arrays_in(data) for data in new.values()])
        for slot, data in new.items():
            self._hold(slot, data)
            if slot.kind == "near":
                slot.record = None  # the file contains less
            self._to_save(slot)
        path.reverse()
        near_ones = [node.near for node in path if node.end == length or node.end > length - self._layers.widest]
        self._touch([*near_ones, *(node.whole for node in path)])
        self._shrink()

    def save_some(self) -> bool:
        """Write a few megabytes that are not on disk yet; return True if there may be more."""
        if self._store is None:
            return False
        self._saving = self._saving or self._save(self._store)
        try:
            next(self._saving)
        except StopIteration:
            self._saving = None
        return self._saving is not None

    # The tree

    def _walk(self, tokens: TokenArray) -> tuple[list[Node], int]:
        """Return the nodes along these tokens, and the number of tokens in common. The last node may match in part."""
        path: list[Node] = []
        at = 0
        node = self._root
        while at < len(tokens):
            child = node.children.get(int(tokens[at]))
            if child is None:
                break
            path.append(child)
            common = common_length(child.tokens, tokens[at:])
            at += common
            if common < len(child.tokens):
                break
            node = child
        return path, at

    def _path(self, tokens: TokenArray) -> list[Node]:
        """Return the nodes of exactly these tokens, after creating the missing ones."""
        path, at = self._walk(tokens)
        if path and path[-1].end > at:
            path[-1] = self._split(path[-1], at)
        if at < len(tokens):
            path.append(Node(path[-1] if path else self._root, at, tokens[at:]))
        return path

    def _split(self, lower: Node, at: int) -> Node:
        """Split a node in two and return the new one, which holds the tokens before `at`."""
        start, length = lower.start, at - lower.start
        upper = Node(lower.parent, start, lower.tokens[:length])
        lower.start, lower.tokens, lower.parent = at, lower.tokens[length:], upper
        upper.children[int(lower.tokens[0])] = lower
        for below, above in ((lower.whole, upper.whole), (lower.near, upper.near)):
            if below.kind == "whole" or self._layers.windows:
                above.record = below.record
            if below.data is None:
                continue
            halves = below.data.cut(lower.end, start, at), below.data.cut(lower.end, at, lower.end)
            mx.eval([arrays_in(half) for half in halves])
            self._hold(below, halves[1])
            if halves[0]:
                self._hold(above, halves[0])
            for slot in (below, above):
                self._to_save(slot, first=True)
        return upper

    def _drop(self, node: Node | None) -> None:
        """Remove a node and all below it from the tree, and the nodes above that are no longer needed."""
        while node is not None and node.parent is not None:
            del node.parent.children[node.first]
            for gone in node.descendants():
                for slot in (gone.whole, gone.near):
                    self._release(slot)
                    slot.record = None
            node = node.parent
            if node.children or node.near.known or not self.needs_boundaries:
                return

    # Lookup

    def _find(self, path: list[Node], longest: int) -> PrefixMatch | None:
        """Return the longest usable match. It can end only where the tokens or a node end."""
        ends = [node.end for node in reversed(path) if node.end < longest]
        for length in (longest, *ends):
            if length < LEAST_TOKENS:
                return None
            found = self._found(path, length)
            if found is not None:
                return found
        return None

    def _found(self, path: list[Node], length: int) -> PrefixMatch | None:
        """Return everything that the model's layers need at this point; None if anything is missing.

        Raise _LostError.
        """
        found = PrefixMatch(length)
        nodes = [node for node in reversed(path) if node.start < length]
        if self._layers.states:
            last = self._loaded(nodes[0].near) if nodes[0].end == length else None
            if last is None or last.states.keys() != self._layers.states:
                return None
            found.states = last.states
            found.used.append(nodes[0].near)
        for layer, width in self._layers.windows.items():
            if not self._gather(found, layer, [node.near for node in nodes], max(0, length - width)):
                return None
        for layer in self._layers.whole:
            if not self._gather(found, layer, [node.whole for node in nodes], 0):
                return None
        return found

    def _gather(self, found: PrefixMatch, layer: int, slots: list[Slot], start: int) -> bool:
        """Collect a layer's arrays from `start` on; return False if some are missing.

        `slots` has the last one first.
        """
        pieces: list[Arrays] = []
        for slot in slots:
            node = slot.node
            if node.end <= start:
                break
            data = self._loaded(slot)
            if data is None or layer not in data.sequences:
                return False
            arrays = data.sequences[layer]
            low, high = max(start, node.start), min(found.length, node.end)
            first = node.end - arrays[0].shape[2]
            if first > low:
                return False
            pieces.append(tuple(cut(array, low - first, high - first) for array in arrays))
            if slot not in found.used:
                found.used.append(slot)
        found.sequences[layer] = pieces[::-1]
        return True

    # Memory

    def _hold(self, slot: Slot, data: CacheSlice) -> None:
        self.nbytes += data.nbytes - (slot.data.nbytes if slot.data else 0)
        slot.data = data
        self._recent.setdefault(slot)

    def _release(self, slot: Slot) -> None:
        if slot.data is not None:
            self.nbytes -= slot.data.nbytes
            slot.data = None
            del self._recent[slot]

    def _touch(self, slots: list[Slot]) -> None:
        """Mark these slots as used, from the leaf to the root, so that what others depend on is evicted last."""
        for slot in slots:
            if slot.data is not None:
                self._recent.move_to_end(slot)
        if self._store:
            self._store.touch([slot.record for slot in slots if slot.record])

    def _shrink(self) -> None:
        while self.nbytes > self._max_bytes:
            self._evict()

    def _evict(self) -> None:
        """Release the least recently used arrays. What is on disk can be read again."""
        slot = next(iter(self._recent))
        self._release(slot)
        if slot.record is None and (slot.kind == "whole" or not slot.node.children):
            self._drop(slot.node)

    # Disk

    def _loaded(self, slot: Slot) -> CacheSlice | None:
        """Return what the slot holds, from disk if necessary. Raises _LostError."""
        if slot.data is None and slot.record is not None and self._store is not None:
            stored = self._store.read(slot.record)
            if stored is None:
                raise _LostError(slot)
            self._hold(slot, stored.cut(len(slot.record.tokens), slot.node.start, slot.node.end))
        return slot.data

    def _loaded_or_none(self, slot: Slot) -> CacheSlice | None:
        try:
            return self._loaded(slot)
        except _LostError:
            slot.record = None
            return None

    def _forget(self, slot: Slot) -> None:
        """Drop a slot's file, which cannot be used."""
        slot.record = None
        if slot.kind == "whole" or not slot.node.children:
            self._drop(slot.node)

    def _to_save(self, slot: Slot, *, first: bool = False) -> None:
        if not self._store or slot.data is None or slot.record is not None:
            return
        if first:
            self._unsaved.appendleft(slot)
        else:
            self._unsaved.append(slot)

    def _save(self, store: PrefixStore) -> Generator[None]:
        while self._unsaved:
            slot = self._unsaved.popleft()
            data = slot.data
            if data is None or slot.record is not None:
                continue
            record = yield from store.write(slot.node.path_tokens(), data, kind=slot.kind, start=slot.node.start)
            if slot.data is data:  # neither split nor evicted in the meantime
                slot.record = record


class _LostError(Exception):
    """The content of a file is lost."""

    def __init__(self, slot: Slot) -> None:
        super().__init__()
        self.slot = slot
