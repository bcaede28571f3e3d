"""Path of the included OpenBLAS, and the variable that overrides it, for the server and its workers."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

SWITCH: Final = "LOCALAPI_BLAS"
"""Variable: `off` for MLX's own BLAS, or the path of a library. Default: the newest library found."""
PACKAGE: Final = "scipy-openblas32"


def package_library() -> Path | None:
    """Return the library of scipy-openblas32, without importing the package, which would load it under other names."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    for folder in (spec and spec.submodule_search_locations) or ():
        for file in sorted(Path(folder, "lib").glob("libscipy_openblas*.so*")):
            return file
    return None
