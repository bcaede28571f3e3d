"""OpenBLAS in MLX's place, in processes of their own as in a worker: what is loaded, kept, and said where it is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from localapi.system.openblas_library import package_library

pytestmark = pytest.mark.skipif(package_library() is None, reason="scipy-openblas32 is for Linux on x86-64 and arm64")

ROOT = Path(__file__).parents[3]
REPORT = """if True:
    import json, os, subprocess, sys
    before = dict(os.environ)
    from localapi.worker.blas import install_openblas
    choice = install_openblas()
    import mlx.core as mx
    product = (mx.ones((3, 400)) @ mx.ones((400, 2))).tolist()
    maps = open("/proc/self/maps").read()
    child = subprocess.run([sys.executable, "-c", "print(open('/proc/self/maps').read())"], capture_output=True)
    print(json.dumps({
        "taken": choice.is_fast, "says": choice.description, "right": product == [[400.0, 400.0]] * 3,
        "loaded": "openblas" in maps, "inherited": b"openblas" in child.stdout,
        "environment": before == dict(os.environ),
    }))
"""
Report = Callable[..., dict[str, Any]]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def report(cache: Path) -> Report:
    """Return the report of a new process after `install_openblas`, with these variables set."""

    def run(variables: Mapping[str, str] | None = None, script: str = REPORT) -> dict[str, Any]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("LOCALAPI_", "OPENBLAS_"))}
        env |= {"XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT), **(variables or {})}
        command = [sys.executable, "-P", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=200, check=False)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return run


def kept(cache: Path) -> dict[str, int]:
    """Each file of ours in the cache, and which version of it that is."""
    return {file.name: file.stat().st_ino for file in cache.rglob("*") if file.suffix in {".so", ".json"}}


def test_mlx_computes_with_openblas_and_children_do_not_inherit_it(report: Report) -> None:
    found = report()
    assert found["says"].startswith("OpenBLAS ")
    del found["says"]
    assert found == {"taken": True, "right": True, "loaded": True, "inherited": False, "environment": True}


def test_it_is_prepared_and_tried_once(report: Report, cache: Path) -> None:
    report()
    first = kept(cache)
    report()
    assert kept(cache) == first
    assert sorted(Path(name).suffix for name in first) == [".json", ".so"]


def test_processes_that_start_at_the_same_time_prepare_it_once(report: Report, cache: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: report(), range(3)))
    assert all(each["taken"] for each in found)
    assert len(kept(cache)) == 2


@pytest.mark.parametrize("damage", ["cut", "changed", "writable by all"])
def test_a_copy_that_was_damaged_is_made_again(report: Report, cache: Path, damage: str) -> None:
    report()
    (library,) = cache.rglob("*.so")
    content = library.read_bytes()
    match damage:
        case "cut":
            library.write_bytes(content[:100_000])
        case "changed":
            library.write_bytes(content[:5_000_000] + b"?" + content[5_000_001:])
        case _:
            library.chmod(0o666)
    assert report()["taken"]
    (again,) = cache.rglob("*.so")
    assert again.read_bytes() == content
    assert again.stat().st_mode & 0o022 == 0


def test_it_works_without_a_cache(report: Report, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = report({"XDG_CACHE_HOME": str(tmp_path / "file" / "below")})
    assert (found["taken"], found["right"], found["inherited"]) == (True, True, False)


@pytest.mark.parametrize("word", ["off", "0", "OFF"])
def test_it_can_be_switched_off(report: Report, cache: Path, word: str) -> None:
    found = report({"LOCALAPI_BLAS": word})
    assert (found["taken"], found["loaded"], found["right"]) == (False, False, True)
    assert "LOCALAPI_BLAS" in found["says"]
    assert not kept(cache)


def test_a_file_that_is_no_library_is_refused_with_its_name(report: Report, tmp_path: Path) -> None:
    (tmp_path / "mine.so").write_text("not a library")
    found = report({"LOCALAPI_BLAS": str(tmp_path / "mine.so")})
    assert (found["taken"], found["right"]) == (False, True)
    assert str(tmp_path / "mine.so") in found["says"]


def test_a_library_that_is_another_one_is_refused(report: Report) -> None:
    libc = next(Path("/usr/lib").glob("*-linux-gnu/libm.so.6"), None)
    if libc is None:
        pytest.skip("the libm of this system is elsewhere")
    found = report({"LOCALAPI_BLAS": str(libc)})
    assert (found["taken"], found["right"]) == (False, True)
    assert "cblas_sgemm" in found["says"]


def test_a_wrong_result_or_a_crash_in_the_trial_is_a_reason_and_is_remembered(report: Report, cache: Path) -> None:
    script = """if True:
        import json, pathlib, sys
        from localapi.worker.blas import install_openblas, verdicts
        trial = pathlib.Path({file!r})
        verdicts._TRIAL = trial
        choice = install_openblas()
        import mlx.core
        print(json.dumps({{"taken": choice.is_fast, "says": choice.description}}))
    """
    original = (ROOT / "localapi/worker/blas/trial.py").read_text()
    wrong, crash = cache.with_name("wrong.py"), cache.with_name("crash.py")
    wrong.write_text(original.replace("results = [", "results = [mx.ones(5) * len(sys.argv),"))
    crash.write_text(original.replace("import mlx.core as mx", "len(sys.argv) > 1 and ctypes.string_at(1)"))

    said = [report(script=script.format(file=str(file))) for file in (wrong, crash, crash)]

    assert [each["taken"] for each in said] == [False, False, False]
    assert "wrong" in said[0]["says"]
    assert "signal 11" in said[1]["says"]
    assert said[1]["says"] == said[2]["says"]
    assert sum(name.endswith(".json") for name in kept(cache)) == 2
