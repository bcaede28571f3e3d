"""Decode audio files from clients to PCM: voices to clone, speech to convert or to transcribe.

The files are not trusted. FFmpeg must not guess the format, because many of its demuxers (HLS, concat, SDP) open other
files and URLs that a file names. So the container is recognized by its first bytes and must be one that contains its
own audio, the codecs are on a list, and duration, size and channels are limited.
"""

from __future__ import annotations

import io
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from localapi.system.data_url import NotWritten, written_bytes

if TYPE_CHECKING:
    import av


_INTEGERS = [f"pcm_{kind}{bits}{order}" for kind in "su" for bits in (16, 24, 32) for order in ("le", "be")]
_FLOATS = [f"pcm_f{bits}{order}" for bits in (32, 64) for order in ("le", "be")]
CODECS = {"aac", "alac", "flac", "mp3", "mp3float", "opus", "vorbis"}
CODECS |= {"ac3", "amrnb", "amrwb", "eac3", "mp1float", "mp2", "mp2float", "wmav1", "wmav2"}
CODECS |= {"adpcm_ima_qt", "adpcm_ima_wav", "adpcm_ms", "gsm_ms"}
CODECS |= {*_INTEGERS, *_FLOATS, "pcm_s8", "pcm_u8", "pcm_alaw", "pcm_mulaw"}
"""Names of FFmpeg's decoders that may run."""

OPTIONS = {"codec_whitelist": ",".join(sorted(CODECS)), "protocol_whitelist": "none"}
"""Options for FFmpeg, which tries decoders as soon as it opens a file."""

MOST_CHANNELS = 8
LEAST_RATE_HZ: Final = 1000
"""Lowest sample rate that is decoded. Telephones have 8000; a file of 2 KB at 1 Hz took 120 MB."""
MOST_BOXES: Final = 100_000
"""Maximum boxes of an MP4 on one level. A fragmented recording has two for each second."""

CLAIM_TOLERANCE: Final = 1.01
"""Factor by which a container's stated length may exceed the limit before it is refused unread."""


class NotAudio(ValueError):
    """The file has no usable audio; the message tells the client why."""


@dataclass(frozen=True)
class Decoded:
    """Next part of a file's audio."""

    pcm: bytes
    """16-bit mono samples."""
    total_seconds: float
    """Length according to the file, which may be wrong; 0 if the file does not state it."""


def decode_file(path: Path, *, sample_rate_hz: int, max_seconds: float) -> Iterator[Decoded]:
    """Yield the audio of a file of any length piece by piece, as 16-bit mono PCM at a rate.

    For a video, this is its audio track. Damaged parts are skipped. Raise `NotAudio`, first of all for a file without
    audio; for one longer than `max_seconds`, as soon as that is known.
    """
    with path.open("rb") as file:
        container = container_of(_beginning(file))
        if container is None:
            raise NotAudio(_NOT_KNOWN)
        if container == "mov":
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                _refuse_false_counts(content)
        import av  # noqa: PLC0415  # costly, and seldom needed

        silent = True
        try:
            with av.open(file, "r", format=container, options=OPTIONS) as opened:
                total = _claimed_seconds(opened)
                if container != "wav" and total > max_seconds * CLAIM_TOLERANCE:
                    # WAV files that were streamed claim the largest possible size.
                    raise NotAudio(f"The audio is {total:.0f} seconds long; the limit is {max_seconds:g}.")
                for pcm in _sound(opened, sample_rate_hz, max_seconds, video=True):
                    silent = False
                    yield Decoded(pcm, min(total, max_seconds))
        except (av.error.FFmpegError, OverflowError) as error:
            raise _unreadable(error) from error
        except ValueError as error:
            raise error if isinstance(error, NotAudio) else _unreadable(error) from error
        if silent:
            raise NotAudio("The file contains no audio.")


