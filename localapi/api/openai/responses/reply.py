"""One reply of `POST /v1/responses`: the engine's events as items, whole or as a stream of events."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from msgspec import UNSET

from localapi.api.answers import Answer
from localapi.api.logprobs import ChosenToken, chosen
from localapi.api.openai.responses import wire
from localapi.api.openai.responses.request import ENCRYPTED, InputTokensRequest, ResponsesRequest
from localapi.api.openai.responses.tools import offered
from localapi.api.openai.responses.wire import (
    ErrorEvent,
    ErrorEventDetails,
    Incomplete,
    OutputItem,
    OutputRefusal,
    OutputText,
    ResponseEvent,
    ResponseObject,
    Status,
    StreamEvent,
)
from localapi.api.openai.responses.writers import (
    CallWriter,
    CustomCallWriter,
    MessageWriter,
    ReasoningWriter,
    Writer,
)
from localapi.api.openai.wire import DONE
from localapi.backends.options import ChatOptions
from localapi.errors import ApiError
from localapi.http.replies import EVENT_STREAM, comment, event, told
from localapi.runtime.progress import Progress
from localapi.worker.protocol import Delta, Ended, Event, Finished, Relaxed, ToolArguments, ToolStart

ID: Final = "resp_"
Kind = TypeVar("Kind", bound=Writer)


class ResponsesReply:
    """One reply."""

    content_type = EVENT_STREAM

    def __init__(
        self,
        request: InputTokensRequest,
        content: Mapping[str, Any] | None = None,
        options: ChatOptions | None = None,
    ) -> None:
        """Create a reply. `content` is the body, which a response partly repeats; `options` are those of the entry."""
        token = secrets.token_hex(16)
        self.response = _begun(f"{ID}{token}", request, content or {}, options)
        self._token = token
        self.keep: Callable[[ResponseObject], None] = lambda _: None
        """Function that is called with the response when it is complete, or has failed after its start."""
        self._summarized = request.reasoning.summarized
        self._sealed = isinstance(request, ResponsesRequest) and ENCRYPTED in request.include
        self._offered = {tool.function.name: tool for tool in offered(request.tools)[0]}
        self._created = self._begun = False
        self._next_event = 0
        self._count = 0
        """Number of items begun."""
        self._writers: list[tuple[int, Writer]] = []
        """Incomplete items, with their places."""
        self._items: dict[int, OutputItem] = {}
        """Complete items, by place."""
        self._calls: dict[int, CallWriter | CustomCallWriter] = {}
        """Writers by the engine's number."""
        self._tokens: list[ChosenToken] = []
        """Tokens whose text has not arrived yet."""
        self._ended = Ended(0, 0, "stop")

    @property
    def model(self) -> str:
        """Id of the entry that answers."""
        return self.response.model

    @model.setter
    def model(self, model: str) -> None:
        self.response.model = model

    def whole(self, answers: Sequence[Answer], usage: Finished) -> ResponseObject:
        [answer, *_] = answers
        for item in (*_events_of(answer), usage):
            for _ in self.events_of(item):
                pass
        return self.response

    def render(self, item: Event) -> Iterable[bytes]:
        if isinstance(item, Delta) and self._writers and not self._tokens:
            writer = self._writers[-1][1]
            if isinstance(writer, MessageWriter) and writer.is_continued_by(item):
                self._next_event += 1
                return (writer.more_text(item.text, self._next_event - 1),)
        return self._rendered(item)

    def _rendered(self, item: Event) -> Iterator[bytes]:
        if isinstance(item, Relaxed):  # for a stream whose headers were sent before this was known
            yield comment({"relaxed": item.places})
        for each in self.events_of(item):
            yield self.sent(each)

    def progress(self, progress: Progress) -> bytes:
        return b"".join(map(self.sent, self.beginning())) + comment({"progress": progress.facts()})

    def error(self, error: ApiError) -> bytes:
        return b"".join(map(self.sent, self.failed(error)))

    def end(self) -> bytes:
        return DONE

    def sent(self, each: StreamEvent) -> bytes:
        """Return an event's bytes, with its number."""
        each.sequence_number = self._next_event
        self._next_event += 1
        return event(each, name=each.type)  # type: ignore[attr-defined]  # every event has one

    def queued(self) -> Iterator[StreamEvent]:
        """Yield the start of a response that runs in the background."""
        self._created = True
        self.response.status = "queued"
        yield ResponseEvent(type="response.created", response=self.response)
        yield ResponseEvent(type="response.queued", response=self.response)

    def beginning(self) -> Iterator[StreamEvent]:
        """Yield the start of the response, once."""
        if self._begun:
            return
        self._begun = True
        self.response.status = "in_progress"
        if not self._created:
            yield ResponseEvent(type="response.created", response=self.response)
        yield ResponseEvent(type="response.in_progress", response=self.response)

    def failed(self, error: ApiError) -> Iterator[StreamEvent]:
        """Yield the end of a response that cannot be completed."""
        yield from self.beginning()
        self.response.error = wire.failure(error)
        self._settle("failed")
        yield ResponseEvent(type="response.failed", response=self.response)
        details = ErrorEventDetails(told(error), error.type, error.param, error.reply_code)
        yield ErrorEvent(code=details.code, message=details.message, param=details.param, error=details)

    def cancel(self) -> None:
        """End the response in its current state."""
        self._settle("cancelled")

    def events_of(self, item: Event) -> Iterator[StreamEvent]:
        """Yield the client's events for an event of the engine."""
        match item:
            case Delta(choice=0, reasoning=True):
                yield from self._think(item.text)
            case Delta(choice=0):
                yield from self._say(item)
            case ToolStart(choice=0):
                yield from self._start_call(item)
            case ToolArguments(choice=0):
                yield from self._calls[item.index].add(item.text)
            case Ended(choice=0):
                self._ended = item
                yield from self.beginning()
                yield from self._close_all("incomplete" if item.reason == "length" else "completed")
            case Finished():
                yield from self._end(item)

    def _think(self, text: str) -> Iterator[StreamEvent]:
        writer = self._last(ReasoningWriter)
        if writer is None:
            yield from self._close_all("completed")
            writer = ReasoningWriter(self._new_id("rs"), self._count, summarized=self._summarized, sealed=self._sealed)
            yield from self._begin(writer)
        yield from writer.add(text)

    def _say(self, delta: Delta) -> Iterator[StreamEvent]:
        self._tokens += chosen(delta.logprobs)
        if not delta.text:
            return  # its tokens go with the next text
        writer = self._last(MessageWriter)
        if writer is None:
            yield from self._close_all("completed")
            writer = MessageWriter(self._new_id("msg"), self._count)
            yield from self._begin(writer)
        yield from writer.add(delta.text, self._tokens, OutputRefusal if delta.refusal else OutputText)
        self._tokens = []

    def _start_call(self, start: ToolStart) -> Iterator[StreamEvent]:
        if not self._calls or self._last(MessageWriter) or self._last(ReasoningWriter):
            yield from self._close_all("completed")
        writer: CallWriter | CustomCallWriter
        tool = self._offered.get(start.name)
        name = tool.name if tool is not None else start.name
        namespace = tool.namespace if tool is not None and tool.namespace is not None else UNSET
        if tool is not None and tool.custom:
            writer = CustomCallWriter(self._new_id("ctc"), self._count, start.call_id, name, namespace)
        else:
            writer = CallWriter(self._new_id("fc"), self._count, start.call_id, name, namespace)
        self._calls[start.index] = writer
        yield from self._begin(writer)

    def _last(self, kind: type[Kind]) -> Kind | None:
        """Return the item that is being generated, if it is of this kind."""
        writer = self._writers[-1][1] if self._writers else None
        return writer if isinstance(writer, kind) else None

    def _new_id(self, prefix: str) -> str:
        """Return the id of the next item. It contains the response's id, so that a reference to the item finds it."""
        return f"{prefix}_{self._token}{self._count:04x}"

    def _begin(self, writer: Writer) -> Iterator[StreamEvent]:
        yield from self.beginning()
        self._writers.append((self._count, writer))
        self._count += 1
        yield from writer.begin()

    def _close_all(self, status: wire.ItemStatus) -> Iterator[StreamEvent]:
        """Complete the open items. If generation was cut off, the last one was."""
        while self._writers:
            place, writer = self._writers.pop(0)
            ended: wire.ItemStatus = "completed" if self._writers else status
            self._items[place] = writer.item(ended)
            yield from writer.close(ended)

    def _end(self, finished: Finished) -> Iterator[StreamEvent]:
        yield from self.beginning()
        self.response.usage = wire.usage(finished)
        match self._ended.reason:
            case "length":
                self.response.incomplete_details = Incomplete("max_output_tokens")
            case "content_filter":
                self.response.incomplete_details = Incomplete("content_filter")
        if self.response.incomplete_details is None:
            self._settle("completed")
            yield ResponseEvent(type="response.completed", response=self.response)
        else:
            self._settle("incomplete")
            yield ResponseEvent(type="response.incomplete", response=self.response)

    def _settle(self, status: Status) -> None:
        for place, writer in self._writers:
            self._items[place] = writer.item("incomplete")
        self.response.status = status
        self.response.output = [self._items[place] for place in sorted(self._items)]
        self.response.completed_at = int(time.time())
        self.keep(self.response)


