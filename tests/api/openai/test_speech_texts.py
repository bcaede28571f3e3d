"""Texts that nobody would write, to every engine that runs anywhere: each is spoken or refused with a reason.

The texts are drawn from a seed, which a failure names. `--long` draws more, from another seed each time.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import random
import re
import shutil
import socket
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Draws
from tests.piper_voice import make_voice
from tests.server import Reply, Server, serving
from tests.sound import seconds

pytestmark = pytest.mark.fuzz

FAKEBIN = Path(__file__).parents[2] / "fakebin"
MANIFEST = """
speech:
  tone: {backend: echo, preload: true}
  reader: {backend: echo, speakable: true, lexicon: {GIF: jif}, preload: true}
  espeak: {backend: espeak-ng, preload: true}
  piper: {backend: piper, path: voice.onnx, preload: true}
  mac: {backend: macos-say, preload: true}
"""
SHARES = {"tone": 3, "reader": 4, "espeak": 5, "piper": 5, "mac": 2}
"""Share of the texts per model."""
PLAIN = "This is a plain sentence, which sounds the same before and after."
AT_ONCE = 8
MOST_CHARACTERS = 4096
MOST_FOR_A_CODEC = 120
"""Longer texts are asked for in formats that cost nothing to make and to read."""
MOST_ENDS_FOR_SAY = 20
"""It is a process for each sentence, and the fake one takes 40 ms to start."""
MOST_SECONDS_PER_CHARACTER = 4.0
"""A sign can be read as some words, at a quarter of the usual speed for some."""
LEAST_SECONDS_PER_WORD = 0.02
WORD = re.compile(r"(?<![^ .])[a-z]{3,12}(?![^ .])")
COMMAND = re.compile(
    r"-v \? \Z|(-v [\w ()]+ )?(-r \d+ )?-o \S+/localapi-say-\w+/speech\.wav "
    r"--file-format=WAVE --data-format=LEI16@22050 -f - \Z"
)
IN_OPEN = 0x20

LETTERS: dict[str, list[str]] = defaultdict(list)
"""Letters of every script, by the first word of their names."""
for _number in range(0x20, 0x1_FFFF):
    if (_char := chr(_number)).isalpha():
        LETTERS[unicodedata.name(_char, "?").partition(" ")[0]].append(_char)
SCRIPTS = list(LETTERS)
MARKS = [chr(number) for number in range(0x300, 0x370)]
EMOJI = ["😀", "👩‍👩‍👧‍👦", "👍🏿", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🇩🇪", "1️⃣", "❤️", "\ufe0f", "\u200d", "🫠"]
DIRECTIONS = ["\u202e", "\u202b", "\u2067", "\u200f", "\u061c", "\u202c", "\u2069"]
PUNCTUATION = list(".,;:!?…¿¡‽'\"“”„«»()[]{}<>/\\|-–—_*&^%$#@~`+=。、「」・؟،۔।॥፡။\u0589")  # noqa: RUF001
SPACES = list(" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u2028\u2029\u202f\u3000\u200b\ufeff")
WORDS = ["and", "the", "river", "went", "on", "under", "an", "old", "bridge", "where", "nobody", "has", "been", "GIF"]

Maker = Callable[[random.Random, "Bait"], str]


@dataclass(frozen=True)
class Bait:
    """Files and addresses that texts name and nobody may touch."""

    file: Path
    port: int


def words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(WORDS, k=count))


def some(rng: random.Random, signs: list[str], most: int = 80) -> str:
    return "".join(rng.choices(signs, k=rng.randint(1, most)))


def one_script(rng: random.Random, _: Bait) -> str:
    letters = LETTERS[rng.choice(SCRIPTS)]
    return " ".join(some(rng, letters, 12) for _ in range(rng.randint(1, 12))) + rng.choice(["", ".", "。", "؟"])


def many_scripts(rng: random.Random, _: Bait) -> str:
    return "".join(rng.choice(LETTERS[rng.choice(SCRIPTS)] + [" "]) for _ in range(rng.randint(1, 60)))


def any_characters(rng: random.Random, _: Bait) -> str:
    numbers = (rng.randrange(0x11_0000) if rng.random() < 0.5 else rng.randrange(0x3000) for _ in range(60))
    return "".join(map(chr, numbers)).encode("utf-8", "ignore").decode()


def half_characters(rng: random.Random, _: Bait) -> str:
    """Lone surrogates, which JSON can write and Unicode cannot."""
    return f"{words(rng, 2)} {chr(rng.randrange(0xD800, 0xE000))} {words(rng, 1)}"


def emoji(rng: random.Random, _: Bait) -> str:
    return some(rng, [*EMOJI, *EMOJI, " ", "wow "], 40)


def right_to_left(rng: random.Random, _: Bait) -> str:
    letters = [*LETTERS["ARABIC"], *LETTERS["HEBREW"], *DIRECTIONS, " ", "abc"]
    return rng.choice(DIRECTIONS) + some(rng, letters) + rng.choice(DIRECTIONS)


def controls(rng: random.Random, _: Bait) -> str:
    signs = [*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), *WORDS]
    return some(rng, signs, 40)


def zero(rng: random.Random, _: Bait) -> str:
    return rng.choice(
        ["\0", "\0" * 500, f"a\0{words(rng, 3)}\0", f"{words(rng, 2)}\0\0", f"\0-f/etc/passwd\0{words(rng, 1)}"]
    )


def punctuation(rng: random.Random, _: Bait) -> str:
    signs = rng.choices(PUNCTUATION, k=rng.choice([1, 1, 3, len(PUNCTUATION)]))
    return "".join(rng.choices(signs, k=rng.choice([1, 7, 30, 300, 300, MOST_CHARACTERS])))


def white_space(rng: random.Random, _: Bait) -> str:
    return "".join(rng.choices(SPACES, k=rng.choice([0, 1, 9, MOST_CHARACTERS])))


def spaced(rng: random.Random, _: Bait) -> str:
    return "".join(word + rng.choice(SPACES) * rng.randint(1, 3) for word in rng.choices(WORDS, k=30))


def marks_piled(rng: random.Random, _: Bait) -> str:
    piles = (rng.choice("aeiouה한") + some(rng, MARKS, rng.choice([3, 40, 400])) for _ in range(rng.randint(1, 8)))
    return "".join(piles)[:MOST_CHARACTERS]


def long_word(rng: random.Random, _: Bait) -> str:
    unit = rng.choice(["a", "w", "xyz", "9", "-", "ß", "字", "ק", "http", "ha", "0.", "A", "%", "Dr."])
    return (unit * MOST_CHARACTERS)[: rng.choice([30, 60, 400, 400, MOST_CHARACTERS])]


def too_long(rng: random.Random, _: Bait) -> str:
    return words(rng, 40) * rng.randint(30, 60)


def arguments(rng: random.Random, bait: Bait) -> str:
    """Texts that programs take for options, and shells for commands."""
    said = [
        "-f/etc/passwd", f"-f{bait.file}", f"-f {bait.file}", "--help", "-v ?", "-o out.wav", "--input-file=out",
        "--", "-", f"`cat {bait.file}`", f"$(cp {bait.file} stolen)", f"; touch {bait.file.parent}/new", "| tee new",
        "> new.txt", "%s%s%n", "${HOME}", "@file", "\\", "'; DROP TABLE", '"; exit', "!!", "*", "~",
    ]  # fmt: skip
    return " ".join(rng.choices(said, k=rng.choice([1, 1, 3])))


def commands(rng: random.Random, bait: Bait) -> str:
    """Texts that engines take for commands: `say`, Piper, Nuance and Eloquence."""
    said = [
        "[[volm 0]]", "[[slnc 100000]]", "[[inpt PHON]]", "[[", "]]", "[[[", "[[]]", "[[ həloʊ ]]", "[\0[rate 9]\0]",
        "\x1b\\pause=60000\\", "`v0", "`p100000", "\x1bPwr", "[\u200b[volm 0]\u200b]", "[[rset 0]]" * 20,
        f"[[audio {bait.file}]]",
    ]  # fmt: skip
    return " ".join(rng.choice([rng.choice(said), words(rng, 2)]) for _ in range(rng.randint(1, 9)))


def ssml(rng: random.Random, bait: Bait) -> str:
    inside = rng.choice([
        f'<audio src="file://{bait.file}"/>', f'<audio src="http://127.0.0.1:{bait.port}/a.wav"/>', '<mark name="a"/>',
        '<break time="600s"/>', '<prosody rate="0.001">', '<voice name="../../x">', '<say-as interpret-as="date">',
        "<![CDATA[", "<p><s>", "</speak>", "<speak>" * 40, "&lt;&#0;&#xd800;&bomb;",
    ])  # fmt: skip
    head = f'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY bomb SYSTEM "file://{bait.file}">]>'
    return f"{rng.choice(['', head])}<speak>{words(rng, 3)} {inside} {words(rng, 2)} &bomb;</speak>"


def markdown(rng: random.Random, bait: Bait) -> str:
    unit = rng.choice([
        "[", "![", "*a ", "**a", "> ", "- ", "`", "```\n", "<a ", "<!--", "|a|b|\n|-|-|\n", "[a](", "((", "# ", "1. ",
        "&amp;", "\\", "[^1]", "~~", "https://a.b/", f"![x](http://127.0.0.1:{bait.port}/x.png) ",
        f"[x](file://{bait.file}) ",
    ])  # fmt: skip
    return (f"{words(rng, 2)} {unit * rng.choice([1, 5, 30, 200, 2000])} {words(rng, 2)}")[:MOST_CHARACTERS]


def numbers(rng: random.Random, _: Bait) -> str:
    said = ["1e999999", "9" * 300, "-0", "1/0", "3.14", "٣٤", "½", "Ⅻ", "²³", "٪", "$1,000,000.99", "007", "0x7f"]
    return " ".join(rng.choices(said, k=rng.randint(1, 6)))


def prose(rng: random.Random, _: Bait) -> str:
    return " ".join(f"{words(rng, rng.randint(2, 12)).capitalize()}." for _ in range(rng.randint(1, 12)))


def mixed(rng: random.Random, bait: Bait) -> str:
    return "".join(
        rng.choice(MAKERS[:-1])(rng, bait)[:60] + rng.choice(["", " ", "\n"]) for _ in range(rng.randint(2, 5))
    )


MAKERS: list[Maker] = [
    one_script, one_script, many_scripts, any_characters, half_characters, emoji, right_to_left, controls, zero,
    punctuation, white_space, spaced, marks_piled, long_word, too_long, arguments, commands, ssml, markdown, markdown,
    numbers, prose, mixed,
]  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """One request."""

    maker: str
    body: dict[str, Any]

    @property
    def text(self) -> str:
        return str(self.body["input"])

    def __repr__(self) -> str:
        rest = {name: value for name, value in self.body.items() if name != "input"}
        return f"{self.maker} {rest} {len(self.text)} characters: {json.dumps(self.text)[:300]}"


def asked(rng: random.Random, bait: Bait) -> Asked:
    """A request, with a format and other things that the text has to go through."""
    maker = rng.choice(MAKERS)
    text = maker(rng, bait)
    model = rng.choices(list(SHARES), list(SHARES.values()))[0]
    if model == "mac" and len(re.findall(r"[.!?\s]+", text)) > MOST_ENDS_FOR_SAY:
        model = "espeak"
    cheap = len(text) > MOST_FOR_A_CODEC
    formats = ["wav", "pcm"] if cheap else ["wav", "wav", "pcm", "flac", "mp3", "opus", "aac"]
    body: dict[str, Any] = {"model": model, "input": text, "response_format": rng.choice(formats)}
    if rng.random() < 0.2:
        body["speed"] = rng.choice([1.5, 4] if cheap else [0.5, 1.5, 4])
    if rng.random() < 0.3:
        body["timestamps"] = rng.choice(["sentence", "word"]) if model in ("espeak", "piper") else "sentence"
    elif body["response_format"] == "flac":
        body["stream"] = False  # libsndfile reads none whose length is unknown
    elif rng.random() < 0.2:
        body["stream_format"] = "sse"
    return Asked(maker.__name__, body)


class Opened:
    """Watch for programs that open a file, on Linux."""

    def __init__(self, path: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK)
        assert self._libc.inotify_add_watch(self._descriptor, os.fsencode(path), IN_OPEN) > 0

    def __bool__(self) -> bool:
        """Return True if anybody has since the last call."""
        try:
            return bool(os.read(self._descriptor, 4096))
        except BlockingIOError:
            return False

    def close(self) -> None:
        os.close(self._descriptor)


@dataclass(frozen=True)
class Machine:
    """A server and its surroundings."""

    server: Server
    bait: Bait
    listening: socket.socket
    folder: Path
    """Working folder."""
    temporary: Path
    say_log: Path

    def speak(self, **body: Any) -> Reply:
        return self.server.request("POST", "/v1/audio/speech", body)

    def files(self) -> set[Path]:
        """All that there are, but for what Python keeps."""
        return {path for place in (self.folder, self.temporary) for path in place.rglob("*")}

    def workers(self) -> set[int]:
        return {worker.pid for worker in self.server.workers() if "localapi.worker" in worker.cmdline()}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder, temporary, log = (tmp_path_factory.mktemp(name) for name in ("texts", "temporary", "log"))
    make_voice(folder / "voice.onnx", aligned=True)
    bait = folder / "bait.txt"
    bait.write_text("nobody should read this aloud")
    path = f"{FAKEBIN}{os.pathsep}{os.environ['PATH']}"
    env = {"PATH": path, "TMPDIR": str(temporary), "FAKE_SAY_LOG": str(log / "say"), "HOME": str(temporary)}
    assert shutil.which("say", path=path) == str(FAKEBIN / "say")
    with socket.create_server(("127.0.0.1", 0)) as listening, serving(folder, MANIFEST, env=env) as server:
        listening.setblocking(False)
        for name in SHARES:
            server.wait_for(f"{name}: loaded")
        yield Machine(server, Bait(bait, listening.getsockname()[1]), listening, folder, temporary, log / "say")


@pytest.mark.timeout(1800)
def test_every_text_is_spoken_or_refused_with_a_reason(
    machine: Machine, pytestconfig: pytest.Config, draws: Draws
) -> None:
    is_long = pytestconfig.getoption("--long")
    seed = random.randrange(10**6) if is_long else 4
    print(f"seed {seed}")
    rng = random.Random(seed)
    requests = [asked(rng, machine.bait) for _ in range(draws(250))]
    sounds = {model: sound(machine, model) for model in SHARES}
    files, workers = machine.files(), machine.workers()
    opened = Opened(machine.bait.file) if sys.platform == "linux" else None
    assert machine.bait.file.read_text()
    assert opened is None or opened, "the test has opened it itself"

    def problem(request: Asked) -> tuple[str, str | None]:
        try:
            return found(request, machine.speak(**request.body))
        except Exception as error:
            return "failed", f"{type(error).__name__}: {error}"

    with ThreadPoolExecutor(AT_ONCE) as threads:
        outcomes = list(threads.map(problem, requests))
    wrong = [f"{problem}\n  {request}" for request, (_, problem) in zip(requests, outcomes, strict=True) if problem]
    assert not wrong, f"seed {seed}: {len(wrong)} problems\n" + "\n".join(wrong[:8])
    counts = Counter((request.body["model"], outcome) for request, (outcome, _) in zip(requests, outcomes, strict=True))
    assert all(counts[model, outcome] > 2 for model in SHARES for outcome in ("spoken", "refused")), counts

    assert {model: sound(machine, model) for model in SHARES} == pytest.approx(sounds, rel=0.01)
    assert machine.workers() == workers
    assert machine.files() == files
    assert not opened
    with pytest.raises(BlockingIOError):
        machine.listening.accept()
    assert [line for line in machine.server.lines if "Traceback" in line or "error:" in line.lower()] == []
    if opened is not None:
        opened.close()


def test_say_is_never_told_the_text_as_an_argument(machine: Machine) -> None:
    """Runs after the texts."""
    said = [json.loads(line) for line in machine.say_log.read_text().splitlines()]
    begun = [line for line in said if line["event"] == "begin"]
    assert len(begun) > 25
    assert [line["argv"] for line in begun if not COMMAND.match(" ".join([*line["argv"], ""]))] == []
    assert [line["commands"] for line in begun if line["commands"]] == []


def sound(machine: Machine, model: str) -> float:
    """Return the length of the plain text's sound."""
    reply = machine.speak(model=model, input=PLAIN, response_format="wav")
    assert reply.status == 200, reply.body
    return seconds(reply.body, "wav")


