"""Test once, in separate processes, whether a library computes the same as MLX's own BLAS, but faster.

A library that does not suit the machine may crash. The verdict is cached until the library, MLX or the processor
changes.
"""

from __future__ import annotations

import array
import hashlib
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from localapi.system.atomic_file import write_whole

TRIAL_SECONDS: Final = 60
AGAIN_SECONDS: Final = 24 * 3600
"""Time after which a failed library is tested again, because the machine may have been at fault."""
TOLERANCE: Final = 1e-3
"""Tolerance relative to the largest number of a result. float32 has 1e-7, and sums of hundreds of products lose some of
it."""
FASTER: Final = 1.1
_TRIAL: Final = Path(__file__).with_name("trial.py")
_OF_PROCESSOR: Final = ("model name", "flags", "CPU implementer", "CPU part", "Features")


@dataclass(frozen=True)
class Verdict:
    """The verdict on one library."""

    reason: str
    """Reason why it is not used; empty if it is used."""
    about: str = ""
    """The library's description of itself."""
    speedup: float = 0
    """Speed-up of a matrix product on one core."""
    tried_at: float = 0

    @property
    def good(self) -> bool:
        return not self.reason


def key(*parts: str) -> str:
    """Return a name for everything on which a verdict depends: these parts, the processor and OpenBLAS's variables."""
    coretype = os.environ.get("OPENBLAS_CORETYPE", "")
    made_of = [*parts, _TRIAL.read_text(), platform.platform(), _processor(), coretype]
    return hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    pairs = dict(line.partition(":")[::2] for line in reversed(lines) if ":" in line)
    return "".join(value for name, value in sorted(pairs.items()) if name.strip() in _OF_PROCESSOR)


def read(file: Path) -> Verdict | None:
    """Return the verdict stored there; None if there is none, or it is too old."""
    try:
        verdict = Verdict(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return verdict if verdict.good or 0 <= time.time() - verdict.tried_at < AGAIN_SECONDS else None


def keep(verdict: Verdict, file: Path) -> None:
    """Write it. Raise OSError."""
    write_whole(file, json.dumps(asdict(verdict)).encode())


def tried(library: str, descriptors: Sequence[int] = ()) -> Verdict:
    """Run MLX without and with the library at the same time, and compare. `descriptors` are files that it needs."""
    isolated = ["-I"] if sys.flags.isolated else ["-P"]
    plain, with_it = (
        subprocess.Popen(  # noqa: S603  # this Python, with our own file
            [sys.executable, *isolated, str(_TRIAL), *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            pass_fds=tuple(descriptors),
        )
        for arguments in ([], [library])
    )  # fmt: skip
    try:
        (about, fast, got), (_, slow, wanted) = (_outcome(process) for process in (with_it, plain))
        reason = _compared(got, wanted)
    except _TrialFailed as error:
        coretype = os.environ.get("OPENBLAS_CORETYPE")
        blamed = f" (OPENBLAS_CORETYPE is {coretype})" if coretype else ""
        return Verdict(f"{error}{blamed}", tried_at=time.time())
    finally:
        for process in (plain, with_it):
            process.kill()
            process.communicate()
    speedup = slow / fast
    if not reason and speedup < FASTER:
        reason = f"it is only {speedup:.1f} times as fast as MLX's own"
    return Verdict(reason, about, speedup, time.time())


class _TrialFailed(Exception):
    """The trial failed. The message says how."""


def _outcome(process: subprocess.Popen[bytes]) -> tuple[str, float, array.array[float]]:
    """Return the library's description of itself, the seconds of a product, and the results."""
    try:
        output, errors = process.communicate(timeout=TRIAL_SECONDS)
    except subprocess.TimeoutExpired:
        raise _TrialFailed(f"its trial took longer than {TRIAL_SECONDS} s") from None
    if process.returncode != 0:
        lines = errors.decode(errors="replace").strip().splitlines() or ["no message"]
        how = f"signal {-process.returncode}" if process.returncode < 0 else f"status {process.returncode}"
        raise _TrialFailed(f"its trial ended with {how}: {lines[-1]}")
    line, _, results = output.partition(b"\n")
    told = json.loads(line)
    numbers = array.array("f")
    numbers.frombytes(results)
    return str(told["about"]), max(float(told["seconds"]), 1e-6), numbers


def _compared(got: Sequence[float], wanted: Sequence[float]) -> str:
    """Return how the results differ; empty if they are equal except for rounding."""
    if len(got) != len(wanted):
        return "its results have other sizes"
    largest = max(map(abs, wanted))
    worst = max((abs(a - b) for a, b in zip(got, wanted, strict=True)), default=0.0)
    if not all(map(math.isfinite, got)) or worst > TOLERANCE * largest:
        return f"its results are wrong: off by {worst / largest:.2g}"
    return ""