def _events_of(answer: Answer) -> Iterator[Event]:
    """Yield the events of a whole response, in the order of a stream."""
    if answer.reasoning:
        yield Delta(0, answer.reasoning, reasoning=True)
    if answer.text:
        yield Delta(0, answer.text, logprobs=answer.tokens)
    if answer.refusal:
        yield Delta(0, answer.refusal, refusal=True)
    for index, call in enumerate(answer.calls):
        yield ToolStart(0, 0, index, call.id, call.name)
        yield ToolArguments(0, 0, index, call.arguments)
    yield Ended(0, 0, answer.reason, answer.stop_string)


def _begun(
    response_id: str, request: InputTokensRequest, content: Mapping[str, Any], options: ChatOptions | None
) -> ResponseObject:
    """Return a response without output, with the fields of its request."""
    said = request.parameters().model_dump(exclude_none=True)
    defaults = options.defaults.model_dump(exclude_none=True) if options else {}
    locked = options.locked.model_dump(exclude_none=True) if options else {}
    known = {**defaults, **said, **locked}
    response = ResponseObject(
        id=response_id,
        created_at=int(time.time()),
        instructions=request.instructions,
        max_output_tokens=known.get("max_tokens"),
        model=request.model,
        output=[],
        parallel_tool_calls=request.parallel_tool_calls,
        previous_response_id=request.previous_response_id,
        reasoning={"effort": known.get("reasoning_effort"), "summary": request.reasoning.summary},
        store=False,
        # If nobody sets them, the engine decides; these are OpenAI's defaults.
        temperature=known.get("temperature", 1.0),
        top_p=known.get("top_p", 1.0),
        presence_penalty=known.get("presence_penalty", 0.0),
        frequency_penalty=known.get("frequency_penalty", 0.0),
        text=_text(request),
        tool_choice=content.get("tool_choice") or "auto",
        tools=[_tool(tool) for tool in content.get("tools") or []],
        truncation=request.truncation,
        metadata={},
    )
    if isinstance(request, ResponsesRequest):
        response.background = request.background
        response.max_tool_calls = request.max_tool_calls
        response.metadata = dict(request.metadata)
        response.store = request.store
        response.top_logprobs = request.top_logprobs or 0
    for name in ("prompt_cache_key", "safety_identifier", "user"):
        if isinstance(content.get(name), str):
            setattr(response, name, content[name])
    return response


def _text(request: InputTokensRequest) -> dict[str, Any]:
    """Return the form of the text that was requested."""
    form = request.text.format
    told = {"type": "text"} if form is None else form.model_dump(by_alias=True, exclude_none=True)
    return {"format": told, "verbosity": request.text.verbosity or "medium"}


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    """Return a tool as it was sent, with the keys that a function must have."""
    if tool.get("type") != "function":
        return tool
    return {"description": None, "parameters": None, "strict": False, **tool}
