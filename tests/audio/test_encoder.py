"""Encoded files as players read them: with libsndfile, and AAC, which it cannot read, with FFmpeg."""

from __future__ import annotations

import gc
import io
import subprocess
import sys
import threading
import wave

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from localapi.audio.encoder import Encoder, encoded
from localapi.audio.formats import FORMATS
from tests.audio.sounds import cut, pcm, samples, sine, speech

RATES = [8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000]
COMPRESSED = ["mp3", "opus", "aac", "flac"]
EXACT = ["opus", "flac", "wav", "pcm"]
"""Formats whose streamed files last as long as the sound did."""
LONGEST_DELAY_SECONDS = 0.13


class OnceThrough(soundfile.SoundFile):  # type: ignore[misc]  # has no types
    """libsndfile without going back: it cannot in a FLAC file whose length nobody wrote."""

    def seekable(self) -> bool:
        return False


def streamed(name: str, rate: int, pieces: list[bytes]) -> bytes:
    encoder = Encoder(FORMATS[name], rate)
    return b"".join([*map(encoder.encode, pieces), encoder.finish()])


def heard(name: str, data: bytes) -> tuple[NDArray[np.float64], int]:
    """The samples from -1 to 1, and their rate."""
    if name == "pcm":
        return samples(data), 24_000
    if name == "aac":
        with av.open(io.BytesIO(data), "r") as file:
            parts = [frame.to_ndarray()[0] for frame in file.decode(audio=0)]
            return np.concatenate(parts), file.streams.audio[0].rate
    with OnceThrough(io.BytesIO(data)) as file:
        return file.read(500_000), file.samplerate


def packets(data: bytes) -> list[bytes]:
    """Return the packets of an Ogg file, without its random number."""
    with av.open(io.BytesIO(data), "r") as file:
        return [bytes(packet) for packet in file.demux(audio=0)]


def test_the_names_and_content_types_are_openais() -> None:
    assert {name: kind.content_type for name, kind in FORMATS.items()} == {
        "mp3": "audio/mpeg",
        "opus": "audio/ogg",
        "aac": "audio/aac",
        "flac": "audio/flac",
        "wav": "audio/wav",
        "pcm": "audio/pcm",
    }


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", FORMATS)
def test_a_streamed_file_sounds_like_what_went_in(name: str, rate: int) -> None:
    sound, heard_rate = heard(name, streamed(name, rate, cut(sine(1.5, rate), [1920])))
    excess = len(sound) / heard_rate - 1.5
    assert abs(excess) < 0.001 if name in EXACT else 0 <= excess <= LONGEST_DELAY_SECONDS
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    assert np.argmax(spectrum) * heard_rate / len(sound) == pytest.approx(440, abs=1)
    middle = sound[heard_rate // 4 : heard_rate]
    assert np.abs(middle).max() == pytest.approx(0.5, abs=0.03)  # LAME takes 5 % off


@pytest.mark.parametrize("rate", [16_000, 22_050, 24_000, 48_000])
@pytest.mark.parametrize("name", [name for name in FORMATS if name != "aac"])
def test_a_whole_file_lasts_as_long_as_the_sound(name: str, rate: int) -> None:
    sound, heard_rate = heard(name, encoded(speech(1.234, rate), FORMATS[name], rate))
    assert len(sound) / heard_rate == pytest.approx(1.234, abs=0.0002)


@pytest.mark.parametrize("name", ["flac", "wav"])
def test_a_lossless_file_has_the_samples(name: str) -> None:
    sound = speech(1.1, 22_050)
    for data in (encoded(sound, FORMATS[name], 22_050), streamed(name, 22_050, [sound])):
        assert pcm(heard(name, data)[0] * 32768 / 32767) == sound


def test_a_whole_flac_and_a_whole_wav_know_their_length() -> None:
    sound = speech(1, 24_000)
    assert soundfile.info(io.BytesIO(encoded(sound, FORMATS["flac"], 24_000))).frames == 24_000
    with wave.open(io.BytesIO(encoded(sound, FORMATS["wav"], 24_000))) as file:
        assert (file.getnframes(), file.getframerate(), file.getnchannels()) == (24_000, 24_000, 1)
        assert file.readframes(24_000) == sound


def test_a_streamed_wav_is_read_by_the_standard_library_too() -> None:
    sound = speech(0.5, 16_000)
    with wave.open(io.BytesIO(streamed("wav", 16_000, cut(sound, [3])))) as file:
        assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (16_000, 2, 1)
        assert file.readframes(10**6) == sound


def test_pcm_is_24_khz() -> None:
    sound = speech(0.5, 24_000)
    assert streamed("pcm", 24_000, [sound]) == sound == encoded(sound, FORMATS["pcm"], 24_000)
    assert len(streamed("pcm", 48_000, [sine(1, 48_000)])) == pytest.approx(48_000, abs=4)


@pytest.mark.parametrize("rate", [22_050, 24_000])
@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=8, deadline=None)
@given(sizes=st.lists(st.integers(1, 20_000), min_size=1, max_size=5))
def test_the_bytes_do_not_depend_on_where_the_sound_is_cut(name: str, rate: int, sizes: list[int]) -> None:
    sound = speech(0.7, rate)[:-2]
    whole, pieces = streamed(name, rate, [sound]), streamed(name, rate, cut(sound, sizes))
    assert packets(whole) == packets(pieces) if name == "opus" else whole == pieces


