"""Two readings of one text compared: the words read one by one, and the text as it was said.

They differ a little: "of the" has another vowel when it is said as one word, and a lone "a" is read as a letter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

COMPARED = 64
"""Phonemes at a time: comparing takes the product of the lengths."""
BEHIND = 32
"""How many phonemes more the text may have there than its words."""
OTHER = 0.9
"""What another phoneme costs; one too many or too few costs 1."""


def paired(read: Sequence[str], said: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Which phonemes of both are the same or stand in for each other, in order."""
    passed = 0
    for start in range(0, len(read), COMPARED):
        some = read[start : start + COMPARED]
        window = said[passed : passed + len(some) + BEHIND]
        pairs = _pairs(some, window)
        yield from ((start + at, passed + among) for at, among in pairs)
        passed += pairs[-1][1] + 1 if pairs else 0


def _pairs(read: Sequence[str], said: Sequence[str]) -> list[tuple[int, int]]:
    """The cheapest way through both (https://en.wikipedia.org/wiki/Wagner-Fischer_algorithm); `said` may go on."""
    costs = [[float(among) for among in range(len(said) + 1)]]
    for phoneme in read:
        above = costs[-1]
        row = [above[0] + 1]
        for among, other in enumerate(said):
            same = above[among] + (0 if phoneme == other else OTHER)
            row.append(min(same, above[among + 1] + 1, row[among] + 1))
        costs.append(row)
    last = costs[-1]
    at, among = len(read), min(range(len(said), -1, -1), key=last.__getitem__)
    pairs = []
    while at and among:
        here = costs[at][among]
        if here == costs[at - 1][among] + 1:
            at -= 1
        elif here == costs[at][among - 1] + 1:
            among -= 1
        else:
            at, among = at - 1, among - 1
            pairs.append((at, among))
    return pairs[::-1]
