"""A short fuzz of the reader, with the same cases each time; `--long` makes it ten minutes. `fuzzing` is the fuzz."""

from __future__ import annotations

import logging
import time

import pytest

from localapi.errors import Problem
from tests.manifest.fuzzing import SEEDS, Case, Fuzzer, own_folder

CASES = 1000
LONG_SECONDS = 600


@pytest.mark.fuzz
@pytest.mark.timeout(900)
@pytest.mark.long
def test_only_a_manifest_or_a_manifest_error_comes_out(request: pytest.FixtureRequest) -> None:
    long = request.config.getoption("--long")
    logging.disable()
    try:
        with own_folder() as folder:
            fuzzer = Fuzzer(folder, time.time_ns() if long else 1)
            fuzzer.sweep(1 if long else 0.06)
            until = time.monotonic() + LONG_SECONDS
            while time.monotonic() < until if long else fuzzer.done < CASES:
                fuzzer.step()
    finally:
        logging.disable(logging.NOTSET)
    print(f"{fuzzer.done} cases, {fuzzer.manifests} manifests, {fuzzer.reached} steps, {len(fuzzer.parents)} parents")
    assert len(fuzzer.parents) > len(SEEDS)
    assert fuzzer.manifests > 20


def test_what_the_reader_raises_of_its_own_is_found() -> None:
    """The fuzz can fail: what is no manifest for the reader's own mistake is told with its case."""
    with own_folder() as folder, pytest.MonkeyPatch.context() as patch:
        fuzzer = Fuzzer(folder, 1)
        patch.setattr("localapi.manifest.reading.manifest_of", lambda *_, **__: 1 / 0)
        with pytest.raises(AssertionError, match=r"ZeroDivisionError came out of Case\(manifest=b'chat: \{\}'"):
            fuzzer.attempt(Case(b"chat: {}"))


@pytest.mark.parametrize("key", ["a\nb", "a\x1b[2Jb", "a\u2028b", "a\u202eb", "a\ufeffb"])
def test_a_problem_is_one_line_whatever_its_key_holds(key: str) -> None:
    said = str(Problem("models.yaml", "is wrong", f"chat.{key}", 1, 2))
    assert said.isprintable()
    assert said.startswith("models.yaml:1:2: chat.a\\")
