"""Threads of the server allocate from one arena, so that what one frees is of use to the others."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
THREADS = """
import ctypes, sys, threading
from localapi.system.memory import share_memory
if sys.argv[1] == "one":
    share_memory()
library, together = ctypes.CDLL(None), threading.Barrier(6)
def use():
    library.malloc(ctypes.c_size_t(1000))
    together.wait()
threads = [threading.Thread(target=use) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
library.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(library.fopen(sys.argv[2].encode(), b"w"))
library.malloc_info(0, file)
library.fclose(file)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_info"), reason="arenas are glibc's"
)
@pytest.mark.parametrize(("said", "variables", "one"), [
    ("one", {}, True),
    ("nothing", {}, False),
    ("one", {"MALLOC_ARENA_MAX": "4"}, False),
])  # fmt: skip
def test_threads_share_one_arena_unless_somebody_says_otherwise(
    tmp_path: Path, said: str, variables: dict[str, str], one: bool
) -> None:
    clean = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    subprocess.run(
        [sys.executable, "-c", THREADS, said, str(tmp_path / "info")],
        check=True, cwd=ROOT, env={**clean, **variables},
    )  # fmt: skip
    arenas = (tmp_path / "info").read_text().count("<heap nr=")
    assert (arenas == 1) is one
