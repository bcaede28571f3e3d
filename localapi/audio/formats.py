"""The six formats of OpenAI's speech endpoint, and what FFmpeg is told to write each of them.

https://platform.openai.com/docs/guides/text-to-speech names them. Reading audio is `decoder`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class Format:
    """One `response_format`."""

    name: str
    content_type: str
    codec: str | None = None
    """FFmpeg's encoder; None where the samples are written as they are."""
    container: str = ""
    """FFmpeg's muxer."""
    sample_format: str = "s16"
    """What the encoder takes, in FFmpeg's words."""
    sample_rates_hz: tuple[int, ...] = ()
    """The rates that can be written, in ascending order; empty where all can."""
    bit_rate: int | None = None
    """Bits per second; None where the codec has no such choice."""
    options: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Of the muxer and the encoder."""

    def rate_for(self, sample_rate_hz: int) -> int:
        """The rate to write sound of this rate at: the next that is no lower, or the highest there is."""
        if not self.sample_rates_hz or sample_rate_hz in self.sample_rates_hz:
            return sample_rate_hz
        return min((r for r in self.sample_rates_hz if r >= sample_rate_hz), default=self.sample_rates_hz[-1])


MP3 = Format(
    "mp3",
    "audio/mpeg",
    codec="libmp3lame",
    container="mp3",
    sample_format="s16p",
    # MPEG-2.5 goes below 16 kHz; not every player does.
    sample_rates_hz=(16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
    bit_rate=128_000,
    options={"id3v2_version": "0"},
)

OPUS = Format(
    "opus",
    "audio/ogg",  # RFC 7845, section 9; audio/opus is Opus in RTP (RFC 7587)
    codec="libopus",
    container="ogg",
    sample_rates_hz=(8_000, 12_000, 16_000, 24_000, 48_000),
    bit_rate=64_000,
    # FFmpeg's pages hold a second, and a page is the least that goes out. Pages of 40 ms cost 6 kbit/s.
    options={"page_duration": "40000"},
)

AAC = Format(
    "aac",
    "audio/aac",
    codec="aac",
    container="adts",
    sample_format="fltp",
    sample_rates_hz=(16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
    bit_rate=96_000,
)

FLAC = Format(
    "flac",
    "audio/flac",
    codec="flac",
    container="flac",
    options={"metadata_header_padding": "0"},  # FFmpeg leaves 8 KB for tags
)

WAV = Format("wav", "audio/wav")

PCM = Format("pcm", "audio/pcm", sample_rates_hz=(24_000,))
"""No header, so the rate is the one that OpenAI's documentation promises."""

FORMATS: Mapping[str, Format] = MappingProxyType({f.name: f for f in (MP3, OPUS, AAC, FLAC, WAV, PCM)})
"""By the name that a request gives."""
