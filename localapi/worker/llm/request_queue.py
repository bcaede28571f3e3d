"""Queue of requests that have not been started, in order of arrival.

A long text or a grammar is read on a thread meanwhile, so that no response waits for it, and ready requests do not wait
for it either. A short text is read when its turn comes, because that takes less time than handing it over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from localapi.worker.llm.prompt import RENDER_SECONDS, TemplateTooSlow
from localapi.worker.llm.request_reading import Prompt
from localapi.worker.protocol import (
    Answering,
    Chat,
    Complete,
    Detokenize,
    ImagePart,
    Lark,
    Message,
    TextRequest,
    Tokenize,
)

LONG_TEXT = 16_384
"""Minimum characters of texts that are read on the thread. Tokenizing takes about a second per million."""
SHORT_SECONDS = 0.1
"""Time for which all responses may wait for the template of a short text. If it takes longer, the thread renders it."""


@dataclass(frozen=True, slots=True)
class QueuedRequest:
    """A request, and its prompt once it has been read."""

    request: TextRequest
    characters: int
    """Characters still to be read."""
    reading: Future[Prompt] | None

    @property
    def ready(self) -> bool:
        """True if its prompt can be taken without waiting for the thread."""
        return self.reading is None or self.reading.done()


class RequestQueue:
    """The queue of one model."""

    def __init__(self, read: Callable[[TextRequest, float], Prompt], wake: Callable[[], None]) -> None:
        """Create a queue; `read` is called on any thread, with a time limit for the template in seconds.

        `wake` is called on any thread when `ready` may have changed.
        """
        self._read = read
        self._wake = wake
        self._queue: deque[QueuedRequest] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reading")

    @property
    def ready(self) -> bool:
        """True if a request can be taken."""
        return any(arrival.ready for arrival in self._queue)

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, request: TextRequest) -> None:
        """Add a request at the end."""
        length = characters(request)
        if length < LONG_TEXT and not (isinstance(request, Answering) and isinstance(request.form, Lark)):
            self._queue.append(QueuedRequest(request, length, None))
            return
        self._queue.append(self._on_the_thread(request))

    def cancel(self, id: int) -> None:  # noqa: A002
        """Drop a request. A text that is being read is read to its end."""
        for arrival in [arrival for arrival in self._queue if arrival.request.id == id]:
            self._queue.remove(arrival)
            if arrival.reading is not None:
                arrival.reading.cancel()

    def take(self) -> QueuedRequest:
        """Remove and return the first request that is ready. There must be one."""
        found = next(arrival for arrival in self._queue if arrival.ready)
        self._queue.remove(found)
        return found

    def prompt(self, arrival: QueuedRequest) -> Prompt | None:
        """Return the request's prompt; None if its template is slow.

        In that case the thread reads it, and the request can be taken again. Raise the errors of reading.
        """
        if arrival.reading is not None:
            return arrival.reading.result()
        try:
            return self._read(arrival.request, SHORT_SECONDS)
        except TemplateTooSlow:
            self._queue.appendleft(self._on_the_thread(arrival.request))
            return None

    def put_back(self, request: TextRequest, prompt: Prompt, work: Callable[[], None]) -> None:
        """Take in a request again, as the first one, whose turn comes when the thread has done this work for it."""

        def done() -> Prompt:
            work()
            return prompt

        self._queue.appendleft(self._queued(request, self._thread.submit(done)))

    def _on_the_thread(self, request: TextRequest) -> QueuedRequest:
        return self._queued(request, self._thread.submit(self._read, request, RENDER_SECONDS))

    def _queued(self, request: TextRequest, reading: Future[Prompt]) -> QueuedRequest:
        reading.add_done_callback(lambda _: self._wake())
        return QueuedRequest(request, 0, reading)


def characters(request: TextRequest) -> int:
    """Return the approximate number of characters to read."""
    match request:
        case Chat():
            return sum(map(_length, request.messages)) + len(str(request.tools))
        case Complete():
            return len(request.prompt)
        case Tokenize():
            return len(request.text or "") + (characters(request.chat) if request.chat else 0)
        case Detokenize():
            return len(request.tokens)


def _length(message: Message) -> int:
    """Return the length of everything in a message, because agents write whole files into the arguments of calls.

    An image counts as a long text, because decoding takes as long as reading one.
    """
    images = sum(isinstance(part, ImagePart) for part in message.content)
    return (
        images * LONG_TEXT
        + len(message.text)
        + len(message.reasoning or "")
        + sum(len(str(call.arguments)) for call in message.calls)
    )
