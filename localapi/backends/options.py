"""Options that every entry of the manifest has, whatever its backend.

A backend's options are one frozen pydantic class. The fields declared here and in the class of a section (the one that
sets `section`) are *settings*, applied to a loaded model in place. Every field that a backend adds is part of the
entry's *identity*: changing it loads another model.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from localapi.backends.engine import Engine, ReportLoading
from localapi.backends.model_path import folder_at
from localapi.backends.option_types import Name as Name  # noqa: PLC0414  # most options import it from here
from localapi.backends.option_types import StrictModel
from localapi.backends.parameters import TEXT, ChatParameters, VariantOptions, VariantParameters
from localapi.worker.protocol import Capabilities

FILES_FACTOR = 1.2
"""Memory of a loaded model per byte of weights: the weights themselves, and the memory for computing."""
FOREVER = float("inf")
DEFAULT_STALL_SECONDS = 120.0
MAX_REPLICAS = 64
_UNIT_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(value: object) -> float:
    """Return seconds for 90, "90s", "15m", "1.5h", "2d" or "forever" (infinity). Raise ValueError for anything else."""
    if value == "forever":
        return FOREVER
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", value)):
        return float(match[1]) * _UNIT_SECONDS[match[2]]
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value)
    raise ValueError('should be a duration such as 30s, 15m, 2h, 0 (at once) or "forever"')


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": r"^(\d+(\.\d+)?\s*[smhd]?|forever)$"},
            ]
        }
    ),
]
_UNIT_BYTES = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def parse_memory(value: object) -> int | None:
    """Return bytes for 8000000000, "8GB", "512 MB" or "75%" (of the memory). Raise ValueError for anything else."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    size = 0.0
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])i?)?B", value, re.IGNORECASE)):
        size = float(match[1]) * _UNIT_BYTES[(match[2] or "").lower()]
    elif isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value)):
        size = float(match[1]) / 100 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 1 <= size < FOREVER:
        return int(size)
    raise ValueError("should be an amount of memory such as 8GB, 512MB, 75% (of the machine's) or a number of bytes")


MemorySize = Annotated[
    int | None,
    BeforeValidator(parse_memory),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": r"^\d+(\.\d+)?\s*([KMGTkmgt]i?)?[Bb]$|^\d+(\.\d+)?\s*%$"},
                {"type": "null"},
            ]
        }
    ),
]


class ReplicaLimits(StrictModel):
    """Bounds on the number of engines of one entry."""

    min: Annotated[
        int,
        Field(ge=1, le=MAX_REPLICAS, description="Engines that are always loaded once the first one is.", examples=[2]),
    ] = 1
    max: Annotated[
        int,
        Field(ge=1, le=MAX_REPLICAS, description="Maximum engines, loaded while requests are queued.", examples=[4]),
    ] = 1
    idle: Annotated[
        Duration, Field(description="Unload engines beyond `min` after this time without a request.", examples=["5m"])
    ] = 60.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"should have a max of at least min ({self.min})")
        return self


RunsIn = Literal["server", "worker", "program", "upstream", "node", "members"]
"""Kind of place for a model: the server's own process, a process that it starts, another server, a node of a cluster,
or the members of a pool."""
OptionPath = str | tuple[str | int, ...]
FolderOf = Callable[[OptionPath], Path]


class PathProblem(ValueError):
    """A path in the manifest is wrong.

    `field` is the option that contains the path, or the keys that lead to a nested one: ("voices", "me", "ref_audio").
    """

    def __init__(self, field: OptionPath, message: str) -> None:
        super().__init__(message)
        self.field = field


def located_folder(field: OptionPath, path: str, folder_of: FolderOf) -> str:
    """Return the absolute path of a folder that an option names, with links resolved. Raise PathProblem."""
    try:
        return str(folder_at(path, folder_of(field)))
    except ValueError as error:
        raise PathProblem(field, str(error)) from error


@dataclass(frozen=True)
class Identity:
    """Everything that decides what is loaded. Two entries with equal identities are the same model."""

    backend: str
    options: Mapping[str, Any]
    """Fields of the backend itself, as plain values with resolved paths."""


