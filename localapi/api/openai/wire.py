"""Objects that OpenAI's endpoints share: errors, usage, and server-sent events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Generic, TypeVar, cast

from msgspec import Struct, to_builtins

from localapi.api.answers import Answer
from localapi.errors import ApiError
from localapi.http.replies import EVENT_STREAM, comment, event, told
from localapi.runtime.progress import Progress
from localapi.worker.protocol import Addition, Finished, Relaxed

Item = TypeVar("Item")
DONE: Final = b"data: [DONE]\n\n"


class ErrorDetails(Struct):
    """Error, with advice."""

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
    """Tokens used by a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


def error_body(error: ApiError) -> ErrorReply:
    """Return OpenAI's error object, always with all four keys."""
    return ErrorReply(ErrorDetails(told(error), error.type, error.param, error.reply_code))


def usage(finished: Finished) -> Usage | None:
    """Return OpenAI's usage object, with all that another server reported; None if the tokens were not counted."""
    if not finished.counted:
        return None
    counted = Usage(
        prompt_tokens=finished.prompt_tokens,
        completion_tokens=finished.completion_tokens,
        total_tokens=finished.prompt_tokens + finished.completion_tokens,
        prompt_tokens_details=PromptDetails(finished.cached_tokens),
        completion_tokens_details=CompletionDetails(finished.reasoning_tokens),
    )
    if finished.reported is None:
        return counted
    further = {key: value for key, value in finished.reported.items() if value is not None}
    return cast(Usage, with_fields(counted, further))  # a Usage to every reader of the JSON


def with_fields(part: Struct, *further: dict[str, Any]) -> dict[str, Any]:
    """Return a part of a reply with further fields from another server."""
    whole: dict[str, Any] = to_builtins(part)
    for fields in further:
        for key, value in fields.items():
            old = whole.get(key)
            whole[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return whole


def with_additions(reply: Struct, answers: Sequence[Answer]) -> object:
    """Return a whole reply with the fields that another server added to it."""
    if not any(answer.additions for answer in answers):
        return reply
    whole = with_fields(reply, *(answer.additions.get("reply", {}) for answer in answers))
    for choice, answer in zip(whole["choices"], answers, strict=True):
        choice.update(answer.additions.get("choice", {}))
        if "message" in answer.additions:
            choice["message"].update(answer.additions["message"])
    return whole


def chunk_with_addition(chunk: Struct, addition: Addition) -> dict[str, Any]:
    """Return a chunk of one choice, with the fields that another server added to it."""
    whole: dict[str, Any] = to_builtins(chunk)
    match addition.place:
        case "reply":
            whole.update(addition.fields)
        case "choice":
            whole["choices"][0].update(addition.fields)
        case "message":
            whole["choices"][0].setdefault("delta", {}).update(addition.fields)
    return whole


class EventStream(Generic[Item]):
    """Stream of OpenAI's server-sent events. Facts without an event of their own are sent as comments in JSON."""

    content_type = EVENT_STREAM

    def __init__(self, chunks: Callable[[Item], Iterable[object]], end: bytes = DONE) -> None:
        self._chunks = chunks
        self._end = end

    def render(self, item: Item) -> Iterable[bytes]:
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