def _beginning(file: io.BufferedReader) -> bytes:
    """Return the bytes by which a file's container is recognized, and seek to the start."""
    head = file.read(_TAG_HEADER_BYTES)
    if head[:3] == b"ID3":
        # The tag may contain a picture; what follows it counts.
        file.seek(_TAG_HEADER_BYTES + _tag_length(head))
        head = b"ID3" + bytes(_TAG_HEADER_BYTES - 3) + file.read(_HEAD_BYTES)
    else:
        head += file.read(_HEAD_BYTES)
    file.seek(0)
    return head


def _claimed_seconds(file: av.container.InputContainer) -> float:
    """Return the length that a file states; 0 if it states none."""
    import av  # noqa: PLC0415

    return max(0.0, float(file.duration or 0) / av.time_base)


def _unreadable(error: Exception) -> NotAudio:
    import av  # noqa: PLC0415

    reason = error.strerror if isinstance(error, av.error.FFmpegError) else error
    return NotAudio(f"The audio file cannot be read: {reason}.")


def decode(data: bytes, *, sample_rate_hz: int, max_seconds: float, max_bytes: int) -> bytes:
    """Return the audio of a WAV, MP3, FLAC, Ogg, M4A, AAC, WebM, AIFF or CAF file as 16-bit mono PCM at a rate.

    Several channels are mixed to one, and damaged parts are skipped. Raise `NotAudio` if nothing can be decoded, for
    video, and for files above `max_bytes` or `max_seconds`.
    """
    if len(data) > max_bytes:
        raise NotAudio(f"The audio file has {len(data)} bytes; the limit is {max_bytes}.")
    container = container_of(data)
    if container is None:
        raise NotAudio(_NOT_KNOWN)
    if container == "mov":
        _refuse_false_counts(data)

    import av  # noqa: PLC0415  # costly, and seldom needed

    try:
        with av.open(io.BytesIO(data), "r", format=container, options=OPTIONS) as file:
            pcm = b"".join(_sound(file, sample_rate_hz, max_seconds))
    except NotAudio:
        raise
    except (av.error.FFmpegError, ValueError, OverflowError) as error:
        raise _unreadable(error) from error
    if not pcm:
        raise NotAudio("The file contains no audio.")
    return pcm


def container_of(data: bytes) -> str | None:
    """Return FFmpeg's name of the container that begins with these bytes."""
    head = data[:_HEAD_BYTES]
    tagged = head[:3] == b"ID3"
    if tagged:
        head = data[_TAG_HEADER_BYTES + _tag_length(data) :][:_HEAD_BYTES]
    for magic, offset, name in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return name
    if head[: 3 * _TS_PACKET_BYTES : _TS_PACKET_BYTES] == b"GGG":  # each packet begins with it
        return "mpegts"
    sync = int.from_bytes(head[:2], "big")
    if sync & _ADTS_MASK == _ADTS:
        return "aac"
    is_mpeg = sync & _MPEG_SYNC == _MPEG_SYNC and sync & _MPEG_LAYER != 0
    return "mp3" if is_mpeg or tagged else None


def _tag_length(data: bytes) -> int:
    return sum((byte & 0x7F) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=False))


