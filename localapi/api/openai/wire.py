"""What OpenAI's endpoints have in common on the wire: error objects, usage, and server-sent events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Generic, TypeVar

from localapi.errors import ApiError
from localapi.http.replies import EVENT_STREAM, comment, event, told
from localapi.runtime.progress import Progress
from localapi.worker.protocol import Finished, Relaxed

Item = TypeVar("Item")
DONE: Final = b"data: [DONE]\n\n"


def error_body(error: ApiError) -> dict[str, Any]:
    """Return OpenAI's error object, always with all four keys."""
    return {"error": {"message": told(error), "type": error.type, "param": error.param, "code": error.reply_code}}


def usage(finished: Finished) -> dict[str, Any]:
    """Return OpenAI's usage object."""
    return {
        "prompt_tokens": finished.prompt_tokens,
        "completion_tokens": finished.completion_tokens,
        "total_tokens": finished.prompt_tokens + finished.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": finished.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": finished.reasoning_tokens},
    }


class EventStream(Generic[Item]):
    """A stream of OpenAI's server-sent events. Comments say what no event has a place for, as JSON."""

    content_type = EVENT_STREAM

    def __init__(self, chunks: Callable[[Item], Iterable[dict[str, Any]]], end: bytes = DONE) -> None:
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
