"""Requests to speech models, and the sound that they answer with."""

from __future__ import annotations

from typing import Any

import msgspec

PHONEMES = ("\ue000", "\ue001")
"""Characters around IPA phonemes in a text, for engines that read them. Texts of clients hold neither."""


class Speak(msgspec.Struct, tag=True, kw_only=True):
    """Server to worker: speak this text."""

    id: int
    segments: list[str]
    """The text, split at natural pauses: one segment is heard while the next is generated."""
    voice: str | None = None
    """The engine's own name of the voice; None: its default."""
    speed: float = 1.0
    """1 for engines without a speed of their own: the server changes the tempo of their sound."""
    options: dict[str, Any] = {}
    """Further fields of the request, by the backend's names (`ref_audio` as the bytes of an audio file)."""
    times: bool = False
    """True if the times of words are wanted."""


class Sound(msgspec.Struct, tag=True):
    """The next sound of a segment. A segment may consist of several."""

    id: int
    segment: int
    """Numbers the request's segments from 0. A segment without sound is left out."""
    pcm: bytes
    """16-bit little-endian mono samples."""
    sample_rate_hz: int


class WordTime(msgspec.Struct):
    """The time of a spoken word."""

    text: str
    start_seconds: float
    end_seconds: float


class WordTimes(msgspec.Struct, tag=True):
    """The times of a segment's words, in seconds from the segment's first sample."""

    id: int
    segment: int
    words: list[WordTime]


class Spoken(msgspec.Struct, tag=True):
    """The speech is complete; nothing follows for this id."""

    id: int
    notes: list[str] = []
    """Parts of the request that had no effect on this model, in plain language."""
