"""What a model has computed of earlier prompts, so that a new one with the same beginning computes only the rest.

A tree of token sequences: each node is a stretch of tokens, and conversations with the same beginning share its nodes.
Of a stretch, layers that keep every token store their arrays for just that stretch, so that a longer conversation adds
only its tail, and a prompt may use any number of its tokens ("whole"). Other layers store what they have ("near"):
sliding windows the last tokens, which serve at every point with a full window before it, and recurrent layers the state
after the stretch, which serves at that very point alone. Models with such layers need their caches saved at good
points: `boundaries`.

The least recently used arrays go first, near ones apart from whole ones, because each turn of a conversation leaves
near ones that only a return to that very turn needs. Everything is done on the model's thread (MLX's arrays are bound
to it). Nothing that is stored is ever changed.
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
    StoredSlice,
    TokenArray,
    arrays_in,
)
from localapi.worker.llm.prefix_cache.layers import Layers, PrefixMatch, cut
from localapi.worker.llm.prefix_cache.tree import Node, Slot, common_length
from localapi.worker.llm.prompt_boundaries import LEAST_TOKENS


@dataclass(frozen=True)
class Hit:
    """The beginning of a prompt, computed."""

    caches: list[Any]
    """mlx-lm's, one for each layer, as `BatchGenerator.insert_segments(caches=[...])` takes them. The caller's own."""
    length: int
    """TokenArray that they stand for; at least one less than the prompt has, because a model must be fed something."""


class PrefixCache:
    """Of one model. Counts what came of `fetch`."""

    def __init__(self, empty: Sequence[Any], *, max_bytes: int, store: PrefixStore | None = None) -> None:
        """`empty`: the model's caches before the first token, from `make_prompt_cache(model)`."""
        self.hits = 0
        self.misses = 0
        self.tokens_reused = 0
        self.nbytes = 0
        """Of the arrays in memory."""
        self._layers = Layers(empty)
        self._max_bytes = max_bytes
        self._store = store
        self._root = Node(None, 0, np.empty(0, np.int32))
        self._recent: OrderedDict[Slot, None] = OrderedDict()
        """What is in memory, the least recently used first, and what a node's children hold before what it holds."""
        self._unsaved: deque[Slot] = deque()
        self._saving: Generator[None] | None = None
        for record in store.records() if store else ():
            self._know(record)

    @property
    def needs_boundaries(self) -> bool:
        """Whether saving at `boundaries` is of use: not where every layer keeps every token."""
        return self._layers.have_near

    def __len__(self) -> int:
        """Stretches of tokens in memory."""
        return len({slot.node for slot in self._recent})

    def __bool__(self) -> bool:
        """An empty one is one, too: `if cache` asks whether there is any."""
        return True

    def clear(self) -> None:
        """Forget what is in memory. What is on disk stays of use."""
        while self._recent:
            self._evict()

    def fetch(self, tokens: Sequence[int]) -> Hit | None:
        """The longest beginning of these tokens that is of use."""
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
        """Whether `put` of these tokens would add nothing, so that their caches need not be extracted."""
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
        """`put` what is of use and not there yet."""
        if tokens and not self.covers(tokens):
            self.put(tokens, caches)

    def put(self, tokens: Sequence[int], caches: Sequence[Any]) -> None:
        """Keep what these caches hold after exactly these tokens; they stay the caller's.

        Nothing is kept of what is too short or too large, or of caches that do not count their tokens as others do.
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
            whole, near = (taken[kind].cut(length, node.start, node.end) for kind in ("whole", "near"))
            if node.whole.data is None and whole:
                new[node.whole] = whole
            if near and (better := near.better_than(self._loaded_or_none(node.near))):
                new[node.near] = better
        mx.eval([list(arrays_in(data)) for data in new.values()])
        for slot, data in new.items():
            self._hold(slot, data)
            if slot.kind == "near":
                slot.record = None  # what is on disk has less
            self._to_save(slot)
        path.reverse()
        near_ones = [node.near for node in path if node.end == length or node.end > length - self._layers.widest]
        self._touch([*near_ones, *(node.whole for node in path)])
        self._shrink()

    def save_some(self) -> bool:
        """Write a few megabytes of what is not on disk yet. Whether there may be more to write."""
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
        """The nodes along these tokens, and how many tokens they have in common; the last node may go elsewhere."""
        path, at, node = list[Node](), 0, self._root
        while at < len(tokens) and (child := node.children.get(int(tokens[at]))) is not None:
            path.append(child)
            common = common_length(child.tokens, tokens[at:])
            at += common
            if common < len(child.tokens):
                break
            node = child
        return path, at

    def _path(self, tokens: TokenArray) -> list[Node]:
        """The nodes of exactly these tokens; makes those that are missing."""
        path, at = self._walk(tokens)
        if path and path[-1].end > at:
            path[-1] = self._split(path[-1], at)
        if at < len(tokens):
            path.append(Node(path[-1] if path else self._root, at, tokens[at:]))
        return path

    def _split(self, lower: Node, at: int) -> Node:
        """Make two of a node; the new one holds the tokens before `at`."""
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
            mx.eval([list(arrays_in(half)) for half in halves])
            self._hold(below, halves[1])
            if halves[0]:
                self._hold(above, halves[0])
            for slot in (below, above):
                self._to_save(slot, first=True)
        return upper

    def _drop(self, node: Node | None) -> None:
        """Take a node with all below it out of the tree, and those above it that were there for it alone."""
        while node is not None and node.parent is not None:
            del node.parent.children[node.first]
            for gone in node.descendants():
                for slot in (gone.whole, gone.near):
                    self._release(slot)
                    slot.record = None
            node = node.parent
            if node.children or node.near.known or not self.needs_boundaries:
                return

    # What is found

    def _find(self, path: list[Node], longest: int) -> PrefixMatch | None:
        """The longest of use. Only a longest stretch or one that ends where a node ends can be."""
        for length in (longest, *(node.end for node in reversed(path) if node.end < longest)):
            if length < LEAST_TOKENS:
                return None
            if found := self._found(path, length):
                return found
        return None

    def _found(self, path: list[Node], length: int) -> PrefixMatch | None:
        """All that the model's layers need at this point, or None if something is missing. Raises _LostError."""
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
        """Collect a layer's arrays from `start` on; `slots` from the last. False where some are missing."""
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
            if (first := node.end - arrays[0].shape[2]) > low:
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
        """These were of use: from the ends of the tree to its root, so that it never loses what others stand on."""
        for slot in slots:
            if slot.data is not None:
                self._recent.move_to_end(slot)
        if self._store:
            self._store.touch([slot.record for slot in slots if slot.record])

    def _shrink(self) -> None:
        while self.nbytes > self._max_bytes:
            self._evict()

    def _evict(self) -> None:
        """Give up the least recently used arrays. What is on disk can come back."""
        slot = next(iter(self._recent))
        self._release(slot)
        if slot.record is None and (slot.kind == "whole" or not slot.node.children):
            self._drop(slot.node)

    # Disk

    def _loaded(self, slot: Slot) -> CacheSlice | None:
        """What the slot holds, from disk if need be. Raises _LostError."""
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
        """Its file is of no use."""
        slot.record = None
        if slot.kind == "whole" or not slot.node.children:
            self._drop(slot.node)

    def _know(self, record: StoredSlice) -> None:
        """Give a file its place in the tree. What it continues must be there already."""
        _, at = self._walk(record.tokens)
        if record.kind == "whole" and record.start <= at < len(record.tokens):
            self._path(record.tokens)[-1].whole.record = record
        elif record.kind == "near" and (at == len(record.tokens) or not self._layers.whole):
            self._path(record.tokens)[-1].near.record = record

    def _to_save(self, slot: Slot, *, first: bool = False) -> None:
        if self._store and slot.data is not None and slot.record is None:
            (self._unsaved.appendleft if first else self._unsaved.append)(slot)

    def _save(self, store: PrefixStore) -> Generator[None]:
        while self._unsaved:
            slot = self._unsaved.popleft()
            if (data := slot.data) is None or slot.record is not None:
                continue
            record = yield from store.write(slot.node.path_tokens(), data, kind=slot.kind, start=slot.node.start)
            if slot.data is data:  # and neither split nor given up in the meantime
                slot.record = record


class _LostError(Exception):
    """What a file should hold is gone."""

    def __init__(self, slot: Slot) -> None:
        super().__init__()
        self.slot = slot
