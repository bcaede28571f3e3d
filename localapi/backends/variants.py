"""Variants of a chat model: further names with their own defaults and locks, on the one model that is loaded."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from localapi.backends.names import Name
from localapi.backends.parameters import ChatParameters


class VariantParameters(ChatParameters):
    """Parameters of a chat answer, and the system prompt; None if unset."""

    system: Annotated[
        str | None,
        Field(
            min_length=1,
            description="System prompt. Among the defaults, for conversations without one; locked, instead of theirs.",
            examples=["Answer in one sentence."],
        ),
    ] = None


class VariantOptions(BaseModel):
    """One more name for a model, with what is special about it."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, defer_build=True)

    aliases: Annotated[
        list[Name], Field(description="Additional names for this variant in requests.", examples=[["gpt-4o"]])
    ] = []
    description: Annotated[
        str | None, Field(description="Shown in the model list instead of the entry's.", examples=["Thinks first."])
    ] = None
    defaults: Annotated[
        VariantParameters,
        Field(
            description="Request parameters that apply unless a request sets them, before the entry's own defaults.",
            examples=[{"temperature": 0.2, "system": "Answer in one sentence."}],
        ),
    ] = VariantParameters()
    locked: Annotated[
        VariantParameters,
        Field(
            description="Request parameters that override the request, before the entry's own locks.",
            examples=[{"reasoning_effort": "none"}],
        ),
    ] = VariantParameters()