@pytest.mark.parametrize("name", FORMATS)
def test_half_a_sample_at_the_end_is_left_out(name: str) -> None:
    sound = speech(0.3, 24_000)
    odd, even = encoded(sound + b"\x7f", FORMATS[name], 24_000), encoded(sound, FORMATS[name], 24_000)
    assert len(odd) == len(even)
    assert len(streamed(name, 24_000, [sound + b"\x7f"])) == len(streamed(name, 24_000, [sound]))


@pytest.mark.parametrize(("name", "milliseconds"), {"mp3": 80, "opus": 80, "aac": 110, "flac": 110, "wav": 20}.items())
def test_the_first_bytes_come_early(name: str, milliseconds: int) -> None:
    encoder = Encoder(FORMATS[name], 24_000)
    pieces = cut(speech(1, 24_000), [480])
    header = len(encoder.encode(b""))
    first = next(i for i, piece in enumerate(pieces, 1) if len(encoder.encode(piece)) > header + 200)
    assert first * 10 <= milliseconds


@pytest.mark.parametrize("name", FORMATS)
def test_bytes_come_all_the_time(name: str) -> None:
    encoder = Encoder(FORMATS[name], 24_000)
    got = [bool(encoder.encode(piece)) for piece in cut(speech(3, 24_000), [24_000 * 2 // 8])]
    assert all(got)


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_without_sound_ends_well(name: str) -> None:
    for data in (
        streamed(name, 24_000, []),
        streamed(name, 24_000, [b"", b"\x01"]),
        encoded(b"", FORMATS[name], 24_000),
    ):
        sound, rate = heard(name, data)
        assert len(sound) == 0 if name in {"wav", "pcm"} else 0.02 <= len(sound) / rate <= 0.02 + LONGEST_DELAY_SECONDS
        assert not (np.abs(sound) > 1e-6).any()


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100])
def test_resampling_leaves_loud_sound_whole(rate: int) -> None:
    for frequency in (100, 997, 3000):
        sound = samples(streamed("pcm", rate, [sine(1, rate, frequency, amplitude=0.97)]))
        middle = sound[2400:-2400]
        assert np.abs(middle).max() == pytest.approx(0.97, abs=0.01)
        t = np.arange(len(sound))[2400:-2400] / 24_000
        wave = np.stack([np.sin(2 * np.pi * frequency * t), np.cos(2 * np.pi * frequency * t)])
        fitted = np.linalg.lstsq(wave.T, middle, rcond=None)[0] @ wave
        assert np.sqrt(np.mean((middle - fitted) ** 2)) < 1e-3


def test_resampling_full_scale_noise_never_wraps_around() -> None:
    loud = np.sign(np.random.default_rng(1).standard_normal(22_050)).repeat(8)
    sound = samples(streamed("pcm", 22_050, [pcm(loud)]))
    expected = samples(streamed("pcm", 22_050, [pcm(loud * 0.5)])) * 2
    assert np.abs(sound - expected.clip(-1, 1)).max() < 0.01


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("rate", [4_000, 7_001, 11_025, 96_000, 192_000])
def test_unusual_rates_are_written_at_the_next_that_the_format_has(name: str, rate: int) -> None:
    sound, heard_rate = heard(name, encoded(sine(0.5, rate), FORMATS[name], rate))
    assert heard_rate == FORMATS[name].rate_for(rate)
    assert 0.499 <= len(sound) / heard_rate <= 0.5 + LONGEST_DELAY_SECONDS


def test_another_rate_within_a_file_is_an_error() -> None:
    encoder = Encoder(FORMATS["wav"], 24_000)
    encoder.encode(b"\0\0", sample_rate_hz=24_000)
    with pytest.raises(ValueError, match="24000 to 16000 Hz"):
        encoder.encode(b"\0\0", sample_rate_hz=16_000)


@pytest.mark.parametrize("rate", [0, -1])
def test_a_rate_that_makes_no_sense_is_an_error(rate: int) -> None:
    with pytest.raises(ValueError, match="at least 1 Hz"):
        Encoder(FORMATS["mp3"], rate)


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_can_be_added_after_the_end(name: str) -> None:
    encoder = Encoder(FORMATS[name], 24_000)
    encoder.finish()
    encoder.close()
    encoder.close()
    for late in (encoder.finish, lambda: encoder.encode(b"\0\0")):
        with pytest.raises(ValueError, match="has ended"):
            late()


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_file_that_is_given_up_leaves_nothing_to_collect(name: str) -> None:
    gc.collect()
    encoder = Encoder(FORMATS[name], 22_050)
    encoder.encode(speech(0.5, 22_050))
    encoder.close()
    assert gc.collect() == 0


@pytest.mark.parametrize("name", COMPRESSED)
def test_closing_while_another_thread_encodes_harms_nothing(name: str) -> None:
    sound = speech(10, 24_000)
    started = threading.Event()
    errors: list[BaseException] = []

    def encode(encoder: Encoder) -> None:
        started.set()
        try:
            while True:
                encoder.encode(sound)
        except ValueError as error:
            errors.append(error)

    encoder = Encoder(FORMATS[name], 24_000)
    thread = threading.Thread(target=encode, args=[encoder])
    thread.start()
    started.wait()
    encoder.close()
    thread.join()
    assert "has ended" in str(errors)


def test_wav_and_pcm_need_neither_pyav_nor_numpy() -> None:
    code = """
import sys
from localapi.audio import decoder, encoder, formats, joins, levels, tempo, tone
for name in "wav", "pcm":
    encoder.Encoder(formats.FORMATS[name], 24_000).encode(bytes(480))
assert not {"av", "numpy"} & set(sys.modules)
encoder.Encoder(formats.FORMATS["mp3"], 22_050).encode(bytes(480))
tempo.Tempo(24_000, 2).feed(bytes(480))
assert "av" in sys.modules and "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
