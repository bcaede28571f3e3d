"""WAV as the standard library reads it."""

from __future__ import annotations

import io
import wave

import pytest

from localapi.audio.encoder import encoded, wav_header
from localapi.audio.formats import WAV
from tests.audio.sounds import speech

SOUND = speech(0.1, 22_050)


def test_what_is_written_is_read_by_the_standard_library() -> None:
    with wave.open(io.BytesIO(encoded(SOUND, WAV, 22_050))) as file:
        assert file.getparams()[:4] == (1, 2, 22_050, len(SOUND) // 2)
        assert file.readframes(10**6) == SOUND


@pytest.mark.parametrize("known", [True, False])
def test_a_header_has_44_bytes(known: bool) -> None:
    header = wav_header(24_000, len(SOUND) if known else None)
    assert len(header) == 44
    with wave.open(io.BytesIO(header + SOUND)) as file:
        assert file.readframes(len(SOUND)) == SOUND


def test_a_length_beyond_four_gigabytes_is_written_as_unknown() -> None:
    assert wav_header(24_000, 2**32) == wav_header(24_000, None)
