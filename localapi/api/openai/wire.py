"""What OpenAI's endpoints have in common on the wire: error objects, usage, and server-sent events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, Generic, TypeVar

from msgspec import Struct

from localapi.errors import ApiError
from localapi.http.replies import EVENT_STREAM, comment, event, told
from localapi.runtime.progress import Progress
from localapi.worker.protocol import Finished, Relaxed

Item = TypeVar("Item")
DONE: Final = b"data: [DONE]\n\n"


class ErrorDetails(Struct):
    """What is wrong, and what to do."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(Struct):
    """OpenAI's error object."""

    error: ErrorDetails


class PromptDetails(Struct):
    cached_tokens: int


class CompletionDetails(Struct):
    reasoning_tokens: int


class Usage(Struct):
    """What a request took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


def error_body(error: ApiError) -> ErrorReply:
    """Return OpenAI's error object, always with all four keys."""
    return ErrorReply(ErrorDetails(told(error), error.type, error.param, error.reply_code))


def usage(finished: Finished) -> Usage:
    """Return OpenAI's usage object."""
    return Usage(
        prompt_tokens=finished.prompt_tokens,
        completion_tokens=finished.completion_tokens,
        total_tokens=finished.prompt_tokens + finished.completion_tokens,
        prompt_tokens_details=PromptDetails(finished.cached_tokens),
        completion_tokens_details=CompletionDetails(finished.reasoning_tokens),
    )


class EventStream(Generic[Item]):
    """A stream of OpenAI's server-sent events. Comments say what no event has a place for, as JSON."""

    content_type = EVENT_STREAM

    def __init__(self, chunks: Callable[[Item], Iterable[Struct]], end: bytes = DONE) -> None:
        self._chunks = chunks
        self._end = end

    def render(self, item: Item) -> Iterator[bytes]:
        if isinstance(item, Relaxed):  # for a stream whose headers were sent before this was known
            yield comment({"relaxed": item.places})
        for chunk in self._chunks(item):
            yield event(chunk)

    def progress(self, progress: Progress) -> bytes:
        return comment({"progress": progress.facts()})

    def error(self, error: ApiError) -> bytes:
        return event(error_body(error))

    def end(self) -> bytes:
        return self._end
