"""A fuzz of the manifest's reader that is guided by coverage: only ManifestError may ever come out.

    uv run python -m tests.manifest.fuzzing --seconds 600

A case is the text of `models.yaml`, of a profile, of `.env`, and of variables of the environment. One that reaches a
line of `localapi/manifest` or `localapi/backends` in a way that none before it did becomes a parent of others.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import localapi
from localapi.errors import ManifestError
from localapi.manifest import NO_OVERRIDES, ManifestSource, Overrides, describe, fingerprint, read
from tests.piper_voice import make_voice

TRACED = tuple(str(Path(localapi.__file__).parent / name) for name in ("manifest", "backends", "spoken"))
CUT = b"\n----8<----\n"
OURS = ("CHAT_", "MODEL_", "AUDIO_", "ECHO_", "LOCALAPI_", "KEY")
"""Beginnings of the names of variables that a case may set."""


class Case(NamedTuple):
    """Input of the reader."""

    manifest: bytes
    profile: bytes = b"{}"
    dotenv: bytes = b""
    variables: bytes = b""
    """A line NAME=value each."""

    @classmethod
    def of(cls, data: bytes) -> Case:
        """From one text, as libFuzzer makes it."""
        return cls(*(*data.split(CUT, 3), b"{}", b"", b"")[:4]) if CUT in data else cls(data)


SEEDS = (
    Case(
        b"""server: {drain_seconds: 1.5, keep_alive: forever, memory_budget: 75%, log_level: "debug"}
echo: false
chat:
  m: &m {backend: mlx-lm, path: demo, aliases: [gpt-4o-mini], keep_alive: 15m, preload: true, kv_bits: 8}
  n: {<<: *m, aliases: [], pin: true, max_concurrent: 2, max_waiting: 0, queue_timeout_seconds: 1, swap: cold}
""",
        b"chat: {m: {path: org/name, defaults: {stop: ~}}, n: ~}\nspeech: {z: {backend: echo}}",
    ),
    Case(
        b"""server:
  memory_budget: 8GB
  allowed_hosts: [a.local]
  allowed_origins: ["https://a.example", "http://b.example:*"]
  api_keys: {a: {env: KEY_A, admin: true}, b: {file: ./b.key, models: [m]}}
chat: {m: {backend: echo}}
""",
        b"server: {api_keys: {a: {models: [m]}}}",
        b"KEY_A='0123456789abcdef' # x\nexport AUDIO_BACKEND=echo\nCHAT_MODEL_PATH=${MODEL_PATH:-demo}\n",
        b"MODEL_PATH=demo\nAUDIO_MODEL_ID=b\nECHO_MODE=0",
    ),
    Case(
        b"""chat: {c: {backend: mlx-lm, path: demo, revision: main, adapter: org/lora, draft: ./folder,
  defaults: {temperature: 0.7, stop: [x, 'y'], seed: -3, logit_bias: {"1": -100}}, locked: {max_tokens: 5}}}
""",
        b"{}",
    ),
    Case(
        b"""speech:
  a: {backend: auto, aliases: [tts-1], voices: {alloy: Samantha, x: {voice: y, speed: 2}}, lexicon: {GIF: jif}}
  b: {backend: piper, path: ./v.onnx, lexicon_file: words.txt, audio_folders: [.], sentence_silence_ms: 3}
""",
        b"speech: {b: {lexicon_file: ~, unsupported: warn}}",
    ),
    Case(
        b"""speech:
  c: {backend: mlx-audio-plus, path: org/name, defaults: {ref_audio: b.key, ref_text: x, instruct_text: y}}
  d: {backend: macos-say, rate_wpm: 200}
  e: {backend: espeak-ng, speakable: true, language: en, speech_cache_mb: 1}
  f: {backend: mlx-audio, path: ./folder, voices: {v: {ref_audio: b.key, ref_text: z}}}
