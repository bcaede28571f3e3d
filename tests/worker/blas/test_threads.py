"""The number of threads: a pure function of the load, tested as a table, and the system's view of it."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("OpenBLAS takes MLX's place on Linux", allow_module_level=True)

from localapi.worker.blas.threads import (
    Governor,
    Threads,
    busy_seconds,
    cgroup_quota,
    fitting,
    running_elsewhere,
    usable_cores,
)


@pytest.mark.parametrize(
    ("cores", "busy_elsewhere", "threads"),
    [
        (1, 0.0, 1),
        (2, 0.0, 2),
        (2, 0.2, 2),
        (2, 0.5, 1),
        (2, 2.0, 1),
        (8, 0.0, 8),
        (8, 3.0, 5),
        (8, 3.9, 4),
        (8, 12.0, 1),
    ],
)
def test_threads_leave_the_cores_that_others_use(cores: int, busy_elsewhere: float, threads: int) -> None:
    assert fitting(cores, busy_elsewhere) == threads


@pytest.mark.parametrize(
    ("looks", "threads"),
    [
        # Each look: seconds since the last one, cores' worth of work by others.
        ([(5.0, 0.0)], [4]),
        ([(0.2, 0.0), (0.2, 0.0)], [1, 1]),
        ([(0.3, 0.0)] * 4, [1, 1, 1, 4]),
        ([(5.0, 0.0), (0.2, 3.0)], [4, 1]),
        ([(5.0, 0.0), (0.2, 3.0), (0.2, 0.0), (0.2, 3.0), (0.9, 0.0)], [4, 1, 1, 1, 1]),
        ([(5.0, 2.0), (0.5, 0.0), (0.5, 0.0)], [2, 2, 4]),
    ],
)
def test_threads_are_given_up_at_once_and_taken_again_after_a_calm_time(
    looks: list[tuple[float, float]], threads: list[int]
) -> None:
    governor = Governor(cores=4)
    now = 0.0
    decided = []
    for elapsed, busy_elsewhere in looks:
        now += elapsed
        decided.append(governor.decide(now, elapsed, busy_elsewhere))
    assert decided == threads


@pytest.mark.parametrize(("running", "threads"), [(0, 4), (1, 3), (3, 1), (9, 1)])
def test_the_first_step_after_a_pause_uses_the_cores_that_are_free_at_that_moment(running: int, threads: int) -> None:
    governor = Governor(cores=4)
    governor.decide(5.0, 5.0, 4.0)
    assert governor.wake(running) == threads
    assert governor.decide(5.2, 0.2, 3.0) == 1


def test_threads_that_run_now_are_counted_without_the_caller(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  1 2 3\nprocs_running 4\nprocs_blocked 7\n")
    assert running_elsewhere(stat) == 3
    stat.write_text("cpu  1 2 3\n")
    assert running_elsewhere(stat) is None
    assert running_elsewhere(tmp_path / "none") is None


def test_a_request_does_not_wait_for_more_samples_once_nothing_else_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = tmp_path / "stat"
    stat.write_text("procs_running 2\n")
    pauses = list[float]()

    def server_falls_asleep(seconds: float) -> None:
        pauses.append(seconds)
        stat.write_text("procs_running 1\n")

    monkeypatch.setattr("time.sleep", server_falls_asleep)
    assert running_elsewhere(stat) == 0
    assert len(pauses) == 1
    assert running_elsewhere(stat) == 0
    assert len(pauses) == 1


def test_the_library_begins_with_one_thread() -> None:
    told: list[int] = []
    Threads(8, told.append)
    assert told == [1]


def test_only_the_time_of_given_cores_counts_and_waiting_does_not(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text(
        "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 100 0 50 7000 900 0 0 50 30 0\ncpu1 5000 0 0 1 0 0 0 0 0 0\nintr 1 2\n"
    )
    one_core = busy_seconds([0], stat)
    assert busy_seconds([0, 1], stat) == pytest.approx(one_core * 5200 / 200)
    assert busy_seconds([0], tmp_path / "none") == 0


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, math.inf),
        ({"cpu.max": "max 100000\n"}, math.inf),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "400000 100000\n", "box/cpu.max": "200000 100000\n", "box/inner/cpu.max": "max 100000\n"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
    ],
)
def test_a_container_allows_as_much_as_its_narrowest_level(tmp_path: Path, files: dict[str, str], cores: float) -> None:
    proc = tmp_path / "cgroup"
    proc.write_text("0::/box/inner\n")
    root = tmp_path / "root"
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    assert cgroup_quota(proc, root) == cores


def test_variables_that_say_the_number_for_every_program_bound_it() -> None:
    assert usable_cores({"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "64"}) == 1
    assert usable_cores({"OMP_NUM_THREADS": "1"}) == 1
    assert usable_cores({"OPENBLAS_NUM_THREADS": "many"}) == usable_cores({})
