"""WAV as others write it: macOS' `say`, the standard library, libsndfile, and files that lie about their length."""

from __future__ import annotations

import io
import struct
import wave

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from localapi.audio import wav
from localapi.audio.wav import NotWav
from tests.audio.sounds import samples, speech

SOUND = speech(0.1, 22_050)
FORM = struct.pack("<HHIIHH", 1, 1, 22_050, 44_100, 2, 16)


def chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2)


def riff(*chunks: bytes) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def test_what_is_written_is_read_by_the_standard_library() -> None:
    with wave.open(io.BytesIO(wav.file(SOUND, 22_050))) as file:
        assert file.getparams()[:4] == (1, 2, 22_050, len(SOUND) // 2)
        assert file.readframes(10**6) == SOUND


@pytest.mark.parametrize("known", [True, False])
def test_a_header_has_44_bytes(known: bool) -> None:
    header = wav.header(24_000, len(SOUND) if known else None)
    assert len(header) == 44
    assert wav.read(header + SOUND) == (SOUND, 24_000)


def test_a_length_beyond_four_gigabytes_is_written_as_unknown() -> None:
    assert wav.header(24_000, 2**32) == wav.header(24_000, None)


def test_chunks_before_the_sound_are_passed_over_as_say_writes_them() -> None:
    data = riff(chunk(b"JUNK", bytes(28)), chunk(b"fmt ", FORM), chunk(b"FLLR", bytes(4008)), chunk(b"data", SOUND))
    assert data.index(SOUND) == 4096
    assert wav.read(data) == (SOUND, 22_050)


def test_a_chunk_of_odd_length_has_a_byte_behind_it() -> None:
    data = riff(chunk(b"fmt ", FORM), chunk(b"LIST", b"odd"), chunk(b"data", SOUND), chunk(b"id3 ", b"later"))
    assert wav.read(data) == (SOUND, 22_050)


def test_an_extensible_format_is_read() -> None:
    guid = bytes.fromhex("0100000000001000800000aa00389b71")
    form = struct.pack("<HHIIHHHHI", 0xFFFE, 1, 22_050, 44_100, 2, 16, 22, 16, 4) + guid
    assert wav.read(riff(chunk(b"fmt ", form), chunk(b"data", SOUND))) == (SOUND, 22_050)


@pytest.mark.parametrize("size", [0xFFFF_FFFF, 0x7FFF_FFFF, len(SOUND) + 100])
def test_a_length_that_goes_too_far_means_all_that_follows(size: int) -> None:
    assert wav.read(riff(chunk(b"fmt ", FORM), chunk(b"data", SOUND, size))) == (SOUND, 22_050)


def test_a_file_that_is_cut_off_gives_whole_samples() -> None:
    data = wav.file(SOUND, 22_050)
    assert wav.read(data[:-3]) == (SOUND[:-4], 22_050)


def test_several_channels_are_mixed_to_one() -> None:
    file = io.BytesIO()
    left, right = samples(SOUND), -0.5 * samples(SOUND)
    soundfile.write(file, np.stack([left, right], axis=1), 16_000, format="WAV", subtype="PCM_16")
    mono, rate = wav.read(file.getvalue())
    assert rate == 16_000
    assert np.abs(samples(mono) - left / 4).max() < 2 / 32767


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "begins with b''"),
        (b"ID3\x04junk and more", "not a WAV file"),
        (b"RIFX" + riff(chunk(b"fmt ", FORM))[4:], "not a WAV file"),
        (riff(), "ends before its sound"),
        (riff(chunk(b"fmt ", FORM)), "ends before its sound"),
        (riff(chunk(b"data", SOUND)), "before its format"),
        (riff(chunk(b"fmt ", FORM[:10])), "cut off"),
        (riff(chunk(b"fmt ", struct.pack("<HHIIHH", 3, 1, 8000, 32_000, 4, 32))), "format tag 0x0003, 32 bits"),
        (riff(chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 8000, 8000, 1, 8))), "format tag 0x0001, 8 bits"),
        (riff(chunk(b"fmt ", struct.pack("<HHIIHH", 1, 0, 8000, 8000, 2, 16))), "0 channels at 8000 Hz"),
        (riff(chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 0, 0, 2, 16))), "1 channels at 0 Hz"),
    ],
)
def test_anything_else_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(NotWav, match=reason):
        wav.read(data)


@given(st.binary(max_size=200), st.integers(0, 200))
def test_any_bytes_are_sound_or_not_wav(junk: bytes, at: int) -> None:
    good = riff(chunk(b"JUNK", bytes(5)), chunk(b"fmt ", FORM), chunk(b"data", SOUND[:100]))
    for data in (junk, b"RIFF\0\0\0\0WAVE" + junk, good[:at] + junk + good[at + len(junk) :]):
        try:
            pcm, rate = wav.read(data)
        except NotWav:
            continue
        assert len(pcm) % 2 == 0
        assert rate > 0
