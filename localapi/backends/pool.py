"""The backend pool: one name for several entries. A member is chosen for each request when it arrives.

A pool loads and answers nothing itself: `runtime.pool` leases its members by their own names.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from localapi.backends.choice import Choose
from localapi.backends.option_types import StrictModel
from localapi.backends.options import Duration, EntryOptions, Name, RunsIn


class GiveUpAfter(StrictModel):
    """Time limits after which a request moves to the next member."""

    connect: Annotated[
        Duration,
        Field(description="Time limit for connecting to a member on another server.", examples=["2s"]),
    ] = 5.0
    first_token: Annotated[
        Duration | None,
        Field(
            description="Time limit for the first part of the response, including queueing and loading. Default: no "
            "limit.",
            examples=["30s"],
        ),
    ] = None


class PoolOptions(EntryOptions):
    """Options of the pools of all kinds."""

    is_pool: ClassVar[bool] = True
    of: Annotated[
        list[Name],
        Field(
            min_length=1,
            description="Ids or aliases of the members.",
            examples=[["local", "cloud"], ["local"]],
        ),
    ]
    choose: Annotated[
        Choose,
        Field(
            description="Which member answers: the first one available, the least busy one, or the one that answered "
            "the conversation before.",
            examples=["sticky"],
        ),
    ] = "in-order"
    spill_over_at: Annotated[
        int | None,
        Field(
            ge=1,
            description="Number of requests at a member, including waiting ones, from which others are preferred. "
            "Default: its full queue.",
            examples=[8],
        ),
    ] = None
    give_up_after: Annotated[
        GiveUpAfter,
        Field(
            description="Time limits of a member, after which the next one is asked.",
            examples=[{"connect": "2s", "first_token": "30s"}],
        ),
    ] = GiveUpAfter()
    for_members: ClassVar = (
        "preload",
        "pin",
        "keep_alive",
        "max_keep_alive",
        "stall_seconds",
        "swap",
        "request_timeout_seconds",
    )
    """Options of entries that only members can have."""

    @property
    def runs_in(self) -> RunsIn:
        return "members"


class ChatPool(PoolOptions):
    """Options of a pool of chat models."""

    section = "chat"
    backend: Annotated[
        Literal["pool"], Field(description="One name for several chat models; all other options are theirs.")
    ]


class SpeechPool(PoolOptions):
    """Options of a pool of speech models."""

    section = "speech"
    backend: Annotated[
        Literal["pool"], Field(description="One name for several speech models; all other options are theirs.")
    ]


class EmbeddingPool(PoolOptions):
    """Options of a pool of embedding models."""

    section = "embedding"
    backend: Annotated[
        Literal["pool"],
        Field(description="One name for several entries of the same model; all other options are theirs."),
    ]


class RerankPool(PoolOptions):
    """Options of a pool of rerank models."""

    section = "rerank"
    backend: Annotated[
        Literal["pool"], Field(description="One name for several rerank models; all other options are theirs.")
    ]


class TranscriptionPool(PoolOptions):
    """Options of a pool of transcription models."""

    section = "transcription"
    backend: Annotated[
        Literal["pool"], Field(description="One name for several transcription models; all other options are theirs.")
    ]
