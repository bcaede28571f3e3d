"""Names without their prefix: of the real library, found by the real loader."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from localapi.system.openblas_library import package_library
from localapi.worker.blas.elf import NotRenamable, without_prefix

LIBRARY = package_library()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="scipy-openblas32 is for Linux on x86-64 and arm64")


@pytest.fixture(scope="module")
def original() -> bytes:
    assert LIBRARY is not None
    return LIBRARY.read_bytes()


@pytest.fixture(scope="module")
def plain(original: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    plain = tmp_path_factory.mktemp("elf") / "plain.so"
    plain.write_bytes(without_prefix(original, b"scipy_"))
    return plain


def test_the_loader_finds_every_function_by_its_plain_name(plain: Path) -> None:
    names = ["cblas_sgemm", "cblas_cgemm", "sgemm_", "sgesdd_", "ssyevd_", "spotrf_", "openblas_get_config"]

    library = ctypes.CDLL(str(plain))

    assert all(hasattr(library, name) for name in names)
    assert not any(hasattr(library, f"scipy_{name}") for name in names)
    library.openblas_get_config.restype = ctypes.c_char_p
    assert library.openblas_get_config().startswith(b"OpenBLAS")


def test_nothing_but_names_and_their_table_changes(original: bytes, plain: Path) -> None:
    before, after = np.frombuffer(original, np.uint8), np.fromfile(plain, np.uint8)
    assert len(after) == len(before)
    assert 0 < np.count_nonzero(after != before) < len(before) // 100


@pytest.mark.parametrize(
    "content",
    [b"", b"\x7fELF", b"MZ" * 100, b"\x7fELF\x02\x01" + bytes(100), Path(sys.executable).resolve().read_bytes()[:4096]],
    ids=["nothing", "a beginning", "another format", "no tables", "a part of a program"],
)
def test_what_is_no_such_library_is_refused(content: bytes) -> None:
    with pytest.raises(NotRenamable):
        without_prefix(content, b"scipy_")


def test_a_library_cut_short_is_refused(original: bytes) -> None:
    for length in (1000, len(original) // 100, len(original) // 2):
        with pytest.raises(NotRenamable):
            without_prefix(original[:length], b"scipy_")


def test_a_library_without_the_prefix_is_refused(original: bytes) -> None:
    with pytest.raises(NotRenamable, match="prefix"):
        without_prefix(original, b"another_")


def test_the_number_of_threads_may_change_while_products_are_computed(plain: Path) -> None:
    script = """if True:
        import ctypes, sys, threading
        library = ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)
        import mlx.core as mx
        a, b = mx.random.normal((200, 300)), mx.random.normal((300, 400))
        wanted, done = (a @ b).tolist(), threading.Event()
        def change():
            number = 0
            while not done.is_set():
                number += 1
                library.openblas_set_num_threads(1 + number % 4)
        changing = threading.Thread(target=change)
        changing.start()
        worst = max(mx.max(mx.abs(a @ b - mx.array(wanted))).item() for _ in range(50))
        done.set()
        changing.join()
        print(worst < 1e-3)
    """
    command = [sys.executable, "-c", script, str(plain)]
    env = {"OPENBLAS_NUM_THREADS": "4"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120, check=False)
    assert done.stdout.strip() == "True", done.stderr
