"""Convert turns in Anthropic's format to messages for engines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from localapi.api.anthropic.turns import (
    AssistantBlock,
    AssistantTurn,
    DocumentBlock,
    ImageBlock,
    MediaSource,
    OtherBlock,
    RedactedThinkingBlock,
    ResultBlock,
    SearchResultBlock,
    SystemTurn,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    Turn,
    UserBlock,
    UserTurn,
)
from localapi.api.message_draft import MessageDraft
from localapi.errors import InvalidRequest
from localapi.worker import protocol
from localapi.worker.protocol import FunctionCall, TextPart

BILLING: Final = "x-anthropic-billing-header:"
"""Start of the block in Claude Code's system prompt that is meant for Anthropic's billing and differs in every request.
"""


class Conversation:
    """Messages of a body. Consecutive turns of one role are merged, as Anthropic defines it."""

    def __init__(self) -> None:
        self._found: list[MessageDraft] = []
        self.ignored: list[str] = []
        """Blocks that have no effect."""
        self.images: list[str] = []
        """Places of images in the body."""

    @property
    def messages(self) -> list[protocol.Message]:
        """Messages in the form that engines accept."""
        return [message.neutral() for message in self._found]

    @property
    def continues(self) -> bool:
        """True if the response continues the last message."""
        return bool(self._found) and self._found[-1].role == "assistant"

    def read(self, system: str | list[TextBlock], turns: Sequence[Turn]) -> None:
        """Read the system prompt and the turns. Raise InvalidRequest."""
        self._read_system("system", system)
        for at, turn in enumerate(turns):
            place = f"messages[{at}]"
            match turn:
                case SystemTurn():
                    self._read_system(f"{place}.content", turn.content)
                case UserTurn():
                    self._read_user(f"{place}.content", turn.content)
                case AssistantTurn():
                    self._read_assistant(f"{place}.content", turn.content)
        last = self._found[-1] if self._found else None
        if last is not None and last.role == "assistant" and not (last.parts or last.calls or last.thoughts):
            self._found.pop()  # the response has no beginning to continue

    def _last(self, role: str) -> MessageDraft:
        if not self._found or self._found[-1].role != role:
            self._found.append(MessageDraft(role))
        return self._found[-1]

    def _read_system(self, place: str, content: str | list[TextBlock]) -> None:
        for at, text in enumerate([content] if isinstance(content, str) else [block.text for block in content]):
            if text.startswith(BILLING):
                self.ignored.append(f"{place}[{at}]")
            elif text:
                self._last("system").parts.append(TextPart(text))

    def _read_user(self, place: str, content: str | list[UserBlock]) -> None:
        if isinstance(content, str):
            self._last("user").parts.append(TextPart(content))
            return
        for at, block in enumerate(content):
            where = f"{place}[{at}]"
            if isinstance(block, ToolResultBlock):
                parts = self._result(where, block)
                self._found.append(MessageDraft("tool", parts, call_id=block.tool_use_id))
            else:
                self._last("user").parts.extend(self._parts(where, block))

    def _read_assistant(self, place: str, content: str | list[AssistantBlock]) -> None:
        message = self._last("assistant")
        if isinstance(content, str):
            message.parts += [TextPart(content)] if content else []
            return
        for at, block in enumerate(content):
            match block:
                case TextBlock():
                    message.parts.append(TextPart(block.text))
                case ThinkingBlock():
                    message.thoughts += [block.thinking] if block.thinking else []
                case RedactedThinkingBlock():
                    pass  # only Anthropic can read it
                case ToolUseBlock():
                    message.calls.append(FunctionCall(block.id, block.name, block.input))
                case OtherBlock():  # output of a tool that Anthropic runs
                    self.ignored.append(f"{place}[{at}] ({block.type})")

    def _result(self, place: str, block: ToolResultBlock) -> list[protocol.Part]:
        """Return the result of a tool. Chat templates have no field for errors, so the text says that it is one."""
        parts: list[protocol.Part] = []
        if isinstance(block.content, str):
            parts.append(TextPart(block.content))
        else:
            for at, each in enumerate(block.content or ()):
                parts += self._parts(f"{place}.content[{at}]", each)
        if block.is_error:
            text = parts[0].text if parts and isinstance(parts[0], TextPart) else ""
            if not text.lower().startswith("error"):
                parts.insert(0, TextPart("Error:"))
        return parts

    def _parts(self, place: str, block: UserBlock | ResultBlock) -> Iterator[protocol.Part]:
        match block:
            case TextBlock():
                yield TextPart(block.text)
            case SearchResultBlock():
                yield TextPart("\n".join([block.title, block.source, *(each.text for each in block.content)]))
            case DocumentBlock():
                yield TextPart("\n".join(filter(None, [block.title, block.context, _text_of(block.source, place)])))
            case ImageBlock():
                self.images.append(f"{place}.type")
                yield protocol.ImagePart(_url_of(block.source, place))
            case _:
                raise _unsupported(f"Blocks of type {block.type!r}", f"{place}.type")


def _text_of(source: MediaSource, place: str) -> str:
    """Return the text of a document."""
    if source.type == "text" and source.data is not None:
        return source.data
    if source.type == "content" and source.content is not None:
        content = source.content
        return content if isinstance(content, str) else "\n".join(block.text for block in content)
    raise _unsupported(f"Documents with a source of type {source.type!r}", f"{place}.source.type")


def _url_of(source: MediaSource, place: str) -> str:
    """Return the URL of an image, or a data: URL that contains it."""
    if source.type == "base64" and source.data is not None and source.media_type is not None:
        return f"data:{source.media_type};base64,{source.data}"
    if source.type == "url" and source.url is not None:
        return source.url
    raise _unsupported(f"Images with a source of type {source.type!r}", f"{place}.source.type")


def _unsupported(what: str, param: str) -> InvalidRequest:
    return InvalidRequest(f"{what} are not supported here. Send text.", param=param, code="unsupported_content")
