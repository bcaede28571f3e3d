"""Options that the models of several backends have, with one description for all of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from localapi.worker.protocol import ReasoningFormatName

Revision = Annotated[str | None, Field(description="Branch, tag or commit of the repository.", examples=["main"])]
ContextLength = Annotated[
    int | None,
    Field(
        ge=16,
        description="Maximum tokens of prompt and answer together. Default: the model's own limit.",
        examples=[8192],
    ),
]
ReasoningFormat = Annotated[
    ReasoningFormatName,
    Field(
        description="How the model marks its reasoning. auto: as its template and vocabulary show; none: "
        "reasoning stays text.",
        examples=["think"],
    ),
]
