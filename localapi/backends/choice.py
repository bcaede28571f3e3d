"""Choose one of several places for a request: a pure function over snapshots, and a memory of conversations."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from localapi.worker.protocol import Chat, Complete, Request

Choose = Literal["in-order", "least-busy", "sticky"]

USUAL_SLOTS: Final = 32
"""Concurrency assumed for a place that never queues, to compare it with one that does."""
BLOCK_CHARACTERS: Final = 1024
"""Characters per block of a prompt that is no conversation; it is remembered block by block."""
MOST_KEYS: Final = 64
"""Maximum keys of one conversation; the keys of the last turns are kept."""
MOST_REMEMBERED: Final = 20_000


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A place that may answer, at this moment."""

    name: str
    requests: int = 0
    """Requests at this place, including waiting ones."""
    slots: int | None = None
    """Requests that it answers concurrently; None if it never queues."""
    is_loaded: bool = True
    is_full: bool = False
    """True if it would refuse another request."""
    away: str | None = None
    """Reason why it should get no requests, for people; None if it may get some."""
    away_seconds: float = 0.0
    """Seconds during which it should get none."""

    @property
    def load(self) -> float:
        """Load as a share of its slots; from 1 on, requests wait."""
        return self.requests / (self.slots or USUAL_SLOTS)


def ranked(
    candidates: Iterable[Candidate], choose: Choose, *, remembered: str | None = None, spill_over_at: int | None = None
) -> list[Candidate]:
    """Return the candidates in the order in which a request should try them.

    Those with room come first, sorted by `choose`; then those at the limit, the least busy first; then those that are
    away, the soonest to return first. `remembered` is where the conversation was answered before.
    """
    free: list[tuple[int, Candidate]] = []
    crowded: list[tuple[int, Candidate]] = []
    away: list[Candidate] = []
    for index, each in enumerate(candidates):
        if each.away is not None:
            away.append(each)
        elif each.is_full or (spill_over_at is not None and each.requests >= spill_over_at):
            crowded.append((index, each))
        else:
            free.append((index, each))

    def by_load(numbered: tuple[int, Candidate]) -> tuple[bool, float, bool, int]:
        index, each = numbered
        return each.is_full, each.load, not each.is_loaded, index

    if choose != "in-order":
        free.sort(key=by_load)
    if choose == "sticky":
        free.sort(key=lambda numbered: numbered[1].name != remembered)
    crowded.sort(key=by_load)
    away.sort(key=lambda each: each.away_seconds)
    return [each for _, each in free] + [each for _, each in crowded] + away


def conversation_keys(asks: Sequence[Request]) -> list[bytes]:
    """Return a key for each prefix of a conversation or prompt, the shortest first; none for anything else.

    A system message alone has no key: many conversations share it.
    """
    ask = asks[0] if asks else None
    digest = hashlib.blake2b(digest_size=16)
    keys: list[bytes] = []
    if isinstance(ask, Chat):
        digest.update(msgspec.msgpack.encode(ask.tools))
        for message in ask.messages:
            digest.update(msgspec.msgpack.encode(message))
            if keys or message.role not in ("system", "developer"):
                keys.append(digest.digest())
    elif isinstance(ask, Complete):
        for start in range(0, len(ask.prompt), BLOCK_CHARACTERS):
            digest.update(msgspec.msgpack.encode(ask.prompt[start : start + BLOCK_CHARACTERS]))
            keys.append(digest.digest())
    return keys[-MOST_KEYS:]


class ConversationMemory:
    """Places of conversations by key; the least recently used are forgotten first."""

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._places: OrderedDict[bytes, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._places)

    def place_of(self, keys: Sequence[bytes]) -> str | None:
        """Return where the longest known prefix was answered."""
        for key in reversed(keys):
            place = self._places.get(key)
            if place is not None:
                return place
        return None

    def note(self, keys: Sequence[bytes], place: str) -> None:
        """Remember that a conversation is answered at a place."""
        for key in keys:
            self._places[key] = place
            self._places.move_to_end(key)
        while len(self._places) > self._most:
            self._places.popitem(last=False)
