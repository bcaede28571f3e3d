"""Choose how many threads OpenBLAS uses: as many as there are cores that no other program uses.

Its threads wait for each other by spinning. If another program also uses a core, one interrupted thread holds up all
others: on two busy cores, a model decoded five times slower with two threads than with one.
"""

from __future__ import annotations

import math
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LOOK_SECONDS: Final = 0.2
"""Time between two checks of the load by other programs."""
CALM_SECONDS: Final = 1.0
"""Time for which cores must have been free before they are used again."""
ASLEEP_SECONDS: Final = 1.0
"""Time without a check after which the load since then says nothing about the current load."""
SAMPLES: Final = 5
SAMPLE_SECONDS: Final = 0.002
TOLERATED: Final = 0.3
"""Load by other programs, in cores, that is too small to matter. There is always some."""
MOST: Final = 16
"""Maximum threads: decoding is limited by memory bandwidth, which this many cores use up; OpenBLAS itself would use
more."""
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_IDLE: Final = (3, 4)
"""Positions of idle and iowait in a line of /proc/stat."""


def fitting(cores: int, busy_elsewhere: float) -> int:
    """Return how many threads to use if other programs keep this many of the cores busy."""
    return max(1, math.floor(cores - busy_elsewhere + TOLERATED))


@dataclass
class Governor:
    """Policy that lowers the number of threads immediately, and raises it after a calm time."""

    cores: int
    threads: int = 1
    _calm_since: float | None = None

    def decide(self, now: float, elapsed: float, busy_elsewhere: float) -> int:
        """Return the number of threads to use from `now` on, given the load of the last `elapsed` seconds."""
        wanted = fitting(self.cores, busy_elsewhere)
        if wanted <= self.threads:
            self._calm_since = None
            self.threads = wanted
            return wanted
        if self._calm_since is None:
            self._calm_since = now - elapsed
        if now - self._calm_since >= CALM_SECONDS:
            self._calm_since = None
            self.threads = wanted
        return self.threads

    def wake(self, running_elsewhere: int) -> int:
        """Return the number of threads to start with after a pause, while this many other threads run."""
        self._calm_since = None
        self.threads = fitting(self.cores, running_elsewhere)
        return self.threads


class Threads:
    """Follower of the load on this process's cores that sets OpenBLAS's number of threads."""

    def __init__(self, most: int, set_threads: Callable[[int], None]) -> None:
        self._governor = Governor(most)
        self._set = set_threads
        self._cores = allowed_cores()
        self._looked_at = time.monotonic()
        self._busy = busy_seconds(self._cores)
        self._own = time.process_time()
        set_threads(1)

    def look(self) -> None:
        """Set the number again if the last check was long enough ago.

        Call it between steps, on the thread that computes.
        """
        now = time.monotonic()
        elapsed = now - self._looked_at
        if elapsed < LOOK_SECONDS or self._governor.cores == 1:
            return
        before = self._governor.threads
        running = running_elsewhere() if elapsed >= ASLEEP_SECONDS else None
        busy, own = busy_seconds(self._cores), time.process_time()
        if running is None:
            elsewhere = max(0.0, (busy - self._busy) - (own - self._own)) / elapsed
            self._governor.decide(now, elapsed, elsewhere)
        else:
            # A prompt is one long step, so the first one after a pause must not wait for a calm time.
            self._governor.wake(running)
        if self._governor.threads != before:
            self._set(self._governor.threads)
        self._looked_at, self._busy, self._own = now, busy, own


def running_elsewhere(stat: Path = Path("/proc/stat")) -> int | None:
    """Return how many threads of the whole machine run now, apart from the caller; None if unknown.

    It is the median of a few samples within some milliseconds. If a sample shows none, no more are taken: a program
    that keeps a core busy is in all of them. In a container, other containers count too.
    """
    samples = list[int]()
    while len(samples) < SAMPLES:
        if samples:
            time.sleep(SAMPLE_SECONDS)
        running = re.search(r"^procs_running (\d+)$", _read(stat), re.MULTILINE)
        if running is None:
            return None
        samples.append(int(running[1]) - 1)
        if samples[-1] <= 0:
            return 0
    return int(statistics.median(samples))


def busy_seconds(cores: Iterable[int], stat: Path = Path("/proc/stat")) -> float:
    """Return how long these cores have been busy since the machine started; 0 if unknown."""
    wanted = {f"cpu{core}" for core in cores}
    busy = 0
    try:
        lines = stat.read_text().splitlines()
    except OSError:
        return 0.0
    for line in lines:
        name, *numbers = line.split()
        if name in wanted:
            # Only the first eight: the time of guests, which follows, is part of user time. Time taken by a hypervisor
            # (steal) is not ours, either.
            ticks = [int(number) for number in numbers[:8]]
            busy += sum(ticks) - sum(ticks[at] for at in _IDLE)
    return busy / _TICKS


def allowed_cores() -> set[int]:
    """Return the numbers of the cores that this process may use. Raise OSError if the system is not Linux."""
    if sys.platform != "linux":
        raise OSError("which cores a process may use is known on Linux only")
    return os.sched_getaffinity(0)


def usable_cores(environ: Mapping[str, str] = os.environ) -> int:
    """Return the number of physical cores that this process may use, within the limits of its container.

    OPENBLAS_NUM_THREADS and OMP_NUM_THREADS, which OpenBLAS reads, are upper bounds.
    """
    allowed = allowed_cores()
    bounds = [float(_real_cores(allowed)), cgroup_quota(), float(MOST)]
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        said = environ.get(name, "").partition(",")[0].strip()
        if said.isdecimal() and int(said) > 0:
            bounds.append(float(said))
            break
    return max(1, math.floor(min(bounds)))


def _real_cores(allowed: Iterable[int], system: Path = Path("/sys/devices/system/cpu")) -> int:
    """Return the number of physical cores behind these; the threads of one core share an arithmetic unit."""
    cores = set()
    for cpu in allowed:
        try:
            cores.add((system / f"cpu{cpu}/topology/thread_siblings_list").read_text())
        except OSError:
            cores.add(str(cpu))
    return len(cores)


def cgroup_quota(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float:
    """Return the container's limit of processor time, in cores; infinity if it sets none.

    In version 2 it is the least of all levels; in version 1, that of the root, which a container sees as its own.
    """
    quotas = [math.inf]
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        lines = []
    own = next((line.removeprefix("0::").strip("/") for line in lines if line.startswith("0::")), "")
    folder = root / own
    for place in (folder, *folder.parents):
        if not place.is_relative_to(root):
            break
        quotas.append(_quota(_read(place / "cpu.max").split()))
    quota = _read(root / "cpu/cpu.cfs_quota_us")
    period = _read(root / "cpu/cpu.cfs_period_us")
    quotas.append(_quota([quota.strip(), period.strip()]))
    return min(quotas)


def _quota(words: list[str]) -> float:
    """Return the cores of "QUOTA PERIOD", where "max" or a negative number means no limit."""
    if len(words) != 2 or not all(word.isdecimal() for word in words) or int(words[1]) == 0:  # noqa: PLR2004
        return math.inf
    return int(words[0]) / int(words[1])


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
