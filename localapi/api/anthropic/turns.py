"""Turns of a conversation in Anthropic's format, and the blocks of which they consist."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from localapi.api.openai.generation_request import BodyObject
from localapi.backends.parameters import FreeObject


class Block(BodyObject):
    """Part of a message."""

    cache_control: Any = None
    """Mark for the end of a cached prefix, which the server does not need."""


class TextBlock(Block):
    type: Literal["text"]
    text: str
    citations: Any = None


class MediaSource(BodyObject):
    """Source of an image or a document: the request, a URL, or Anthropic's storage."""

    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    content: str | list[TextBlock] | None = None


class ImageBlock(Block):
    type: Literal["image"]
    source: MediaSource


class DocumentBlock(Block):
    type: Literal["document"]
    source: MediaSource
    title: str | None = None
    context: str | None = None
    citations: Any = None


class SearchResultBlock(Block):
    type: Literal["search_result"]
    title: str
    source: str
    content: list[TextBlock]
    citations: Any = None


class ThinkingBlock(Block):
    type: Literal["thinking"]
    thinking: str
    signature: str | None = None


class RedactedThinkingBlock(Block):
    type: Literal["redacted_thinking"]
    data: str | None = None


class ToolUseBlock(Block):
    type: Literal["tool_use"]
    id: str
    name: str
    input: FreeObject
    caller: Any = None


class OtherBlock(Block):
    """Block of an unknown type."""

    type: str


def _type_among(*known: str) -> Any:
    """Return a function that finds a block's type: "other" if it is not a known one."""

    def type_of(value: Any) -> str:
        kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
        return kind if kind in known else "other"

    return Discriminator(type_of)


ResultBlock = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ImageBlock, Tag("image")]
    | Annotated[DocumentBlock, Tag("document")]
    | Annotated[SearchResultBlock, Tag("search_result")]
    | Annotated[OtherBlock, Tag("other")],
    _type_among("text", "image", "document", "search_result"),
]


class ToolResultBlock(Block):
    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[ResultBlock] | None = None
    is_error: bool | None = None


UserBlock = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ImageBlock, Tag("image")]
    | Annotated[DocumentBlock, Tag("document")]
    | Annotated[SearchResultBlock, Tag("search_result")]
    | Annotated[ToolResultBlock, Tag("tool_result")]
    | Annotated[OtherBlock, Tag("other")],
    _type_among("text", "image", "document", "search_result", "tool_result"),
]
AssistantBlock = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ThinkingBlock, Tag("thinking")]
    | Annotated[RedactedThinkingBlock, Tag("redacted_thinking")]
    | Annotated[ToolUseBlock, Tag("tool_use")]
    | Annotated[OtherBlock, Tag("other")],
    _type_among("text", "thinking", "redacted_thinking", "tool_use"),
]


class UserTurn(BodyObject):
    role: Literal["user"]
    content: str | list[UserBlock]


class AssistantTurn(BodyObject):
    role: Literal["assistant"]
    content: str | list[AssistantBlock]


class SystemTurn(BodyObject):
    role: Literal["system"]
    content: str | list[TextBlock]


Turn = Annotated[UserTurn | AssistantTurn | SystemTurn, Field(discriminator="role")]