class EntryOptions(StrictModel):
    """One entry as written in the manifest."""

    section: ClassVar[str]
    """Section of the manifest; also the name of the kind."""
    worker_bytes: ClassVar[int] = 0
    """Memory of a worker without weights (interpreter and libraries); 0 if there is no worker."""
    is_pool: ClassVar[bool] = False
    """True for a pool, which loads nothing itself: it is a name for other entries."""

    aliases: Annotated[
        list[Name], Field(description="Additional names for this model in requests.", examples=[["gpt-4o-mini"]])
    ] = []
    description: Annotated[str | None, Field(description="Shown in the model list.", examples=["Small and quick."])] = (
        None
    )
    preload: Annotated[bool, Field(description="Load when the server starts, not at the first request.")] = False
    pin: Annotated[
        bool,
        Field(description="Load when the server starts, and keep loaded despite keep_alive and memory_budget."),
    ] = False
    keep_alive: Annotated[
        Duration | None,
        Field(
            description="Unload after this time without a request: 30s, 15m, 0 (at once), forever.",
            examples=["1h"],
        ),
    ] = None
    max_keep_alive: Annotated[
        Duration | None,
        Field(
            description="Longest keep_alive that a request may set; longer ones are shortened. Default: the server's.",
            examples=["1h"],
        ),
    ] = None
    max_concurrent: Annotated[
        int | None,
        Field(ge=1, description="Maximum requests running concurrently; further requests are queued.", examples=[4]),
    ] = None
    max_waiting: Annotated[
        int | None,
        Field(
            ge=0, description="Maximum requests in the queue; further ones get a 429. null: no limit.", examples=[16]
        ),
    ] = 256
    queue_timeout_seconds: Annotated[
        float | None,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Time limit in the queue, after which a request gets a 429. Default: no limit.",
            examples=[60],
        ),
    ] = None
    request_timeout_seconds: Annotated[
        float | None,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Time limit for the model to work on a request, after which it gets a 504. Default: no limit.",
            examples=[600],
        ),
    ] = None
    stall_seconds: Annotated[
        float | None,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="End a worker that, for this long, makes no progress or computes without a request; null: "
            "never.",
            examples=[300],
        ),
    ] = DEFAULT_STALL_SECONDS
    swap: Annotated[
        Literal["warm", "cold"],
        Field(
            description="How to replace a loaded model: warm loads the new one first, cold unloads the old one first."
        ),
    ] = "warm"

    replicas: Annotated[
        Annotated[int, Field(ge=1, le=MAX_REPLICAS)] | ReplicaLimits | None,
        Field(
            description="Load the same model several times: a fixed number, or between min and max depending on the "
            "queue.",
            examples=[{"min": 1, "max": 4}],
        ),
    ] = None

    def identity(self) -> Identity:
        """Return the part of the entry that decides what is loaded."""
        backend: str = self.backend  # type: ignore[attr-defined]  # every member of the union declares it
        return Identity(backend, self.model_dump(exclude={"backend", *self.setting_names()}))

    @classmethod
    def setting_names(cls) -> tuple[str, ...]:
        """Return the names of the options that can change while the model stays loaded."""
        of_section = next(each for each in cls.__mro__ if "section" in vars(each))
        return tuple(of_section.model_fields)  # type: ignore[attr-defined]  # an EntryOptions

    @property
    def wants_loading(self) -> bool:
        """True if the model should be loaded before a request needs it."""
        return self.preload or self.pin

    @property
    def replica_limits(self) -> ReplicaLimits | None:
        """Bounds on the number of engines; None for one engine, as for entries without workers."""
        if self.replicas is None or not self.can_have_replicas():
            return None
        if isinstance(self.replicas, int):
            return ReplicaLimits(min=self.replicas, max=self.replicas)
        return self.replicas

    @classmethod
    def can_have_replicas(cls) -> bool:
        """Return True if loading the model again adds computing capacity."""
        return cls.worker_bytes > 0

    @property
    def backend_name(self) -> str:
        """Backend that answers; differs from `backend` if the manifest leaves the choice open (`auto`)."""
        return self.identity().backend

    @property
    def batch_limit(self) -> int | None:
        """Maximum requests that the engine answers concurrently, queueing more; None if it does not queue."""
        return None

    @property
    def processes(self) -> int:
        """Number of workers that the model needs."""
        return 1

    def located(self, folder_of: FolderOf) -> EntryOptions:
        """Return this entry with absolute, checked paths, and with every open choice made.

        `folder_of` returns the folder that relative paths in an option start from. Raise PathProblem for an invalid
        path.
        """
        return self

    @property
    def is_remote(self) -> bool:
        """True if the model is on another machine: it takes no memory here, and its files need not be here."""
        return False

    @property
    def runs_in(self) -> RunsIn:
        """Kind of place in which the loaded model runs."""
        if self.is_remote:
            return "node"
        return "worker" if self.worker_bytes else "server"

    @property
    def runs_at(self) -> str | None:
        """Name of that place, if known before the model is loaded: a program, or a host."""
        return None

    def on_cluster(self, address: str | None) -> Self:
        """Return this entry for a manifest with a cluster at this address, or without one."""
        return self

    def files(self) -> tuple[Path, ...]:
        """Return the files that a located entry depends on. If one changes, the manifest is reloaded."""
        return ()

    def weight_files(self) -> Iterable[Path]:
        """Return the files of a located entry that get loaded into memory, if they are on this machine. Blocks."""
        return ()

    def stated_memory(self) -> int | None:
        """Return the bytes of memory that the manifest states for a model; None if its files determine them."""
        return None

    def obstacle(self) -> str | None:
        """Return why a located entry cannot be loaded on this machine, for people; None if nothing is known. Blocks."""
        return None

    def repositories(self) -> tuple[tuple[str, str | None], ...]:
        """Return the Hugging Face repositories that a located entry needs, each with its revision."""
        return ()

    def growth(self) -> float:
        """Return the bytes of memory that each byte of the weight files takes. Blocks."""
        return 1.0

    def in_bounds(self) -> Self:
        """Return this entry without options that take more memory than its files, for use with a memory budget."""
        return self

    async def start(self, name: str, report: ReportLoading) -> Engine:
        """Load the model and report progress to `report`. Raise `errors.LoadFailed`. `name` is for logs."""
        raise NotImplementedError


