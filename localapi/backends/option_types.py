"""Types and descriptions that the options of several backends share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from localapi.worker.protocol import ReasoningFormatName

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\s\x00-\x1f](.*[^\s\x00-\x1f])?$")]
Revision = Annotated[str | None, Field(description="Branch, tag or commit of the repository.", examples=["main"])]
Install = Annotated[
    Literal["manual", "auto"],
    Field(
        description="If the backend's environment is missing: manual reports it, auto installs it at the first load."
    ),
]
ContextLength = Annotated[
    int | None,
    Field(
        ge=16,
        description="Maximum tokens of prompt and response together. Default: the model's own limit.",
        examples=[8192],
    ),
]
ReasoningFormat = Annotated[
    ReasoningFormatName,
    Field(
        description="Format of the model's reasoning. auto: as its template and vocabulary show; none: reasoning is "
        "returned as text.",
        examples=["think"],
    ),
]
MaxBatch = Annotated[
    int,
    Field(
        ge=1,
        le=512,
        description="Maximum responses generated concurrently; further requests are queued.",
        examples=[16],
    ),
]
KVCacheMB = Annotated[
    int | None,
    Field(
        ge=1,
        description="Memory for running conversations; further requests are queued. Default: half of the memory "
        "that the model leaves.",
        examples=[4096],
    ),
]
MaxStallMS = Annotated[
    int,
    Field(
        ge=10,
        le=60_000,
        description="Maximum delay of running responses by a new prompt, in milliseconds.",
        examples=[50],
    ),
]
PrefixCacheMB = Annotated[
    int,
    Field(
        ge=0,
        description="Memory for prompt prefixes, so that the next turn of a conversation does not recompute them.",
        examples=[4096],
    ),
]


class StrictModel(BaseModel):
    """Base of everything in the manifest: immutable, without type conversions and without unknown keys."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, defer_build=True)


def model_field(example: str) -> Any:
    """Return the description of an option `path` that names a model."""
    return Field(min_length=1, description="Folder, or Hugging Face repository (owner/name).", examples=[example])
