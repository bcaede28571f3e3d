"""Models to start with: a short list, with the requirements of each, so that a new user can choose one that fits.

Sizes are those of the weights at their number of bits, rounded up; the Hub reports the exact size when a download
starts.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FILE: Final = Path(__file__).parent / "first_models.json"
USABLE_SHARE: Final = 0.7
"""Share of the machine's memory for a model, besides the system and other programs."""


@dataclass(frozen=True, kw_only=True)
class FirstModel:
    """One model of the list."""

    id: str
    """Id of its entry."""
    kind: str
    backend: str
    repository: str
    download_bytes: int
    memory_bytes: int
    """Memory needed to answer a conversation of some thousand tokens."""
    licence: str
    good_at: str

    def fits(self, memory_bytes: int) -> bool:
        """Return whether the model fits into this much memory."""
        return self.memory_bytes <= memory_bytes

    def options(self) -> dict[str, object]:
        """Return the options of its entry."""
        return {"backend": self.backend, "path": self.repository}


@functools.cache
def first_models() -> tuple[FirstModel, ...]:
    """Return the list, the smallest first. The first call blocks."""
    return tuple(FirstModel(**each) for each in json.loads(FILE.read_text("utf-8")))


def suggested(memory_bytes: int) -> FirstModel:
    """Return the model to suggest for this much memory: the middle one of those that fit, or the smallest."""
    fitting = [model for model in first_models() if model.fits(memory_bytes)]
    return fitting[len(fitting) // 2] if fitting else first_models()[0]
