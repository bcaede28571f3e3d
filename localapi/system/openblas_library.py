"""Where the OpenBLAS that comes along is, and what a person says about it. The server and its workers both look."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

SWITCH: Final = "LOCALAPI_BLAS"
"""off: MLX's own BLAS; a path: this library; otherwise the newest of those that are found."""
PACKAGE: Final = "scipy-openblas32"


def package_library() -> Path | None:
    """Return the file of scipy-openblas32, without importing it: that would load the library under its other names."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    for folder in (spec and spec.submodule_search_locations) or ():
        for file in sorted(Path(folder, "lib").glob("libscipy_openblas*.so*")):
            return file
    return None
