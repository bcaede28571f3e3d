"""Start a worker in its own environment: `python -I .../localapi/worker/bootstrap.py --fd N`.

That environment has none of the server's packages and must not see them: only this package is made visible, by its
folder. `-I` keeps the current folder, PYTHONPATH and this file's folder out of the import path.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

NAME = "localapi"


def show_package(folder: Path) -> None:
    """Make the package in this folder importable, but nothing beside it."""
    spec = importlib.util.spec_from_file_location(
        NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None  # noqa: S101  # it is a source file
    assert spec.loader is not None  # noqa: S101
    sys.modules[NAME] = package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)


if __name__ == "__main__":
    show_package(Path(__file__).parent.parent)
    from localapi.worker.__main__ import main

    main()
