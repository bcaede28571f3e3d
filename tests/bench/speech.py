"""Time to the first sound and speed of speech, beside Piper in Python and Piper's own HTTP server.

    python -m tests.bench.speech [--characters N] [--together N] [--rounds N]

The voice is made here and computes about as much as one of medium quality; nothing is downloaded. In each round all say
the same texts, one after the other and in changing order. What counts is the ratio within a round, and beside it
processor time, which other programs disturb less than the clock. All must say the same, sample by sample.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeVar

import numpy as np
import psutil

from localapi.cli.text_table import table
from tests.bench import figures, speech_client, speech_direct
from tests.bench.processes import OURS, Aside, piper_peer
from tests.bench.speech_client import Asked, Heard
from tests.piper_voice import make_voice
from tests.server import serving

Item = TypeVar("Item")
What = Literal["first", "mp3", "sentence", "whole", "cpu", "alone", "together"]
PYTHON, ONE_CORE, PEER = "PiperVoice", "PiperVoice on one core", "piper.http_server"

VOICE_HZ, PCM_HZ = 22_050, 24_000
"""Sample rates of usual voices, and of OpenAI's pcm."""
WAV_HEADER_BYTES: Final = 44
LEAST_ALIKE: Final = 0.999
"""The correlation of two sounds that differ in loudness and by fades at the ends of segments."""
CLOSE_SECONDS: Final = 0.02
FIRSTS: Final = 3
"""Number of first bytes that a round measures: each takes little time and varies much."""
PAUSE_SECONDS: Final = 1.0
"""Before a first byte is measured: a client has hung up, and the sentences are still made that were being said."""
SHORTER: Final = 4
"""Texts that are said at the same time are shorter by this factor."""
MANIFEST: Final = "speech: {{{}: {{backend: piper, path: '{}', preload: true}}}}"
WORDS: Final = ("river", "garden", "window", "paper", "silver", "morning", "little", "yellow", "mountain", "summer")


@dataclass
class Measured:
    """All rounds, in their order: seconds, by what was done and by who did it."""

    seconds: dict[tuple[What, str], list[float]] = field(default_factory=dict)
    right: list[bool] = field(default_factory=list)
    characters: list[int] = field(default_factory=list)
    others: float = 0.0
    """Number of cores that other programs used meanwhile."""

    def note(self, what: What, who: str, seconds: float) -> None:
        self.seconds.setdefault((what, who), []).append(seconds)


@dataclass(frozen=True)
class Speakers:
    """Everything that speaks, loaded."""

    voice: str
    reader: Aside
    python: Aside
    one_core: Aside
    port: int
    peer_port: int
    processes: dict[str, Sequence[psutil.Process]]

    def ours(self, text: str, response_format: str = "pcm") -> Asked:
        body = {"model": OURS, "input": text, "response_format": response_format}
        return Asked(self.port, "/v1/audio/speech", body)

    def asked(self, who: str, text: str) -> Asked:
        return self.ours(text) if who == OURS else Asked(self.peer_port, "/synthesize", {"text": text})

    def fetch(self, asked: Asked) -> Heard:
        return self.reader(speech_client.fetch, asked)

    def say(self, who: str, text: str) -> Heard:
        """A whole text."""
        if who in (PYTHON, ONE_CORE):
            aside = self.python if who == PYTHON else self.one_core
            return aside(speech_direct.say, self.voice, text, one_core=who == ONE_CORE)
        return self.fetch(self.asked(who, text))

    def say_all(self, who: str, texts: Sequence[str]) -> float:
        """Seconds for several texts: by a server at the same time, in Python one after the other."""
        if who in (PYTHON, ONE_CORE):
            return sum(self.say(who, text).seconds for text in texts)
        return self.reader(speech_client.fetch_all, [self.asked(who, text) for text in texts])

    def first(self, text: str) -> dict[tuple[What, str], Callable[[], float]]:
        """Ways to measure the first sound of a text."""
        sentence = text[: text.index(".") + 1]
        return {
            ("first", OURS): lambda: self.reader(speech_client.first_byte, self.ours(text)),
            ("first", PYTHON): lambda: self.python(speech_direct.first, self.voice, text),
            ("mp3", OURS): lambda: self.reader(speech_client.first_byte, self.ours(text, "mp3")),
            ("sentence", PYTHON): lambda: self.python(speech_direct.first, self.voice, sentence),
        }

    def cpu_seconds(self, who: str) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self.processes[who])


