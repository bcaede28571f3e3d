"""Objects that Ollama's endpoints share: names, times, errors, options and lines of JSON."""

from __future__ import annotations

import functools
import time
from datetime import datetime
from typing import Annotated, Any, Final

from msgspec import Struct
from pydantic import BeforeValidator, Field

from localapi.api.openai.generation_request import MAX_NAME, BodyObject, MaxTokens, greedy_share
from localapi.backends.parameters import ChatParameters, StopString
from localapi.errors import ApiError
from localapi.http.body import RequestBody
from localapi.http.replies import told
from localapi.runtime.registry import Registry

LINES: Final = "application/x-ndjson"
LATEST: Final = ":latest"
HIGHEST_TEMPERATURE: Final = 2.0
"""Upper bound of temperatures. Ollama has none, and some programs offer higher ones, whose responses are no more
random."""


class OllamaError(Struct):
    """Error, with advice."""

    error: str


def error_body(error: ApiError) -> OllamaError:
    """Return Ollama's error object."""
    return OllamaError(told(error))


def now() -> str:
    """Return the time of a reply. Pieces of text within one millisecond share it."""
    return _written(time.time_ns() // 1_000_000)


@functools.lru_cache(maxsize=1)
def _written(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:03d}Z"


def at(moment: datetime) -> str:
    """Return a time as Ollama writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def known_name(registry: Registry, name: str) -> str:
    """Return the entry name for a client's name: Ollama's clients add `:latest` to names without a tag."""
    if registry.snapshot.manifest.resolve(name) is None:
        return name.removesuffix(LATEST)
    return name


def _no_limit(value: object) -> object:
    """Return None for Ollama's numbers for no limit: -1, and -2 for the whole context."""
    return None if value in (-1, -2) and not isinstance(value, bool) else value


ModelName = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]


def _whole(value: object) -> object:
    """Return a whole number for 40.0: clients whose settings all have one type send it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WholeNumber = Annotated[int | None, BeforeValidator(_whole)]


class ModelOptions(BodyObject):
    """Parameters by Ollama's names. Those about loading a model are set by the manifest."""

    temperature: float | None = None
    top_k: WholeNumber = None
    top_p: Annotated[float | None, Field(ge=0, le=1)] = None
    min_p: float | None = None
    seed: WholeNumber = None
    num_predict: Annotated[MaxTokens, BeforeValidator(_no_limit), BeforeValidator(_whole)] = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=16)] | None = None


NAMES: Final = {"max_tokens": "num_predict", "repetition_penalty": "repeat_penalty"}
"""Ollama's names of parameters, if they differ."""


def parameters_of(options: ModelOptions | None) -> dict[str, Any]:
    """Return the parameters that options set, by our names."""
    if options is None:
        return {}
    given = options.model_dump(exclude_none=True)
    said = {ours: given.pop(theirs) for ours, theirs in NAMES.items() if theirs in given} | given
    if "temperature" in said:
        said["temperature"] = min(said["temperature"], HIGHEST_TEMPERATURE)
    if "top_p" in said:
        said["top_p"] = greedy_share(said["top_p"])
    return said


def names_of_options() -> dict[str, list[str]]:
    """Return the client's names of the parameters."""
    return {name: [f"options.{NAMES.get(name, name)}"] for name in ChatParameters.model_fields}


class NamedModel(RequestBody):
    """A body that names a model."""

    model: ModelName | None = None
    name: ModelName | None = None
    """Older name of `model`."""
    verbose: bool = False
