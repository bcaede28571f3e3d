"""Files that clients give: good ones in all their kinds, and those that mean harm."""

from __future__ import annotations

import io
import random
import resource
import struct
import sys
import time
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from localapi.audio import decoder
from localapi.audio.decoder import NotAudio
from localapi.audio.encoder import encoded, wav_header
from localapi.audio.formats import FORMATS
from tests.audio.sounds import samples, sine, speech

SOUND = sine(1, 24_000)


def decode(data: bytes, rate: int = 24_000, max_seconds: float = 30, max_bytes: int = 10_000_000) -> bytes:
    return decoder.decode(data, sample_rate_hz=rate, max_seconds=max_seconds, max_bytes=max_bytes)


def written(container: str, codec: str, options: dict[str, str] | None = None) -> bytes:
    """By FFmpeg, in kinds that this project does not write."""
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=options) as out:
        stream = out.add_stream(codec, rate=24_000, layout="mono")
        frame = av.AudioFrame("s16", "mono", samples=len(SOUND) // 2)
        frame.planes[0].update(SOUND)
        frame.sample_rate = 24_000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


def video() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 32, 32
        for _ in range(5):
            out.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        out.mux(stream.encode(None))
    return file.getvalue()


def libsndfile(kind: str, subtype: str, channels: int = 1) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.stack([samples(SOUND)] * channels, axis=1), 24_000, format=kind, subtype=subtype)
    return file.getvalue()


