"""Fields that OpenAI's chat and completion requests share, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from localapi.api.keep_alive import KeepAlive
from localapi.backends.parameters import MAX_COUNT, ChatParameters, GenerationParameters, StopString
from localapi.errors import InvalidRequest
from localapi.http.body import RequestBody
from localapi.worker.protocol import Lark, Regex

MAX_CHOICES: Final = 64
MAX_NAME: Final = 200
GREEDY_TOP_P: Final = 1e-9
_INDEX: Final = re.compile(r"\[\d+\]")

NO_EFFECT: Final = frozenset(
    {
        "user",
        "metadata",
        "moderation",
        "safety_identifier",
        "store",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prompt_cache_options",
    }
)
"""Fields of OpenAI's about the caller or billing, and cache hints, which do not change the response."""


HINTS: Final[Mapping[str, tuple[Any, ...]]] = {
    "prediction": (),
    "service_tier": ("auto", "default"),
    "verbosity": ("medium",),
}
"""Hints of OpenAI's that a server may ignore, with the values that have no effect anyway. The reply names them."""

TokenNumber = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Pattern = Annotated[str, Field(min_length=1, max_length=10_000)]
"""A regular expression that the whole response must match."""
Grammar = Annotated[str, Field(min_length=1, max_length=100_000)]
"""A grammar of the whole response, in llguidance's dialect of Lark."""


class BodyObject(RequestBody):
    """Object in a request. Unknown fields have no effect, and are named in the reply: see `unknown_fields`."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, defer_build=True)


class StreamOptions(BodyObject):
    include_usage: bool = False
    include_obfuscation: bool = False
    """Padding against observers of the network, which is not needed on one machine."""


def without_empty(value: object) -> object:
    """Drop empty stop strings, which clients send for none."""
    if value == "":
        return None
    return [item for item in value if item != ""] or None if isinstance(value, list) else value


def _limit(value: object) -> object:
    """Return None for -1, which clients of other servers send for no limit."""
    return None if isinstance(value, int) and value == -1 else value


def greedy_share(value: float | None) -> float | None:
    """Replace 0, which means the likeliest token, by a value so small that it has the same effect."""
    return GREEDY_TOP_P if value == 0 else value


MaxTokens = Annotated[int | None, Field(ge=1), BeforeValidator(_limit)]


class GenerationRequest(RequestBody, GenerationParameters):
    """Part of a body that both endpoints share."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, defer_build=True)

    model: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    # Values that clients send for "nothing" are accepted here, but are mistakes in a manifest.
    top_p: Annotated[float | None, Field(ge=0, le=1), AfterValidator(greedy_share)] = None
    max_tokens: MaxTokens = None
    stop: Annotated[
        StopString | Annotated[list[StopString], Field(max_length=16)] | None, BeforeValidator(without_empty)
    ] = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    keep_alive: KeepAlive = None

    @property
    def include_usage(self) -> bool:
        """True if a stream ends with a chunk of usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def parameters(self) -> ChatParameters:
        """Return only the parameters that the client set."""
        return ChatParameters.model_validate(
            self.model_dump(include=set(ChatParameters.model_fields), exclude_none=True)
        )


def form_of(regex: str | None, grammar: str | None) -> Regex | Lark | None:
    """Return the form that these two fields require."""
    if regex is not None:
        return Regex(regex)
    return Lark(grammar) if grammar is not None else None


def refuse(content: Mapping[str, Any], not_honoured: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
    """Return the body without fields that have no effect. Raise InvalidRequest for one that cannot be honoured."""
    nothing = {name for name, harmless in HINTS.items() if any(_same(content.get(name), value) for value in harmless)}
    nothing |= {*not_honoured, *NO_EFFECT}
    for name, harmless in not_honoured.items():
        if name in content and not any(_same(content[name], value) for value in harmless):
            raise InvalidRequest(
                f"The parameter '{name}' is not supported by this server. Remove it.",
                param=name,
                code="unsupported_parameter",
            )
    return {key: value for key, value in content.items() if key not in nothing}


def unknown_fields(request: BaseModel, content: Mapping[str, Any]) -> list[str]:
    """Return the fields of the body that the request does not know, in order; in a list's items, each name once."""
    found: dict[str, str] = {}
    _collect_unknown(request, content, "", found)
    return sorted(found.values())


def _collect_unknown(value: object, given: object, place: str, found: dict[str, str]) -> None:
    """Compare a part of the request with the part of the body that it was made from."""
    if isinstance(value, BaseModel) and isinstance(given, Mapping):
        known = {field.alias or name: name for name, field in type(value).model_fields.items()}
        for key, item in given.items():
            path = f"{place}.{key}" if place else key
            if key in known:
                _collect_unknown(getattr(value, known[key]), item, path, found)
            elif not place or item not in (None, []):  # in messages, clients send back what they received
                found.setdefault(_INDEX.sub("[]", path), path)
    elif isinstance(value, list) and isinstance(given, list):
        for at, (item, raw) in enumerate(zip(value, given, strict=False)):
            _collect_unknown(item, raw, f"{place}[{at}]", found)


def _same(given: object, harmless: object) -> bool:
    """Return True if both are equal; a boolean only equals a boolean: `n: true` is not `n: 1`."""
    return given == harmless and isinstance(given, bool) == isinstance(harmless, bool)
