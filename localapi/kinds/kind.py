"""Declaration of a kind of model: everything that the rest of the program knows about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

from msgspec import UNSET, Meta, Struct, UnsetType, ValidationError, convert
from pydantic import BaseModel

from localapi.backends.options import EntryOptions
from localapi.observability.counters import Counters, Metric
from localapi.worker.protocol import Finished, Loaded


@dataclass(frozen=True, kw_only=True)
class Variables:
    """Environment variables that describe one entry.

    If several names mean the same, the first one that is set counts.
    """

    entry_id: str
    """Id of the entry if no variable names one."""
    names: tuple[str, ...]
    """Variables that name the entry."""
    options: Mapping[str, tuple[str, ...]]
    """Variables that set an option, by the option."""
    defaults: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Variables that set one of the entry's `defaults`, by parameter."""
    backend: str
    """Backend of the entry if neither a file nor a variable gives one."""

    @property
    def all(self) -> tuple[str, ...]:
        """All variables."""
        of_options = (name for names in (*self.options.values(), *self.defaults.values()) for name in names)
        return (*self.names, *of_options)


class ModelObject(Struct, kw_only=True):
    """OpenAI's model object, and the fields that localapi adds. A kind adds its own fields in a subclass."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    kind: str
    backend: str
    state: str
    aliases: list[str]
    description: str | None
    input: tuple[str, ...] = ("text",)
    output: tuple[str, ...] = ("text",)
    peer: Annotated[str | UnsetType, Meta(description="Other localapi that has the model.")] = UNSET
    members: Annotated[list[str] | UnsetType, Meta(description="Members of a pool.")] = UNSET

    download_bytes: Annotated[
        int | UnsetType,
        Meta(description="Approximate bytes to download, if files are missing and their size is known."),
    ] = UNSET
    variant_of: Annotated[str | UnsetType, Meta(description="Base entry of a variant.")] = UNSET

    def describe(self, options: EntryOptions, loaded: Loaded | None) -> None:
        """Fill in the fields that a kind adds, from an entry and the facts that its loaded model reported."""

    def as_options(self) -> dict[str, Any]:
        """Return the options of an entry for this model on another server, if they are not the default ones."""
        return {}

    def describe_pool(self, members: Sequence[ModelObject]) -> None:
        """Fill in everything but the facts of the entry itself, with what all members of a pool have in common."""
        for name in self.__struct_fields__:
            if name in _OF_ENTRY:
                continue
            known = [value for each in members if (value := getattr(each, name)) is not None and value is not UNSET]
            if known:
                setattr(self, name, _common(known))


_OF_ENTRY: Final = {
    *("id", "object", "created", "owned_by", "kind", "backend", "state", "aliases", "description", "peer", "members"),
    "variant_of",
    "download_bytes",
}


def _common(values: Sequence[Any]) -> Any:
    """Return what several models have in common: the smallest number, the items that all have, or the shared value."""
    first = values[0]
    if isinstance(first, bool):
        return all(values)
    if isinstance(first, int | float):
        return min(values)
    if isinstance(first, list | tuple):
        return type(first)(item for item in first if all(item in other for other in values))
    if isinstance(first, Struct):
        # Facts: false if false for one of them, otherwise unknown if unknown for one.
        facts: dict[str, bool | None] = {}
        for name in first.__struct_fields__:
            found = [getattr(each, name) for each in values]
            unknown_or_true = None if None in found else True
            facts[name] = False if False in found else unknown_or_true
        return type(first)(**facts)
    return first if all(other == first for other in values) else None


def count_nothing(counters: Counters, model: str, answer: Finished, first_seconds: float, rest_seconds: float) -> None:
    """Count nothing."""


def unknown(config: Mapping[str, Any], name: str) -> str | None:
    """Recognize no model."""
    return None


def unknown_place(place: Path) -> str | None:
    """Recognize no folder and no file."""
    return None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Kind:
    """Task of a model: chat, speech, … Kinds are compared by identity."""

    name: str
    """Name of the section in the manifest, and `kind` in replies."""
    description: str
    """Description of the section, for the schema."""
    options: type[EntryOptions]
    """Options of every entry of the section; their `section` is the name."""
    backends: Mapping[str, type[EntryOptions]]
    """Options of each backend, by backend name. One of them is `echo`."""
    usual_backend: str
    """Backend for `localapi add` if only the kind of a model is known."""
    variables: Variables | None = None
    nested: Mapping[type[BaseModel], str] = field(default_factory=dict)
    """Classes inside the options that the reference describes in sections of their own, with the headings."""
    endpoints: tuple[str, ...] = ()
    """Modules with `routes(registry)`, which returns a Quart blueprint, and OPERATIONS for the OpenAPI document."""
    metrics: tuple[Metric, ...] = ()
    """Metrics of this kind, in addition to those of every model."""
    count: Callable[[Counters, str, Finished, float, float], None] = count_nothing
    """Count a model's complete response, given the seconds to its first event and from there to its end."""
    operation: str | None = None
    """OpenTelemetry's name for the operation of such models, if it is not the kind's name."""
    input: tuple[str, ...] = ("text",)
    """Media that such models accept: text, image, audio."""
    output: tuple[str, ...] = ("text",)
    """Media that they return."""
    model: type[ModelObject] = ModelObject
    """Struct that describes a model of this kind in `/v1/models`."""
    recognize: Callable[[Mapping[str, Any], str], str | None] = unknown
    """Return the backend for a model with this config.json and name, or None if it is not of this kind."""
    recognize_place: Callable[[Path], str | None] = unknown_place
    """Return the backend for a folder without config.json, or for a file; None if it is not of this kind."""

    def described(self, said: Mapping[str, Any]) -> ModelObject | None:
        """Return a model from another localapi's description; None if it is described in another way."""
        try:
            return convert(said, self.model)
        except ValidationError:
            return None

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<Kind {self.name}>"


def by_name(*options: type[EntryOptions]) -> dict[str, type[EntryOptions]]:
    """Return the options of backends by the name that each declares as its `backend`."""
    return {get_args(each.model_fields["backend"].annotation)[0]: each for each in options}