_MAGIC = (
    (b"WAVE", 8, "wav"),
    (b"riff\x2e\x91\xcf\x11", 0, "w64"),
    (b"AVI ", 8, "avi"),
    (b"#!AMR", 0, "amr"),
    (b".snd", 0, "au"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", 0, "asf"),
    (b"FLV\x01", 0, "flv"),
    (b"\x00\x00\x01\xba", 0, "mpeg"),
    (b"\x0b\x77", 0, "ac3"),
    (b"fLaC", 0, "flac"),
    (b"OggS", 0, "ogg"),
    (b"ftyp", 4, "mov"),
    (b"\x1a\x45\xdf\xa3", 0, "matroska"),
    (b"FORM", 0, "aiff"),
    (b"caff", 0, "caf"),
)

_HEAD_BYTES: Final = 1024
_TS_PACKET_BYTES: Final = 188
_NOT_KNOWN: Final = (
    "This is not an audio file of a known kind, such as WAV, MP3, FLAC, Ogg, M4A, MP4, AAC, WebM, AIFF or CAF."
)
_TAG_HEADER_BYTES = 10
"""Size of an ID3v2 header, whose length field has four times seven bits."""

_ADTS_MASK, _ADTS = 0xFFF6, 0xFFF0
_MPEG_SYNC, _MPEG_LAYER = 0xFFE0, 0x0006


def _refuse_false_counts(data: bytes | mmap.mmap) -> None:
    """Raise `NotAudio` for an MP4 that claims more samples than it has bytes.

    FFmpeg allocates memory for each sample before it checks: 9 KB took 2.3 GB.
    """
    begin = boxes = 0
    while begin + 8 <= len(data):
        boxes += 1
        if boxes > MOST_BOXES:
            raise NotAudio(f"The audio file has more than {MOST_BOXES} parts.")
        size, name = struct.unpack_from(">I4s", data, begin)
        if size == 1:  # the size follows in 64 bits
            size = int.from_bytes(data[begin + 8 : begin + 16], "big")
        end = begin + size if size > 0 else len(data)
        # The audio data (mdat) may contain anything by chance.
        for box, offset in ((b"stsz", 12), (b"stz2", 12), (b"trun", 8)) if name != b"mdat" else ():
            at = data.find(box, begin, end)
            while at >= 0:
                if int.from_bytes(data[at + offset : min(at + offset + 4, end)], "big") > len(data):
                    raise NotAudio("The audio file declares more audio than it can contain.")
                at = data.find(box, at + 1, end)
        begin = end


def _sound(
    file: av.container.InputContainer, sample_rate_hz: int, max_seconds: float, *, video: bool = False
) -> Iterator[bytes]:
    import av  # noqa: PLC0415

    if not video and any(not stream.disposition & av.stream.Disposition.attached_pic for stream in file.streams.video):
        raise NotAudio("This is a video; send only its audio.")
    if not file.streams.audio:
        raise NotAudio("The file contains no audio.")
    stream = file.streams.audio[0]
    # A WAV whose samples have an impossible size has no codec.
    codec = getattr(stream.codec_context, "name", "unknown")
    if codec not in CODECS:
        raise NotAudio(f"The audio codec {codec!r} is not supported.")
    if not 1 <= stream.codec_context.channels <= MOST_CHANNELS:
        raise NotAudio(f"The audio has {stream.codec_context.channels} channels; the limit is {MOST_CHANNELS}.")
    if stream.codec_context.sample_rate < LEAST_RATE_HZ:
        raise NotAudio(
            f"The audio has {stream.codec_context.sample_rate} samples per second; at least {LEAST_RATE_HZ} are needed."
        )
    resampler = av.AudioResampler(format="s16", layout="mono", rate=sample_rate_hz)
    seconds = 0.0
    for frame in _frames(file, stream):
        seconds += frame.samples / frame.sample_rate
        if seconds > max_seconds + 1e-6:  # because of accumulated rounding
            raise NotAudio(f"The audio is longer than {max_seconds:g} seconds.")
        for out in resampler.resample(frame):
            yield bytes(out.planes[0])[: 2 * out.samples]
    for out in resampler.resample(None):
        yield bytes(out.planes[0])[: 2 * out.samples]


def _frames(file: av.container.InputContainer, stream: av.AudioStream) -> Iterator[av.AudioFrame]:
    """Yield the frames that can be decoded, without damaged ones."""
    import av  # noqa: PLC0415

    for packet in file.demux(stream):
        try:
            frames = stream.codec_context.decode(packet if packet.size else None)
        except av.error.InvalidDataError:
            continue
        yield from (frame for frame in frames if frame.samples and frame.sample_rate)


def read_written(text: str) -> bytes:
    """Return the audio file in a text. Raise NotWritten if it is not of a known kind."""
    data = written_bytes(text)
    if container_of(data) is None:
        raise NotWritten("it is not audio of a known kind")
    return data
