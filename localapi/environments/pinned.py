"""What is in an environment, and where it is."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

IMPORTS: Final[Mapping[str, tuple[str, ...]]] = {
    "mlx-audio-plus": ("msgspec", "numpy", "av", "mlx_lm", "mlx_audio.tts.utils"),
    "mlx-audio": ("msgspec", "numpy", "av", "mlx_audio.tts.utils"),
}
"""What must be importable in each, or it counts as failed."""

NAMES: Final = tuple(IMPORTS)

PYTHONS: Final = ("3.11", "3.12", "3.13", "3.14")
"""The versions that all pinned packages have wheels for, on macOS and Linux."""
ELSE: Final = "3.12"
"""Where the server runs on another; uv finds it, or fetches it."""


@dataclass(frozen=True)
class Environment:
    """One environment, made or not."""

    name: str
    requirements: Path
    """The pinned list: every package with its version, as `uv pip install -r` reads it."""
    imports: tuple[str, ...]
    folder: Path
    """Its name holds a digest of all that it was made of: another list or another Python is another folder."""

    @classmethod
    def named(cls, name: str) -> Self:
        """Raises KeyError for a name that is not in `NAMES`."""
        requirements = Path(__file__).parent / f"{name}.txt"
        return cls(name, requirements, IMPORTS[name], folder_of_all() / f"{name}-{_digest(requirements)}")

    @property
    def interpreter(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def ready(self) -> bool:
        """Whether it is there, whole. False where the Python that it was made with has gone."""
        return self.interpreter.exists()

    @property
    def command(self) -> str:
        """What a person types to make it."""
        return f"localapi install {self.name}"

    def others(self) -> list[Path]:
        """Folders of the same name made of something else: of other versions of localapi, mostly."""
        if not self.folder.parent.is_dir():
            return []
        ours = re.compile(re.escape(self.name) + "-[0-9a-f]{12}")
        found = (place for place in self.folder.parent.iterdir() if ours.fullmatch(place.name))
        return sorted(place for place in found if place != self.folder)


def folder_of_all() -> Path:
    """LOCALAPI_ENVIRONMENTS, or a folder where the system keeps a user's data."""
    if given := os.environ.get("LOCALAPI_ENVIRONMENTS", "").strip():
        return Path(given).expanduser().absolute()
    if sys.platform == "darwin":
        data = Path.home() / "Library" / "Application Support"
    else:
        data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return data / "localapi" / "environments"


def python_version() -> str:
    """Of the environments: the server's own if the packages have it."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    return own if own in PYTHONS else ELSE


def _digest(requirements: Path) -> str:
    made_of = [requirements.read_text("utf-8"), python_version(), sysconfig.get_platform()]
    return hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:12]
