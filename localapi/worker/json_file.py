"""JSON files of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from localapi.worker.model import CannotLoad, first_line


def read_json(file: Path, *, default: Any = None) -> Any:
    """Return the content of a file, or `default` if there is none. Raise CannotLoad."""
    try:
        return json.loads(file.read_text("utf-8"))
    except FileNotFoundError as error:
        if default is not None:
            return default
        raise CannotLoad(f"{file} is missing.") from error
    except (OSError, ValueError) as error:
        raise CannotLoad(f"{file} cannot be read: {first_line(error)}.") from error


def read_object(file: Path) -> dict[str, Any]:
    """Return the object in a file. Raise CannotLoad."""
    content = read_json(file)
    if not isinstance(content, dict):
        raise CannotLoad(f"{file} must hold a JSON object.")
    return content
