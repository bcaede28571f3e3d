"""Make costly things once per run, even if several processes share the tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def folder_of_the_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all processes of a run: pytest-xdist gives each its own below it."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def made_once(place: Path, make: Callable[[Path], object]) -> Path:
    """The folder that `make` fills; whoever comes second waits for the first. A failure leaves nothing behind."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_name(f"{place.name}.lock")):
        if not place.exists():
            draft = place.with_name(f"{place.name}.draft")
            shutil.rmtree(draft, ignore_errors=True)  # of a run that was killed
            make(draft)
            draft.rename(place)
    return place
