"""The usage of a process equals what its own system calls report."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from localapi.system.process_usage import usage


def test_a_process_is_measured_from_outside() -> None:
    mine = resource.getrusage(resource.RUSAGE_SELF)
    seen = usage(os.getpid())
    assert seen is not None
    assert seen.cpu_seconds == pytest.approx(mine.ru_utime + mine.ru_stime, abs=2)
    assert 1_000_000 < seen.memory_bytes < 64 * 2**30


def test_a_process_that_has_ended_uses_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert usage(process.pid) is None
