"""Work that does not end is interrupted, on any thread, and nothing is interrupted after it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

import pytest

from localapi.system.time_limit import TimeLimitExceeded, limited

LONG = 1000.0


def spin() -> NoReturn:
    while True:
        pass


def spin_and_swallow() -> NoReturn:
    """As a template whose values have methods that catch everything."""
    for _ in range(3):
        try:
            spin()
        except:  # noqa: E722  # this is what the test is about
            continue
    spin()


def test_work_gives_its_result_and_its_errors() -> None:
    assert limited(LONG, lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        limited(LONG, lambda: 1 // 0)


@pytest.mark.parametrize("endless", [spin, spin_and_swallow])
def test_endless_work_is_interrupted(endless: object) -> None:
    with pytest.raises(TimeLimitExceeded):
        limited(0.01, endless)  # type: ignore[arg-type]


def test_endless_work_is_interrupted_on_another_thread_too() -> None:
    caught: list[Exception] = []

    def work() -> None:
        try:
            limited(0.01, spin)
        except TimeLimitExceeded as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(caught) == 1


def test_nothing_is_interrupted_once_the_work_has_ended() -> None:
    """Each limit is about as long as its work, so that the two meet."""
    outcomes = set()
    for tick in range(400):
        try:
            outcomes.add(limited(tick / 100_000, lambda: time.sleep(0.002) or "done"))
        except TimeLimitExceeded:
            outcomes.add("interrupted")
        sum(range(1000))
    assert outcomes == {"done", "interrupted"}


PROFILED = """
import sys
from localapi.system.time_limit import TimeLimitExceeded, limited

def spin():
    while True:
        pass

try:
    limited(*eval(sys.argv[1]))
except TimeLimitExceeded:
    print("interrupted")

def called():
    pass

def calls():
    for _ in range(3):
        called()

sys.setprofile(lambda *_: None)
calls()
sys.setprofile(None)
print("done")
"""


@pytest.mark.parametrize(("limit", "printed"), [("(1000, int)", "done"), ("(0.01, spin)", "interrupted done")])
def test_the_interpreter_looks_for_no_interruption_once_the_work_has_ended(limit: str, printed: str) -> None:
    """Python 3.11 would not only be slower from then on: under a profiler it stands still."""
    done = subprocess.run(
        [sys.executable, "-c", PROFILED, limit],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == printed.split()
