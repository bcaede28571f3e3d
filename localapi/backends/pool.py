"""The backend pool: one name for several entries. Which of them answers a request is decided when it comes.

A pool loads nothing and answers nothing itself: `runtime.pool` leases its members as their own names do.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from localapi.backends.choice import Choose
from localapi.backends.option_types import StrictModel
from localapi.backends.options import Duration, EntryOptions, Name, RunsIn


class GiveUpAfter(StrictModel):
    """Time limits after which a request goes to the next member."""

    connect: Annotated[
        Duration,
        Field(description="To accept a connection, if the member is on another server.", examples=["2s"]),
    ] = 5.0
    first_token: Annotated[
        Duration | None,
        Field(
            description="To send the first part of its answer, with its queue and its loading. Default: no limit.",
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
            description="Ids or aliases of the entries that answer.",
            examples=[["local", "cloud"], ["local"]],
        ),
    ]
    choose: Annotated[
        Choose,
        Field(
            description="Who answers: the first of the list that can, the least busy one, or the one that answered the "
            "conversation before.",
            examples=["sticky"],
        ),
    ] = "in-order"
    spill_over_at: Annotated[
        int | None,
        Field(
            ge=1,
            description="Requests at a member, waiting ones included, from which on others are preferred. Default: "
            "when its queue is full.",
            examples=[8],
        ),
    ] = None
    give_up_after: Annotated[
        GiveUpAfter,
        Field(
            description="How long a member may take before the next one is asked.",
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
    """Options of every entry that only its members can have."""

    @property
    def runs_in(self) -> RunsIn:
        return "members"


class ChatPool(PoolOptions):
    """Options of a chat model that is one name for several."""

    section = "chat"
    backend: Annotated[
        Literal["pool"], Field(description="One name for several chat models, which have all other options.")
    ]


class SpeechPool(PoolOptions):
    """Options of a speech model that is one name for several."""

    section = "speech"
    backend: Annotated[
        Literal["pool"], Field(description="One name for several speech models, which have all other options.")
    ]


class EmbeddingPool(PoolOptions):
    """Options of an embedding model that is one name for several."""

    section = "embedding"
    backend: Annotated[
        Literal["pool"],
        Field(description="One name for several places of the same model, which have all other options."),
    ]


class RerankPool(PoolOptions):
    """Options of a rerank model that is one name for several."""

    section = "rerank"
    backend: Annotated[
        Literal["pool"], Field(description="One name for several rerank models, which have all other options.")
    ]


class TranscriptionPool(PoolOptions):
    """Options of a transcription model that is one name for several."""

    section = "transcription"
    backend: Annotated[
        Literal["pool"], Field(description="One name for several transcription models, which have all other options.")
    ]
