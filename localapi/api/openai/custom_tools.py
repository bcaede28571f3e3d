"""Custom tools, whose argument is text. Engines know only functions, so a custom tool becomes one with one string.

The grammar that a custom tool may have is not enforced.
"""

from __future__ import annotations

import json
from typing import Any, Final

CUSTOM_INPUT: Final = "input"
"""The only argument of a custom tool, as models see it: its text."""
TEXT_ARGUMENT: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {CUSTOM_INPUT: {"type": "string"}},
    "required": [CUSTOM_INPUT],
    "additionalProperties": False,
}
"""Schema of a custom tool's arguments."""


def custom_input(arguments: str) -> str:
    """Return the text in a call of a custom tool; all of the arguments if they have another form."""
    try:
        found = json.loads(arguments, strict=False)
    except (ValueError, RecursionError):
        return arguments
    text = found.get(CUSTOM_INPUT) if isinstance(found, dict) and len(found) == 1 else None
    return text if isinstance(text, str) else arguments
