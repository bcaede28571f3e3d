"""Tree of token sequences in which a prefix cache stores its arrays. It knows tokens and slots, but no model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from localapi.worker.llm.prefix_cache.disk_store import CacheSlice, SliceKind, StoredSlice, TokenArray


@dataclass(eq=False, slots=True)
class Slot:
    """One of the two slices of a node: in memory, on disk, both or neither."""

    node: Node
    kind: SliceKind
    data: CacheSlice | None = None
    record: StoredSlice | None = None

    @property
    def known(self) -> bool:
        return self.data is not None or self.record is not None


class Node:
    """Stretch of tokens that follows its parent's stretch."""

    def __init__(self, parent: Node | None, start: int, tokens: TokenArray) -> None:
        self.parent = parent
        self.start = start
        self.tokens = tokens
        self.children: dict[int, Node] = {}
        self.whole = Slot(self, "whole")
        self.near = Slot(self, "near")
        if parent is not None:
            parent.children[self.first] = self

    @property
    def first(self) -> int:
        return int(self.tokens[0])

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)

    def path_tokens(self) -> TokenArray:
        """Return all tokens up to the end of this stretch."""
        stretches, node = [self.tokens], self
        while node.parent is not None:
            node = node.parent
            stretches.append(node.tokens)
        return np.concatenate(stretches[::-1])

    def descendants(self) -> list[Node]:
        """Return this node and all below it."""
        nodes = [self]
        for node in nodes:
            nodes.extend(node.children.values())
        return nodes


def common_length(a: TokenArray, b: TokenArray) -> int:
    """Return the length of the common prefix."""
    length = min(len(a), len(b))
    different = a[:length] != b[:length]
    return int(different.argmax()) if different.any() else length
