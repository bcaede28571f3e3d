"""Compute with MLX and a given BLAS, in a separate process: `python trial.py [LIBRARY]`.

Prints a line of JSON about the library and the time of a product, then all results as bytes. Two runs, one without a
library, show whether the BLAS is correct, faster, and used at all. It imports nothing of localapi, because it also runs
in environments without it.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from typing import Any

NEEDED = ("cblas_sgemm", "cblas_dgemm", "cblas_cgemm", "sgesdd_", "ssyevd_", "spotrf_")
"""Some symbols of each kind that MLX uses. A library without LAPACK would leave that to the slow one."""


def main() -> None:
    """Compute and print."""
    about = load(sys.argv[1]) if len(sys.argv) > 1 else ""
    import mlx.core as mx  # noqa: PLC0415  # after the library, whose symbols it must find

    mx.set_default_device(mx.cpu)
    results = b"".join(numbers(mx))
    line = json.dumps({"about": about, "seconds": seconds(mx)})
    sys.stdout.buffer.write(line.encode() + b"\n" + results)


def load(path: str) -> str:
    """Make the library's symbols visible to libraries loaded later; return its description of itself."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    for name in (*NEEDED, "openblas_set_num_threads"):
        getattr(library, name)
    library.openblas_get_config.restype = ctypes.c_char_p
    return bytes(library.openblas_get_config()).decode(errors="replace")


def numbers(mx: Any) -> list[bytes]:
    """Return results that differ if a BLAS is wrong, as float32 in native order."""

    def random(*shape: int) -> Any:
        return mx.random.normal(shape, key=mx.random.key(sum(shape)))

    square = random(64, 64)
    positive = square @ square.T + 64 * mx.eye(64)
    left, values, right = mx.linalg.svd(random(40, 30))
    lower = mx.linalg.cholesky(positive)
    results = [
        random(1, 300) @ random(300, 200),
        random(1, 576) @ random(1536, 576).T,
        random(130, 257) @ random(257, 65),
        random(70, 128).T @ random(70, 33),
        random(31, 64) @ random(50, 64).T,
        random(3, 5, 16, 64) @ random(3, 1, 64, 16),
        mx.addmm(random(9, 12), random(9, 100), random(100, 12), alpha=0.5, beta=2.0),
        values,
        (left[:, :30] * values) @ right,
        lower @ lower.T,
        mx.linalg.inv(positive),
        mx.linalg.eigvalsh(positive),
    ]
    return [bytes(memoryview(mx.contiguous(result.astype(mx.float32).flatten()))) for result in results]


def seconds(mx: Any) -> float:
    """Return the minimum processor time of a few products, which other programs affect less than wall-clock time."""
    a, b = mx.ones((96, 512)), mx.ones((512, 512))
    best = float("inf")
    for _ in range(4):
        began = time.process_time()
        mx.eval(a @ b.T)
        best = min(best, time.process_time() - began)
    return best


if __name__ == "__main__":
    main()