def _over(lower: ChatParameters, upper: VariantParameters) -> VariantParameters:
    """Return parameters overridden by others."""
    said = {**lower.model_dump(exclude_none=True), **upper.model_dump(exclude_none=True)}
    return VariantParameters.model_validate(said)


class ChatOptions(EntryOptions):
    """Entry of the section `chat`."""

    section = "chat"
    honours: ClassVar[frozenset[str]] = TEXT
    """Names of ChatParameters, TEXT_FEATURES and MEDIA that the backend honours. Others are refused or reported."""
    forwards: ClassVar[bool] = False
    """True if the backend forwards a request as the client wrote it, unknown fields included, to a server with OpenAI's
    API. That server then judges what cannot be interpreted here."""
    unsupported: Annotated[
        Literal["error", "warn"],
        Field(
            description="If the backend does not support a parameter: refuse the request, or name it in a reply header."
        ),
    ] = "error"
    defaults: Annotated[
        ChatParameters,
        Field(
            description="Request parameters that apply unless a request sets them.",
            examples=[{"temperature": 0.7, "max_tokens": 1024}],
        ),
    ] = ChatParameters()
    locked: Annotated[
        ChatParameters,
        Field(description="Request parameters that override the request.", examples=[{"reasoning_effort": "none"}]),
    ] = ChatParameters()

    variants: Annotated[
        dict[Name, VariantOptions],
        Field(
            description="Further names for the same loaded model, each with its own defaults and locks. "
            "See docs/writing-manifests.md.",
            examples=[{"terse": {"defaults": {"max_tokens": 100}, "locked": {"reasoning_effort": "none"}}}],
        ),
    ] = {}

    @field_validator("defaults", "locked")
    @classmethod
    def _honoured(cls, parameters: ChatParameters) -> ChatParameters:
        for name in parameters.model_dump(exclude_none=True):
            if name not in cls.honours and name != "system":
                raise ValueError(f"should contain only parameters that the backend supports; {name} is not supported")
        return parameters

    @field_validator("variants")
    @classmethod
    def _variants_honoured(cls, variants: dict[str, VariantOptions]) -> dict[str, VariantOptions]:
        for variant in variants.values():
            cls._honoured(variant.defaults)
            cls._honoured(variant.locked)
        return variants

    def as_variant(self, name: str) -> Self:
        """Return the options of a variant; what it does not set comes from the entry."""
        variant = self.variants[name]
        changes: dict[str, object] = {
            "aliases": variant.aliases,
            "description": self.description if variant.description is None else variant.description,
            "defaults": _over(self.defaults, variant.defaults),
            "locked": _over(self.locked, variant.locked),
            "variants": {},
        }
        return self.model_copy(update=changes)

    def located(self, folder_of: FolderOf) -> ChatOptions:
        return self

    def expected(self) -> Capabilities:
        """Return what is known of a located entry's model before it is loaded."""
        return Capabilities()

    @property
    def answers_alone(self) -> bool:
        """Return True if it is certain that the model answers requests one after the other."""
        return False

    @property
    def template(self) -> str | None:
        """Chat template of a located entry's model, if it is known."""
        return None
