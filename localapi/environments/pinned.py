"""Content and folder of an environment."""

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
    "mlx-vlm": ("msgspec", "numpy", "PIL", "llguidance", "mlx_lm", "mlx_vlm.utils", "mlx_vlm.generate"),
    "faster-whisper": ("msgspec", "numpy", "av", "huggingface_hub", "faster_whisper"),
}
"""Modules that must be importable in each environment."""

NAMES: Final = tuple(IMPORTS)

PYTHONS: Final = ("3.11", "3.12", "3.13", "3.14")
"""Versions of Python for which all pinned packages have wheels on macOS and Linux."""
ELSE: Final = "3.12"
"""Version of Python if the server uses an unsupported one; uv finds or downloads it."""


@dataclass(frozen=True)
class Environment:
    """One environment, installed or not."""

    name: str
    requirements: Path
    """Pinned list of every package with its version, for `uv pip install -r`."""
    imports: tuple[str, ...]
    folder: Path
    """Folder, whose name contains a digest of the list and the version of Python."""

    @classmethod
    def named(cls, name: str) -> Self:
        """Return the environment with a name. Raise KeyError for a name that is not in `NAMES`."""
        requirements = Path(__file__).parent / f"{name}.txt"
        made_of = [requirements.read_text("utf-8"), python_version(), sysconfig.get_platform()]
        digest = hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:12]
        return cls(name, requirements, IMPORTS[name], folder_of_all() / f"{name}-{digest}")

    @property
    def interpreter(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def ready(self) -> bool:
        """True if it is installed, and its Python still exists."""
        return self.interpreter.exists()

    @property
    def command(self) -> str:
        """Command that installs it."""
        return f"localapi install {self.name}"

    def others(self) -> list[Path]:
        """Return folders of the same environment in other versions, usually those of other versions of localapi."""
        if not self.folder.parent.is_dir():
            return []
        ours = re.compile(re.escape(self.name) + "-[0-9a-f]{12}")
        found = (place for place in self.folder.parent.iterdir() if ours.fullmatch(place.name))
        return sorted(place for place in found if place != self.folder)


def folder_of_all() -> Path:
    """Return LOCALAPI_ENVIRONMENTS, or a folder in the user's data folder."""
    if given := os.environ.get("LOCALAPI_ENVIRONMENTS", "").strip():
        return Path(given).expanduser().absolute()
    if sys.platform == "darwin":
        data = Path.home() / "Library" / "Application Support"
    else:
        data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return data / "localapi" / "environments"


def python_version() -> str:
    """Return the version of Python for environments: the server's own if the packages support it."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    return own if own in PYTHONS else ELSE