KINDS = {
    **{name: encoded(SOUND, FORMATS[name], 24_000) for name in ("mp3", "opus", "aac", "flac", "wav")},
    "streamed wav": wav_header(24_000, None) + SOUND,
    **{f"wav {subtype}": libsndfile("WAV", subtype) for subtype in ("PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")},
    "wav in stereo": libsndfile("WAV", "PCM_16", channels=2),
    "extensible wav": libsndfile("WAVEX", "PCM_16", channels=4),
    "vorbis": libsndfile("OGG", "VORBIS"),
    "aiff": libsndfile("AIFF", "PCM_16"),
    "caf": libsndfile("CAF", "PCM_16"),
    "m4a": written("ipod", "aac"),
    "mp4": written("mp4", "aac"),
    "mp4 in fragments": written("mp4", "aac", {"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
    "alac": written("ipod", "alac"),
    "webm": written("webm", "libopus"),
    "mpeg transport stream": written("mpegts", "aac"),
    "tagged mp3": b"ID3\x04\0\0\0\0\x01\x00" + bytes(128) + encoded(SOUND, FORMATS["mp3"], 24_000),
    "tagged flac": b"ID3\x04\0\0\0\0\x01\x00" + bytes(128) + encoded(SOUND, FORMATS["flac"], 24_000),
    "tagged aac": b"ID3\x04\0\0\0\0\x01\x00" + bytes(128) + encoded(SOUND, FORMATS["aac"], 24_000),
}


@pytest.mark.parametrize("rate", [16_000, 24_000])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_is_heard(kind: str, rate: int) -> None:
    sound = samples(decode(KINDS[kind], rate))
    assert 0.995 <= len(sound) / rate <= 1.15
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    assert np.argmax(spectrum) * rate / len(sound) == pytest.approx(440, abs=1.5)
    assert np.abs(sound[rate // 4 : rate * 3 // 4]).max() == pytest.approx(0.5, abs=0.03)


def test_channels_are_mixed_without_getting_louder() -> None:
    file = io.BytesIO()
    loud = samples(sine(0.5, 24_000, amplitude=0.95))
    soundfile.write(file, np.stack([loud, loud], axis=1), 24_000, format="WAV")
    assert np.abs(samples(decode(file.getvalue()))).max() == pytest.approx(0.95, abs=0.01)


def test_a_file_that_is_cut_off_gives_what_is_there() -> None:
    for kind in ("mp3", "flac", "opus", "wav"):
        data = KINDS[kind]
        assert 0.3 < len(decode(data[: len(data) // 2])) / len(SOUND) < 0.8


def test_what_is_damaged_within_a_file_is_left_out() -> None:
    data = bytearray(encoded(speech(5, 24_000), FORMATS["mp3"], 24_000))
    data[20_000:24_000] = random.Random(1).randbytes(4000)
    assert 4 < len(decode(bytes(data))) / 48_000 < 5.1


@pytest.mark.parametrize("name", ["#EXTM3U", "concat", "ffconcat", "sdp", "dash", "id3", "cue"])
def test_a_file_that_names_another_is_refused(name: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(KINDS["wav"])
    for target in (str(secret), f"file:{secret}", "/etc/passwd", "http://127.0.0.1:1/x.wav"):
        text = {
            "#EXTM3U": f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n",
            "concat": f"file '{target}'\n",
            "ffconcat": f"ffconcat version 1.0\nfile '{target}'\n",
            "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 4000 RTP/AVP 0\n",
            "dash": f'<?xml version="1.0"?><MPD><BaseURL>{target}</BaseURL></MPD>',
            "id3": f"ID3\x04\0\0\0\0\0\0#EXTM3U\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n",
            "cue": f'FILE "{target}" WAVE\n  TRACK 01 AUDIO\n',
        }[name]
        with pytest.raises(NotAudio):
            decode(text.encode())


@pytest.mark.parametrize("container", ["hls", "concat"])
def test_a_demuxer_that_wants_to_open_a_file_cannot(
    container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second wall: even if such a demuxer were chosen."""
    (tmp_path / "secret.wav").write_bytes(KINDS["wav"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(decoder, "container_of", lambda _: container)
    text = {
        "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nsecret.wav\n#EXT-X-ENDLIST\n",
        "concat": "ffconcat version 1.0\nfile secret.wav\n",
    }[container]
    with pytest.raises(NotAudio):
        decode(text.encode())


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        out.writestr("sound.wav", KINDS["wav"])
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not an audio file of a known kind"),
        (b"hello", "not an audio file of a known kind"),
        (b"\xff\xfe<\0!\0-\0", "."),
        (archive(), "not an audio file of a known kind"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not an audio file of a known kind"),
        (b"RIFF\x10\0\0\0AVI LIST", "cannot be read"),
        (b"RIFF\x10\0\0\0WAVE", "cannot be read"),
        (b"OggS" + bytes(300), "."),
        (b"fLaC", "."),
        (b"ID3", "."),
        (b"\xff\xfb", "."),
        (b"\0\0\0\x20ftypM4A " + bytes(300), "."),
        (b"\x1a\x45\xdf\xa3" + bytes(300), "."),
        (wav_header(24_000, 0), "no audio"),
        (wav_header(24_000, None)[:34] + bytes(2) + wav_header(24_000, None)[36:] + SOUND, "codec"),
        (video(), "video"),
        (written("wav", "adpcm_yamaha"), "'adpcm_yamaha'"),
        (wav_header(24_000, None)[:22] + struct.pack("<H", 200) + wav_header(24_000, None)[24:] + SOUND, "."),
    ],
)
def test_what_holds_no_usable_sound_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(NotAudio, match=reason) as refused:
        decode(data)
    assert "<none>" not in str(refused.value)


def test_the_limits_are_said() -> None:
    with pytest.raises(NotAudio, match=r"longer than 0\.9 seconds"):
        decode(KINDS["flac"], max_seconds=0.9)
    with pytest.raises(NotAudio, match=f"has {len(KINDS['wav'])} bytes; the limit is 40000"):
        decode(KINDS["wav"], max_bytes=40_000)
    assert decode(KINDS["wav"], max_seconds=1, max_bytes=len(KINDS["wav"]))


MANY = struct.pack(">I", 2**26)


def many_samples() -> bytes:
    """An MP4 that says it has one chunk of millions of samples, a byte each: gigabytes for FFmpeg's index."""
    data = bytearray(KINDS["m4a"])
    sizes, chunks = data.index(b"stsz"), data.index(b"stsc")
    data[sizes + 8 : sizes + 16] = struct.pack(">I", 1) + MANY
    data[chunks + 16 : chunks + 20] = MANY
    return bytes(data)


def many_samples_in_a_fragment() -> bytes:
    data = bytearray(written("mp4", "aac", options={"movflags": "frag_keyframe+empty_moov+default_base_moof"}))
    run = data.index(b"trun")
    data[run + 4 : run + 12] = struct.pack(">I", 1) + MANY
    return bytes(data)


def libsndfile_at(rate: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(1000), rate, format="AIFF", subtype="PCM_16")
    return file.getvalue()


BOMBS = {
    "ten minutes of silence": lambda: encoded(bytes(2 * 8000 * 600), FORMATS["flac"], 8_000),
    "one sample a second": lambda: encoded(SOUND, FORMATS["wav"], 1),
    "one sample a second in another kind": lambda: libsndfile_at(1),
    "200,000 empty parts": lambda: b"\0\0\0\x10ftypM4A \0\0\0\0" + b"\0\0\0\x08free" * 200_000,
    "more samples than bytes": many_samples,
    "more samples than bytes in a fragment": many_samples_in_a_fragment,
}


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_file_does_not_become_a_large_one(bomb: str) -> None:
    data = BOMBS[bomb]()
    before = peak_megabytes()
    begun = time.perf_counter()
    with pytest.raises(NotAudio):
        decode(data)
    assert time.perf_counter() - begun < 3
    assert peak_megabytes() - before < 60


def claiming(samples: int, seconds: int) -> bytes:
    """A FLAC that says it has so many samples, in the 36 bits of its header, and has so many seconds."""
    data = bytearray(encoded(bytes(2 * 8000 * seconds), FORMATS["flac"], 8_000))
    data[21] = data[21] & 0xF0 | samples >> 32
    data[22:26] = (samples & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize("data", [claiming(8_000, 60), claiming(2**36 - 1, 1)])
def test_a_length_that_a_file_claims_cannot_get_it_past_the_limit(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "sound.flac").write_bytes(data)
    decoded = decoder.decode_file(tmp_path / "sound.flac", sample_rate_hz=16_000, max_seconds=30)
    with pytest.raises(NotAudio, match="30"):
        assert sum(len(each.pcm) for each in decoded) <= 31 * 32_000


@pytest.mark.parametrize("kind", ["mp3", "opus", "aac", "flac", "wav", "vorbis", "m4a", "webm", "caf", "aiff"])
def test_damaged_files_are_sound_or_not_audio(kind: str) -> None:
    chance = random.Random(kind)
    good = KINDS[kind][:6000]
    for _ in range(30):
        data = bytearray(good)
        for _ in range(chance.randint(1, 8)):
            at = chance.randrange(len(data)) if chance.random() < 0.5 else chance.randrange(min(200, len(data)))
            data[at : at + chance.randint(0, 4)] = chance.randbytes(chance.randint(0, 4))
        try:
            pcm = decode(bytes(data), max_seconds=5)
        except NotAudio:
            continue
        assert len(pcm) % 2 == 0
        assert len(pcm) <= 5.1 * 48_000
