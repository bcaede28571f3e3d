"""Items of a request's `input`, and the conversation that they form."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Discriminator, Field, Tag

from localapi.api.message_draft import MessageDraft
from localapi.api.openai.chat_request import InputAudio
from localapi.api.openai.custom_tools import CUSTOM_INPUT
from localapi.api.openai.generation_request import BodyObject
from localapi.errors import InvalidRequest
from localapi.worker import protocol
from localapi.worker.protocol import FunctionCall, TextPart

SEALED: Final = "localapi1:"
"""Prefix of `encrypted_content` in our reasoning. The rest is the reasoning in base64: it is hidden from nobody, and a
client that stores nothing else returns it for the model."""

INSTRUCTING: Final = frozenset({"system", "developer"})
"""Roles of messages with instructions."""


class Item(BodyObject):
    """Item of a conversation."""

    id: str | None = None
    status: str | None = None


class TextContent(BodyObject):
    type: Literal["input_text", "output_text", "text", "summary_text", "reasoning_text"]
    text: str
    annotations: Any = None
    logprobs: Any = None
    prompt_cache_breakpoint: Any = None


class RefusalContent(BodyObject):
    type: Literal["refusal"]
    refusal: str


class ImageContent(BodyObject):
    type: Literal["input_image"]
    image_url: str | None = None
    file_id: str | None = None
    detail: str | None = None
    prompt_cache_breakpoint: Any = None


class AudioContent(BodyObject):
    type: Literal["input_audio"]
    input_audio: InputAudio


class OtherContent(BodyObject):
    """Part of an unknown type."""

    type: str


_TEXTS: Final = ("input_text", "output_text", "text", "summary_text", "reasoning_text")
_OTHER_CONTENT: Final = ("refusal", "input_image", "input_audio")


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)


def _content_tag(value: Any) -> str:
    kind = _field(value, "type")
    if kind in _TEXTS:
        return "text"
    return kind if kind in _OTHER_CONTENT else "other"


Content = Annotated[
    Annotated[TextContent, Tag("text")]
    | Annotated[RefusalContent, Tag("refusal")]
    | Annotated[ImageContent, Tag("input_image")]
    | Annotated[AudioContent, Tag("input_audio")]
    | Annotated[OtherContent, Tag("other")],
    Discriminator(_content_tag),
]


class MessageItem(Item):
    type: Literal["message"] | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Content]
    phase: str | None = None


class FunctionCallItem(Item):
    type: Literal["function_call"]
    call_id: Annotated[str, Field(min_length=1)]
    name: Annotated[str, Field(min_length=1)]
    arguments: str
    namespace: str | None = None
    caller: Any = None


class FunctionOutputItem(Item):
    type: Literal["function_call_output"]
    call_id: Annotated[str, Field(min_length=1)]
    output: str | list[Content]
    caller: Any = None
    name: str | None = None
    namespace: str | None = None


class CustomCallItem(Item):
    type: Literal["custom_tool_call"]
    call_id: Annotated[str, Field(min_length=1)]
    name: Annotated[str, Field(min_length=1)]
    input: str
    namespace: str | None = None
    caller: Any = None


class CustomOutputItem(Item):
    type: Literal["custom_tool_call_output"]
    call_id: Annotated[str, Field(min_length=1)]
    output: str | list[Content]
    caller: Any = None
    name: str | None = None


class ReasoningInputItem(Item):
    type: Literal["reasoning"]
    summary: list[TextContent] | None = None
    content: list[TextContent] | None = None
    encrypted_content: str | None = None


class ItemReference(Item):
    """Reference to an item of a stored response."""

    type: Literal["item_reference"] | None = None
    id: str


class OtherItem(Item):
    """Item of a tool that OpenAI runs, or of an unknown type."""

    type: str


_KNOWN: Final = (
    *("message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output"),
    *("reasoning", "item_reference"),
)


def _item_tag(value: Any) -> str:
    kind = _field(value, "type")
    if kind is None:
        return "item_reference" if _field(value, "role") is None and _field(value, "id") is not None else "message"
    return kind if kind in _KNOWN else "other"


InputItem = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[FunctionOutputItem, Tag("function_call_output")]
    | Annotated[CustomCallItem, Tag("custom_tool_call")]
    | Annotated[CustomOutputItem, Tag("custom_tool_call_output")]
    | Annotated[ReasoningInputItem, Tag("reasoning")]
    | Annotated[ItemReference, Tag("item_reference")]
    | Annotated[OtherItem, Tag("other")],
    Discriminator(_item_tag),
]


def in_namespace(name: str, namespace: str | None) -> str:
    """Return the name by which engines know a tool, which may be in a namespace."""
    return name if namespace is None else f"{namespace}__{name}"


class Conversation:
    """Messages that items form. Consecutive thoughts, texts and calls of the assistant are one message."""

    def __init__(self) -> None:
        self._turns: list[MessageDraft] = []
        self._calls: set[str] = set()
        self.ignored: list[str] = []
        """Items that have no effect."""
        self.media: dict[str, list[str]] = {}
        """Places of images and recordings, by medium."""

    @property
    def messages(self) -> list[protocol.Message]:
        """Messages in the form for engines."""
        return [turn.neutral() for turn in self._turns]

    def instruct(self, text: str) -> None:
        """Start with instructions."""
        self._turns.append(MessageDraft("system", [TextPart(text)]))

    def read(self, items: Sequence[InputItem], place: str) -> None:
        """Read items in order. Raise InvalidRequest. `place` is their place in the request."""
        for at, item in enumerate(items):
            self._read(item, f"{place}[{at}]")

    def _read(self, item: InputItem, where: str) -> None:
        match item:
            case MessageItem():
                self._message(item, f"{where}.content")
            case ReasoningInputItem():
                thought = _thought(item)
                if thought:
                    self._assistant(new=lambda turn: bool(turn.parts or turn.calls)).thoughts.append(thought)
            case FunctionCallItem():
                self._call(FunctionCall(item.call_id, in_namespace(item.name, item.namespace), item.arguments))
            case CustomCallItem():
                name = in_namespace(item.name, item.namespace)
                self._call(FunctionCall(item.call_id, name, {CUSTOM_INPUT: item.input}))
            case FunctionOutputItem() | CustomOutputItem():
                self._result(item, where)
            case ItemReference():
                raise InvalidRequest(
                    f"No stored response has an item with the id {item.id!r}. Send the item itself.",
                    param=f"{where}.id",
                    code="invalid_value",
                )
            case OtherItem():
                self.ignored.append(f"{where} ({item.type})")

    def _message(self, item: MessageItem, where: str) -> None:
        parts = self._parts(item.content, where)
        last = self._turns[-1] if self._turns else MessageDraft("")
        if item.role == "assistant":
            self._assistant(new=lambda turn: bool(turn.parts)).parts += parts
        elif item.role in INSTRUCTING and last.role in INSTRUCTING:
            last.parts += parts  # many templates know one such message, at the beginning
        else:
            self._turns.append(MessageDraft(item.role, list(parts)))

    def _assistant(self, *, new: Callable[[MessageDraft], bool]) -> MessageDraft:
        """Return the assistant's open turn, or a new one if there is none or `new` requires it."""
        if not self._turns or self._turns[-1].role != "assistant" or new(self._turns[-1]):
            self._turns.append(MessageDraft("assistant"))
        return self._turns[-1]

    def _call(self, call: FunctionCall) -> None:
        self._calls.add(call.id)
        self._assistant(new=lambda _: False).calls.append(call)

    def _result(self, item: FunctionOutputItem | CustomOutputItem, where: str) -> None:
        if item.call_id not in self._calls:
            raise InvalidRequest(
                f"No item before this one calls a tool with the call_id {item.call_id!r}. Send the call too, or "
                f"previous_response_id.",
                param=f"{where}.call_id",
            )
        self._turns.append(
            MessageDraft("tool", list(self._parts(item.output, f"{where}.output")), call_id=item.call_id)
        )

    def _parts(self, content: str | list[Content], place: str) -> Iterator[protocol.Part]:
        if isinstance(content, str):
            yield from [TextPart(content)] if content else []
            return
        for at, part in enumerate(content):
            where = f"{place}[{at}].type"
            match part:
                case TextContent():
                    yield TextPart(part.text)
                case RefusalContent():
                    yield TextPart(part.refusal)
                case ImageContent(image_url=str(url)):
                    self.media.setdefault("image", []).append(where)
                    yield protocol.ImagePart(url, part.detail)
                case AudioContent():
                    self.media.setdefault("audio", []).append(where)
                    data = base64.b64decode(part.input_audio.data)
                    yield protocol.AudioPart(data, part.input_audio.format)
                case _:
                    what = "Images that are files of OpenAI" if isinstance(part, ImageContent) else repr(part.type)
                    raise InvalidRequest(
                        f"Content of type {what} is not supported here. Send text.",
                        param=where,
                        code="unsupported_content",
                    )


def _thought(item: ReasoningInputItem) -> str:
    """Return the reasoning of the model: its text, otherwise the content of our encrypted_content."""
    for texts in (item.content, item.summary):
        if texts:
            return "\n".join(each.text for each in texts)
    return unsealed(item.encrypted_content or "")


def sealed(thought: str) -> str:
    """Return reasoning as opaque text."""
    return SEALED + base64.b64encode(thought.encode()).decode()


def unsealed(content: str) -> str:
    """Return the reasoning in opaque text; nothing if it is another server's."""
    if not content.startswith(SEALED):
        return ""
    try:
        return base64.b64decode(content.removeprefix(SEALED), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