""",
    ),
    Case(b"{}", b"{}", b"", b"CHAT_MODEL_ID=x\nCHAT_MODEL_PATH=org/x\nAUDIO_MODEL_PATH=./v.onnx\nECHO_MODE=true"),
    Case(b'"\\U0001F600": [1, 1.10, .nan, 1e999, ~]\n? - x\n: |2-\n  y\n', b"%YAML 1.3\n---\na: !!int 1\n...\n"),
)
PIECES = [
    *(bytes([byte]) for byte in b":-?[]{},#&*!|>'\"%@`~\t\n\r \\=$."), b"\n  ", b"<<: *m", b"&m ", b"*m", b"!!int ",
    b"---\n", b"...\n", b"? ", b"null", b"true", b"1.10", b"1e999", b"-.inf", b".nan", b"9" * 400, b"[" * 60,
    b'"\\ud800"', b'"\\UFFFFFFFF"', b"\xef\xbb\xbf", b"\xff", b"\x00", b"\xc2\x85", b"\xe2\x80\xa8",
    b"\xf0\x9f\x98\x80", b"../" * 20, b"~nobody/x", b"/dev/stdin", b"x" * 300, b"GB", b"%", b"${MODEL_PATH}", b"data:,",
    b"ECHO_MODE=maybe",
]  # fmt: skip
ODD = [
    b"", b"~", b"0", b"-1", b"1.10", b"1e999", b".nan", b"9" * 400, b"9" * 400 + b"GB", b"9" * 400 + b"%",
    b"9" * 400 + b"d", b"true", b"[]", b"{}", b"[x]", b"{a: b}", b"[[1]]", b"''", b'"\\0"', b'"a\\nb"', b'"\\ud800"',
    b'"\\U0001F600"', b"x" * 300, b"..", b"/", b"./", b"~nobody/x", b"/dev/stdin", b"org/../name", b"*m", b"*none",
    b"&a x", b"!!int 1", b"!x y", b"http://[", b"https://a:99999", b"data:,", b"%", b"| x", b"${A}", b"\xff",
]  # fmt: skip
"""Values put in the place of every word."""
WORD = re.compile(rb"[\w.-]+")
WORDS = sorted({word for case in SEEDS for part in case for word in WORD.findall(part)})
WORDS_SHARE = 0.7
"""Share of whole words among replacements: the rest stays YAML, so that checks behind the parser are reached."""


class Fuzzer:
    """Reads cases in a folder of its own, and keeps those that went where none had gone."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._choose = random.Random(seed)
        self._seen: set[tuple[CodeType, int, int]] = set()
        self.parents: list[Case] = []
        self.done = 0
        self.manifests = 0
        """Cases that were read without a complaint."""
        for case in SEEDS:
            self.attempt(case)

    @property
    def reached(self) -> int:
        """Steps from one line to another that some case took."""
        return len(self._seen)

    def sweep(self, share: float) -> None:
        """Read the cases to begin with, with each of their words made odd in each way; of these only a share."""
        for case in SEEDS:
            for at, part in enumerate(case):
                for word in WORD.finditer(part):
                    for odd in ODD:
                        if self._choose.random() < share:
                            changed = part[: word.start()] + odd + part[word.end() :]
                            self.attempt(Case(*case[:at], changed, *case[at + 1 :]))

    def step(self) -> None:
        """Make a case of those that there are, and read it."""
        self.attempt(self._changed(self._choose.choice(self.parents)))

    def attempt(self, case: Case) -> None:
        """Read it. Raises AssertionError with the case where anything but ManifestError comes out."""
        before = len(self._seen)
        with traced(self._seen):
            self.manifests += attempt(self._folder, case)
        self.done += 1
        if len(self._seen) > before:
            self.parents.append(case)

    def _changed(self, case: Case) -> Case:
        parts = list(case)
        for _ in range(self._choose.choice((1, 1, 2, 5))):
            at = self._choose.choices(range(4), (8, 3, 1, 2))[0]
            parts[at] = self._mutated(parts[at], self._choose.choice(self.parents)[at])
        return Case(*parts)

    def _mutated(self, text: bytes, other: bytes) -> bytes:
        """A word or a few bytes of it removed, replaced or doubled, or a piece of another case put in."""
        choose = self._choose
        start = choose.randint(0, len(text))
        end = min(len(text), start + choose.choice((0, 0, 1, 4, 20, 200)))
        words = list(WORD.finditer(text))
        if words and choose.random() < WORDS_SHARE:
            start, end = choose.choice(words).span()
        cut = choose.randint(0, len(other))
        new = choose.choice(
            (
                b"",
                choose.choice(PIECES),
                choose.choice(WORDS),
                choose.randbytes(choose.randint(1, 3)),
                text[start:end] * 2,
                other[cut : cut + choose.choice((5, 20, 100))],
                str(choose.choice((0, 1, -1, 2**31, 2**63, 10**30))).encode(),
            )
        )
        return text[:start] + new + text[end:]