def main() -> None:
    """Build the voice, measure, print."""
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.bench.speech", description=description)
    parser.add_argument("--characters", type=int, default=2000, help="of the text (default: %(default)s)")
    parser.add_argument("--together", type=int, default=8, help="requests at once (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        voice = make_voice(Path(folder, "voice.onnx"), laborious=True, sample_rate_hz=VOICE_HZ)
        with speakers(voice) as them:
            measured = measure(them, arguments.characters, arguments.together, arguments.rounds)
    for line in report(measured, arguments.together):
        print(line)


@contextlib.contextmanager
def speakers(voice: Path) -> Iterator[Speakers]:
    """All of them with this voice."""
    with (
        Aside() as reader,
        Aside() as python,
        Aside() as one_core,
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), MANIFEST.format(OURS, voice)) as server,
        piper_peer(voice) as (peer_port, peer_pid),
    ):
        server.wait_for(f"{OURS}: loaded")
        processes: dict[str, Sequence[psutil.Process]] = {
            OURS: [psutil.Process(server.process.pid), *server.workers()],
            PYTHON: [psutil.Process(python(os.getpid))],
            PEER: [psutil.Process(peer_pid)],
        }
        yield Speakers(str(voice), reader, python, one_core, server.port, peer_port, processes)


def measure(them: Speakers, characters: int, together: int, rounds: int) -> Measured:
    """Speak: first to see that all say the same, which also warms everything up."""
    measured = Measured(right=list(_same(them, text_of(characters, seed="same"))))
    with _others(measured):
        for number in range(rounds):
            _first_bytes(them, [text_of(characters, seed=f"{number} {each}") for each in range(FIRSTS)], measured)
            time.sleep(PAUSE_SECONDS)
            _whole(them, text_of(characters, seed=f"{number}"), number, measured)
            texts = [text_of(characters // SHORTER, seed=f"{number}, {each}") for each in range(together)]
            _together(them, texts, number, measured)
    return measured


def _same(them: Speakers, text: str) -> Iterator[bool]:
    """Return for each whether its sound equals Piper's own in length and at sampled places."""
    direct = np.frombuffer(them.say(PYTHON, text).sound, "<i2")
    waves = [them.fetch(them.ours(text, "wav")), them.say(PEER, text)]
    for sound in (*(wave.sound[WAV_HEADER_BYTES:] for wave in waves), them.say(ONE_CORE, text).sound):
        samples = np.frombuffer(sound, "<i2")
        yield samples.size == direct.size and float(np.corrcoef(samples, direct)[0, 1]) > LEAST_ALIKE


def _first_bytes(them: Speakers, texts: Sequence[str], measured: Measured) -> None:
    found: dict[tuple[What, str], list[float]] = {}
    for number, text in enumerate(texts):
        ways = them.first(text)
        for what, who in _turned(list(ways), number):
            time.sleep(PAUSE_SECONDS)
            found.setdefault((what, who), []).append(ways[what, who]())
    for (what, who), seconds in found.items():
        measured.note(what, who, statistics.median(seconds))


def _whole(them: Speakers, text: str, number: int, measured: Measured) -> None:
    lengths = {}
    for who in _turned([OURS, PYTHON, PEER], number):
        before = them.cpu_seconds(who)
        heard = them.say(who, text)
        measured.note("whole", who, heard.seconds)
        measured.note("cpu", who, them.cpu_seconds(who) - before)
        lengths[who] = len(heard.sound)
        if who == PEER:
            measured.note("first", who, heard.first_seconds)
    seconds = lengths[OURS] / 2 / PCM_HZ - lengths[PYTHON] / 2 / VOICE_HZ
    measured.right += [abs(seconds) < CLOSE_SECONDS, lengths[PEER] == lengths[PYTHON] + WAV_HEADER_BYTES]
    measured.characters.append(len(text))


def _together(them: Speakers, texts: Sequence[str], number: int, measured: Measured) -> None:
    """Texts at once; and two of them one after the other, as if that were all."""
    some = texts[:2]
    for who in _turned([OURS, PYTHON, ONE_CORE, PEER], number):
        alone = sum(them.say(who, text).seconds for text in some)
        measured.note("alone", who, alone * len("".join(texts)) / len("".join(some)))
        if who in (OURS, PEER):
            measured.note("together", who, them.say_all(who, texts))


def _turned(items: Sequence[Item], by: int) -> Sequence[Item]:
    """Another one begins."""
    by %= len(items)
    return [*items[by:], *items[:by]]


@contextlib.contextmanager
def _others(measured: Measured) -> Iterator[None]:
    """Sees how many cores other programs take."""

    def used() -> tuple[float, float]:
        times, own = psutil.cpu_times(), psutil.Process()
        mine = sum(sum(each.cpu_times()[:2]) for each in (own, *own.children(recursive=True)))
        idle = times.idle + getattr(times, "iowait", 0.0)
        return time.perf_counter() * (os.cpu_count() or 1) - idle - mine, time.perf_counter()

    before, started = used()
    yield
    after, ended = used()
    measured.others = (after - before) / (ended - started)


def text_of(characters: int, *, seed: str) -> str:
    """Sentences of six to twelve words, about so many characters in all; cut nowhere but between them."""
    rng = random.Random(seed)
    sentences: list[str] = []
    while sum(map(len, sentences)) + len(sentences) < characters:
        sentences.append(" ".join(rng.choices(WORDS, k=rng.randint(8, 12))).capitalize() + ".")
    return " ".join(sentences)


def report(measured: Measured, together: int) -> Iterator[str]:
    """The table."""
    got = measured.seconds
    cores = os.cpu_count() or 1

    def row(name: str, what: What, than: What, aim: str) -> list[str]:
        """Ours beside what Piper does in Python, and beside its server where that does it too."""
        mine, python = got[what, OURS], got[than, PYTHON]
        peer = got.get((what, PEER)) if what == than else None
        cells = [name, figures.duration(mine), figures.duration(python), figures.ratio(mine, python), aim]
        return [*cells, *([figures.duration(peer), figures.ratio(mine, peer)] if peer else ["", ""])]

    def scaling(name: str, what: What, than: What, other: str, aim: str) -> list[str]:
        """Requests at once, beside the same one after the other."""
        mine, base = got[what, OURS], got[than, other]
        return [name, figures.duration(mine), figures.duration(base), figures.ratio(mine, base), aim, "", ""]

    peers = figures.ratio(got["together", PEER], got["alone", PEER])
    yield from table(
        ["medians", "localapi", PYTHON, "ratio", "aim", PEER, "ratio"],
        [
            row("first byte, pcm; Piper's first sentence of the text", "first", "first", "1.1"),
            row("first byte, mp3; the same", "mp3", "first", "1.1"),
            row("first byte, pcm; the first sentence given alone", "first", "sentence", ""),
            row("whole text, pcm", "whole", "whole", "1.05"),
            row("its processor time", "cpu", "cpu", ""),
            scaling(f"{together} texts at once; one after the other", "together", "alone", PYTHON, ""),
            scaling(f"{together} texts at once; so, on one core", "together", "alone", ONE_CORE, f"{1 / cores:.3g}"),
            [*scaling(f"{together} texts at once; so, through the same server", "together", "alone", OURS, "")[:5],
             figures.duration(got["together", PEER]), f"{peers} of itself"],
            ["characters of the whole text", figures.whole(measured.characters)] + [""] * 5,
            ["right answers", figures.share(measured.right), "", "", "all", "", ""],
            [f"cores that others took, of {cores}", f"{measured.others:.1f}"] + [""] * 5,
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