def found(request: Asked, reply: Reply) -> tuple[str, str | None]:
    """Return the result of a request, and what is wrong with it."""
    if reply.status == 400:
        return "refused", wrong_refusal(request, reply.json()["error"])
    if reply.status != 200:
        return "failed", f"status {reply.status}: {reply.body[:300]!r}"
    heard = seconds(file_of(request, reply), request.body["response_format"])
    speed = request.body.get("speed", 1)
    least = 0 if request.body["model"] == "reader" else LEAST_SECONDS_PER_WORD * len(WORD.findall(request.text))
    most = 2 + MOST_SECONDS_PER_CHARACTER * len(request.text)
    is_plausible = heard > 0 and least <= heard * speed <= most
    return "spoken", None if is_plausible else f"{heard:.2f} s, not from {least:.1f} to {most:.1f} at speed {speed}"


def wrong_refusal(request: Asked, error: dict[str, Any]) -> str | None:
    if set(error) != {"message", "type", "param", "code"} or error["type"] != "invalid_request_error":
        return f"no error object: {error}"
    if any("\ud800" <= char <= "\udfff" for char in request.text):
        return None if "not valid JSON" in error["message"] and error["param"] is None else f"half a character: {error}"
    if len(request.text) > MOST_CHARACTERS:
        return None if error["code"] == "string_above_max_length" and error["param"] == "input" else f"long: {error}"
    if error["param"] != "input" or len(error["message"]) < 20:
        return f"refused without a reason: {error}"
    return f"these words can be said: {error}" if WORD.search(request.text) else None


def file_of(request: Asked, reply: Reply) -> bytes:
    """The sound, out of the shape that the request asked for."""
    if "timestamps" in request.body:
        return base64.b64decode(reply.json()["audio"])
    if "stream_format" not in request.body:
        return reply.body
    lines = [line for line in reply.body.decode().splitlines() if line.startswith("data: ")]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert events[-1]["type"] == "speech.audio.done", events[-1]
    return b"".join(base64.b64decode(event["audio"]) for event in events if event["type"] == "speech.audio.delta")