@contextlib.contextmanager
def traced(seen: set[tuple[CodeType, int, int]]) -> Iterator[None]:
    """Note each step from line to line of the reader."""

    def enter(frame: FrameType, event: str, _: Any) -> Any:
        code, last = frame.f_code, 0
        if event != "call" or not code.co_filename.startswith(TRACED):
            return None

        def note(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal last
            if event == "line":
                seen.add((code, last, frame.f_lineno))
                last = frame.f_lineno
            return note

        return note

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        yield
    finally:
        sys.settrace(before)


def attempt(folder: Path, case: Case) -> bool:
    """Read a case in this folder, which is the current one; whether it is a manifest.

    Raises AssertionError with the case where anything but ManifestError comes out.
    """
    (folder / "configs").mkdir(exist_ok=True)
    for name, content in zip(("models.yaml", "configs/p.yaml", ".env"), case, strict=False):
        (folder / name).write_bytes(content)
    try:
        with set_variables(case.variables):
            manifest = read(ManifestSource(None, "p", overrides_of(case)))
            describe(manifest)
            for entry in manifest.entries.values():
                assert fingerprint(entry.identity)
                assert fingerprint(entry.settings)
    except ManifestError as error:
        if not error.problems or not all(str(problem).isprintable() for problem in error.problems):
            raise AssertionError(f"{error!r} came out of {case!r}") from error
        return False
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise AssertionError(f"{type(error).__name__} came out of {case!r}") from error
    return True


def overrides_of(case: Case) -> Overrides:
    """Return the overrides. If they cannot be read, `.env` alone has to do, as after an edit of it."""
    if case.dotenv or case.variables:
        with contextlib.suppress(ManifestError):
            return Overrides.read()
    return NO_OVERRIDES


@contextlib.contextmanager
def set_variables(lines: bytes) -> Iterator[None]:
    """Have the environment say this for a while, and nothing else of what is ours."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(OURS)]:
        del os.environ[name]
    for line in lines.replace(b"\0", b"").decode("utf-8", "surrogateescape").splitlines():
        name, _, value = line.partition("=")
        if name.startswith(OURS):
            os.environ[name] = value
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """A folder that is the current one for a while."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name, contextlib.chdir(name):
        (Path(name) / "b.key").write_text("abcdefghijklmnop")
        (Path(name) / "words.txt").write_text("GIF: jif\n")
        make_voice(Path(name) / "v.onnx")
        (Path(name) / "folder").mkdir()
        (Path(name) / "folder/config.json").write_text("{}")
        yield Path(name)


def main() -> None:
    """Read every odd word, and then what comes of that for so many seconds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=time.time_ns())
    given = parser.parse_args()
    logging.disable()
    with own_folder() as folder:
        fuzzer = Fuzzer(folder, given.seed)
        fuzzer.sweep(1)
        until = time.monotonic() + given.seconds
        while time.monotonic() < until:
            fuzzer.step()
    print(
        f"seed {given.seed}: {fuzzer.done} cases, {fuzzer.manifests} manifests among them, "
        f"{fuzzer.reached} steps of the reader in {len(fuzzer.parents)} parents"
    )


if __name__ == "__main__":
    main()
