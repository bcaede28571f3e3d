"""`keep_alive` of a request, as Ollama's clients write it: how long its model stays loaded after it."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import BeforeValidator, Field, WithJsonSchema

from localapi.backends.options import FOREVER

_UNIT_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION: Final = re.compile(r"(-?)((?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+)")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")


def keep_alive_seconds(value: object) -> object:
    """Return seconds for 300, "300", "5m", "1h30m"; infinity for a negative time. Raise ValueError."""
    if isinstance(value, str):
        found = _DURATION.fullmatch(value)
        if found:
            seconds = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _PART.findall(found[2]))
            value = -seconds if found[1] else seconds
        elif re.fullmatch(r"-?\d+(\.\d+)?", value):
            value = float(value)
        else:
            raise ValueError('should be seconds or a time such as "5m"; 0 unloads at once, -1 keeps forever')
    if isinstance(value, int | float) and not isinstance(value, bool) and value < 0:
        return FOREVER
    return value


KeepAlive = Annotated[
    float | None,
    BeforeValidator(keep_alive_seconds),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}, {"type": "null"}]}),
    Field(
        description="Time without a request after which the model is unloaded: seconds, or a text such as 5m. "
        "0: after this request; -1: never. Limited by the manifest's `max_keep_alive`."
    ),
]
