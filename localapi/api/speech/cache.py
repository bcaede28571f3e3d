"""Generated speech, cached for repeated requests if the entry's `speech_cache_mb` allows it."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

import msgspec

from localapi.api.speech.recording import SaidSegment


@dataclass(frozen=True)
class FinishedSpeech:
    """File, with the times of its segments."""

    data: bytes
    segments: list[SaidSegment]
    notes: list[str]


def content_key(*parts: object) -> bytes:
    """Return a hash of all the parts, which are everything that determines the audio and its encoding."""
    return hashlib.blake2b(msgspec.msgpack.encode(parts), digest_size=32).digest()


class SpeechCache:
    """Recent speech by entry; the least recently requested is dropped first."""

    def __init__(self) -> None:
        self._kept: dict[str, OrderedDict[bytes, FinishedSpeech]] = {}

    def get(self, entry_id: str, key: bytes) -> FinishedSpeech | None:
        kept = self._kept.get(entry_id)
        if kept is None or key not in kept:
            return None
        kept.move_to_end(key)
        return kept[key]

    def keep(
        self, entry_id: str, key: bytes, speech: FinishedSpeech, *, most_bytes: int, entries: Collection[str]
    ) -> None:
        """Add speech if it fits; drop what no longer fits, and entries that no longer exist."""
        self._kept = {name: kept for name, kept in self._kept.items() if name in entries}
        kept = self._kept.setdefault(entry_id, OrderedDict())
        kept[key] = speech
        size = sum(len(each.data) for each in kept.values())
        while size > most_bytes:
            _, oldest = kept.popitem(last=False)
            size -= len(oldest.data)
