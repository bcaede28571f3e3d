"""Items of a response during generation: each turns its parts into events, and ends in its final form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from localapi.api.logprobs import ChosenToken
from localapi.api.openai.custom_tools import custom_input
from localapi.api.openai.responses import wire
from localapi.api.openai.responses.items import sealed
from localapi.api.openai.responses.wire import (
    ArgumentsDelta,
    ArgumentsDone,
    ContentDelta,
    CustomToolCall,
    FunctionCall,
    InputDone,
    ItemEvent,
    ItemStatus,
    OutputItem,
    OutputMessage,
    OutputRefusal,
    OutputText,
    PartEvent,
    ReasoningDone,
    ReasoningItem,
    ReasoningText,
    RefusalDone,
    StreamEvent,
    SummaryDelta,
    SummaryDone,
    SummaryPartEvent,
    SummaryText,
    TextDelta,
    TextDone,
)
from localapi.http.replies import NumberedForm, event
from localapi.worker.protocol import Delta


class Writer(Protocol):
    """Incomplete item."""

    def begin(self) -> Iterator[StreamEvent]:
        """Yield its start."""

    def close(self, status: ItemStatus) -> Iterator[StreamEvent]:
        """Yield its end."""

    def item(self, status: ItemStatus) -> OutputItem:
        """Return the item in its current state."""


class ReasoningWriter:
    """Reasoning, as content or as a summary."""

    def __init__(self, item_id: str, index: int, *, summarized: bool, sealed: bool) -> None:
        self._id, self._index = item_id, index
        self._summarized, self._sealed = summarized, sealed
        self._pieces: list[str] = []

    def begin(self) -> Iterator[StreamEvent]:
        item = ReasoningItem(id=self._id, summary=[], content=UNSET if self._summarized else [])
        yield ItemEvent(type="response.output_item.added", output_index=self._index, item=item)
        of: dict[str, Any] = {"item_id": self._id, "output_index": self._index}
        if self._summarized:
            yield SummaryPartEvent(type="response.reasoning_summary_part.added", part=SummaryText(""), **of)
        else:
            yield PartEvent(type="response.content_part.added", part=ReasoningText(""), **of)

    def add(self, text: str) -> Iterator[StreamEvent]:
        """Yield the next text."""
        self._pieces.append(text)
        if self._summarized:
            yield SummaryDelta(item_id=self._id, output_index=self._index, delta=text)
        else:
            yield ContentDelta(
                type="response.reasoning_text.delta", item_id=self._id, output_index=self._index, delta=text
            )

    def close(self, status: ItemStatus) -> Iterator[StreamEvent]:
        text = "".join(self._pieces)
        of: dict[str, Any] = {"item_id": self._id, "output_index": self._index}
        if self._summarized:
            yield SummaryDone(text=text, **of)
            yield SummaryPartEvent(type="response.reasoning_summary_part.done", part=SummaryText(text), **of)
        else:
            yield ReasoningDone(text=text, **of)
            yield PartEvent(type="response.content_part.done", part=ReasoningText(text), **of)
        yield ItemEvent(type="response.output_item.done", output_index=self._index, item=self.item(status))

    def item(self, status: ItemStatus) -> OutputItem:
        text = "".join(self._pieces)
        return ReasoningItem(
            id=self._id,
            status=status,
            summary=[SummaryText(text)] if self._summarized else [],
            content=UNSET if self._summarized else [ReasoningText(text)],
            encrypted_content=sealed(text) if self._sealed else UNSET,
        )


class MessageWriter:
    """Message of the model: text, a refusal, or both in turn."""

    def __init__(self, item_id: str, index: int) -> None:
        self._id, self._index = item_id, index
        self._parts: list[OutputText | OutputRefusal] = []
        """Complete parts."""
        self._open: type[OutputText | OutputRefusal] | None = None
        self._pieces: list[str] = []
        self._tokens: list[ChosenToken] = []
        self._form: NumberedForm | None = None
        """Form of the events with text for the open part."""

    def begin(self) -> Iterator[StreamEvent]:
        item = OutputMessage(id=self._id, content=[])
        yield ItemEvent(type="response.output_item.added", output_index=self._index, item=item)

    def add(
        self, text: str, tokens: list[ChosenToken], kind: type[OutputText | OutputRefusal]
    ) -> Iterator[StreamEvent]:
        """Yield the next text."""
        if self._open is not kind:
            yield from self._close_part()
            self._open = kind
            part: OutputText | OutputRefusal = OutputText(text="") if kind is OutputText else OutputRefusal("")
            yield self._part_event("response.content_part.added", part)
        self._pieces.append(text)
        at = len(self._parts)
        if kind is OutputText:
            self._tokens += tokens
            yield TextDelta(item_id=self._id, output_index=self._index, content_index=at, delta=text, logprobs=tokens)
        else:
            yield ContentDelta(
                type="response.refusal.delta",
                item_id=self._id,
                output_index=self._index,
                content_index=at,
                delta=text,
            )

    def is_continued_by(self, delta: Delta) -> bool:
        """Return True if a delta is only text for the open part, as nearly all are."""
        if delta.choice or delta.reasoning or delta.refusal or delta.logprobs:
            return False
        return self._open is OutputText and delta.text != ""

    def more_text(self, text: str, number: int) -> bytes:
        """Return the bytes of the event that `add` yields for text of the open part."""
        self._pieces.append(text)
        if self._form is None:
            first = TextDelta(
                sequence_number=0,
                item_id=self._id,
                output_index=self._index,
                content_index=len(self._parts),
                delta="",
                logprobs=[],
            )
            self._form = NumberedForm(event(first, name=first.type), b"sequence_number", b"delta")
        return self._form.filled(number, text)

    def close(self, status: ItemStatus) -> Iterator[StreamEvent]:
        yield from self._close_part()
        yield ItemEvent(type="response.output_item.done", output_index=self._index, item=self.item(status))

    def item(self, status: ItemStatus) -> OutputItem:
        unfinished = [] if self._open is None else [self._part()]
        return OutputMessage(id=self._id, status=status, content=[*self._parts, *unfinished])

    def _part(self) -> OutputText | OutputRefusal:
        text = "".join(self._pieces)
        return OutputText(text=text, logprobs=self._tokens) if self._open is OutputText else OutputRefusal(text)

    def _part_event(self, kind: wire.PartType, part: OutputText | OutputRefusal) -> PartEvent:
        return PartEvent(
            type=kind, item_id=self._id, output_index=self._index, content_index=len(self._parts), part=part
        )

    def _close_part(self) -> Iterator[StreamEvent]:
        if self._open is None:
            return
        part, at = self._part(), len(self._parts)
        if isinstance(part, OutputText):
            yield TextDone(
                item_id=self._id,
                output_index=self._index,
                content_index=at,
                text=part.text,
                logprobs=part.logprobs,
            )
        else:
            yield RefusalDone(item_id=self._id, output_index=self._index, content_index=at, refusal=part.refusal)
        yield self._part_event("response.content_part.done", part)
        self._parts.append(part)
        self._open, self._pieces, self._tokens, self._form = None, [], [], None


class CallWriter:
    """Function call."""

    def __init__(self, item_id: str, index: int, call_id: str, name: str, namespace: str | UnsetType = UNSET) -> None:
        self._index = index
        self._call = FunctionCall(id=item_id, call_id=call_id, name=name, namespace=namespace, arguments="")
        self._pieces: list[str] = []

    def begin(self) -> Iterator[StreamEvent]:
        yield ItemEvent(type="response.output_item.added", output_index=self._index, item=self._call)

    def add(self, text: str) -> Iterator[StreamEvent]:
        """Yield the next text of the arguments."""
        self._pieces.append(text)
        yield ArgumentsDelta(
            type="response.function_call_arguments.delta",
            item_id=self._call.id,
            output_index=self._index,
            delta=text,
        )

    def close(self, status: ItemStatus) -> Iterator[StreamEvent]:
        item = self.item(status)
        yield ArgumentsDone(
            item_id=self._call.id, output_index=self._index, name=self._call.name, arguments=item.arguments
        )
        yield ItemEvent(type="response.output_item.done", output_index=self._index, item=item)

    def item(self, status: ItemStatus) -> FunctionCall:
        return replace(self._call, status=status, arguments="".join(self._pieces))


class CustomCallWriter:
    """Call of a custom tool. Its text is known once the surrounding JSON is complete."""

    def __init__(self, item_id: str, index: int, call_id: str, name: str, namespace: str | UnsetType = UNSET) -> None:
        self._index = index
        self._call = CustomToolCall(id=item_id, call_id=call_id, name=name, namespace=namespace, input="")
        self._pieces: list[str] = []

    def begin(self) -> Iterator[StreamEvent]:
        yield ItemEvent(type="response.output_item.added", output_index=self._index, item=self._call)

    def add(self, text: str) -> Iterator[StreamEvent]:
        """Add the next text of the arguments."""
        self._pieces.append(text)
        yield from ()

    def close(self, status: ItemStatus) -> Iterator[StreamEvent]:
        item = self.item(status)
        of: dict[str, Any] = {"item_id": self._call.id, "output_index": self._index}
        yield ArgumentsDelta(type="response.custom_tool_call_input.delta", delta=item.input, **of)
        yield InputDone(input=item.input, **of)
        yield ItemEvent(type="response.output_item.done", output_index=self._index, item=item)

    def item(self, status: ItemStatus) -> CustomToolCall:
        return replace(self._call, status=status, input=custom_input("".join(self._pieces)))
