"""The six formats of OpenAI's speech endpoint, with FFmpeg's options for writing them.

See https://platform.openai.com/docs/guides/text-to-speech. `decoder` reads audio.
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
    """FFmpeg's encoder; None for unchanged samples."""
    container: str = ""
    """FFmpeg's muxer."""
    sample_format: str = "s16"
    """Sample format of the encoder, in FFmpeg's terms."""
    sample_rates_hz: tuple[int, ...] = ()
    """Supported rates in ascending order; empty for all rates."""
    bit_rate: int | None = None
    """Bits per second; None if the codec has no such option."""
    options: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Options of the muxer and the encoder."""

    def rate_for(self, sample_rate_hz: int) -> int:
        """Return the file's rate for audio of this rate: the lowest supported one that is not lower, or the highest."""
        if not self.sample_rates_hz or sample_rate_hz in self.sample_rates_hz:
            return sample_rate_hz
        return min((r for r in self.sample_rates_hz if r >= sample_rate_hz), default=self.sample_rates_hz[-1])


MP3 = Format(
    "mp3",
    "audio/mpeg",
    codec="libmp3lame",
    container="mp3",
    sample_format="s16p",
    # MPEG-2.5 supports rates below 16 kHz, but not every player does.
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
    # FFmpeg sends whole pages of one second by default. Pages of 40 ms cost 6 kbit/s.
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
    options={"metadata_header_padding": "0"},  # FFmpeg reserves 8 KB for tags
)

WAV = Format("wav", "audio/wav")

PCM = Format("pcm", "audio/pcm", sample_rates_hz=(24_000,))
"""PCM has no header, so its rate is fixed by OpenAI's documentation."""

FORMATS: Mapping[str, Format] = MappingProxyType({f.name: f for f in (MP3, OPUS, AAC, FLAC, WAV, PCM)})
"""Formats by their name in requests."""
