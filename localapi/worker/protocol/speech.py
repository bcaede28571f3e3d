"""Requests to speech models, and the audio that they return."""

from __future__ import annotations

from typing import Any

import msgspec

PHONEMES = ("\ue000", "\ue001")
"""Characters around IPA phonemes in a text, for engines that read them. Clients' texts contain neither."""


class Speak(msgspec.Struct, tag=True, kw_only=True):
    """Server to worker: speak this text."""

    id: int
    segments: list[str]
    """Text, split at natural pauses: one segment is played while the next is generated."""
    voice: str | None = None
    """Engine's own name of the voice; None for its default."""
    speed: float = 1.0
    """Speed; 1 for engines without a speed of their own, whose audio the server changes in tempo."""
    options: dict[str, Any] = {}
    """Further fields of the request, by the backend's names (`ref_audio` as the bytes of an audio file)."""
    times: bool = False
    """True if the times of words are requested."""


class Sound(msgspec.Struct, tag=True):
    """Next audio of a segment. A segment may consist of several."""

    id: int
    segment: int
    """Number of the segment in the request, from 0. A segment without audio is skipped."""
    pcm: bytes
    """16-bit little-endian mono samples."""
    sample_rate_hz: int


class WordTime(msgspec.Struct):
    """Time of a spoken word."""

    text: str
    start_seconds: float
    end_seconds: float


class WordTimes(msgspec.Struct, tag=True):
    """Times of a segment's words, in seconds from the segment's first sample."""

    id: int
    segment: int
    words: list[WordTime]


class Spoken(msgspec.Struct, tag=True):
    """The speech is complete; nothing follows for this id."""

    id: int
    notes: list[str] = []
    """Parts of the request that had no effect on this model, in plain language."""
