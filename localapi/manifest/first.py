"""The manifest that a new user begins with: the shipped models.yaml, which names its schema on its first line."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import localapi

SCHEMA: Final = "models.schema.json"
_SHIPPED: Final = "models.yaml"


def first_manifest() -> str:
    """The text of a manifest that has its JSON Schema beside it, as `SCHEMA`."""
    package = Path(localapi.__file__).parent
    shipped = next(place for place in (package / _SHIPPED, package.parent / _SHIPPED) if place.is_file())
    return shipped.read_text("utf-8").replace(f"$schema=configs/{SCHEMA}", f"$schema={SCHEMA}", 1)
