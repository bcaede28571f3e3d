"""Requests that have come and are not begun, in the order in which they came.

A long text or a grammar is read on a thread meanwhile, so that nobody's answer waits for it; what can be begun does not
wait for it either. A short text is read when its turn has come: that takes less than to hand it over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from localapi.worker.llm.prompt import RENDER_SECONDS, TemplateTooSlow
from localapi.worker.llm.request_reading import Prompt
from localapi.worker.protocol import Answering, Chat, Complete, Detokenize, Lark, Message, TextRequest, Tokenize

LONG_TEXT = 16_384
"""Characters that are read on the thread. Tokenizing takes about a second per million."""
SHORT_SECONDS = 0.1
"""How long everybody's answer may wait for the template of a short text. If that takes longer, the thread does it."""


@dataclass(frozen=True, slots=True)
class QueuedRequest:
    """One request, with its prompt as soon as that is there."""

    request: TextRequest
    characters: int
    """Of it that are still to be read."""
    reading: Future[Prompt] | None

    @property
    def ready(self) -> bool:
        """Whether nobody has to wait for its prompt."""
        return self.reading is None or self.reading.done()


class RequestQueue:
    """The queue."""

    def __init__(self, read: Callable[[TextRequest, float], Prompt], wake: Callable[[], None]) -> None:
        """`read` is called on any thread, with a bound for the template in seconds.

        So is `wake`, when `ready` may have changed.
        """
        self._read = read
        self._wake = wake
        self._queue: deque[QueuedRequest] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reading")

    @property
    def ready(self) -> bool:
        """Whether one can be taken."""
        return any(arrival.ready for arrival in self._queue)

    def __len__(self) -> int:
        return len(self._queue)

    def has(self, id: int) -> bool:  # noqa: A002  # the protocol's word
        return any(arrival.request.id == id for arrival in self._queue)

    def add(self, request: TextRequest) -> None:
        """Put it at the end."""
        length = characters(request)
        if length < LONG_TEXT and not (isinstance(request, Answering) and isinstance(request.form, Lark)):
            self._queue.append(QueuedRequest(request, length, None))
            return
        self._queue.append(self._on_the_thread(request))

    def cancel(self, id: int) -> None:  # noqa: A002
        """Forget it. A text that is being read is read to its end."""
        for arrival in [arrival for arrival in self._queue if arrival.request.id == id]:
            self._queue.remove(arrival)
            if arrival.reading is not None:
                arrival.reading.cancel()

    def take(self) -> QueuedRequest:
        """The first one that is ready. There is one."""
        found = next(arrival for arrival in self._queue if arrival.ready)
        self._queue.remove(found)
        return found

    def prompt(self, arrival: QueuedRequest) -> Prompt | None:
        """What it reads; None if its template takes long: it is read on the thread then, and can be taken again.

        Raise what reading raises.
        """
        if arrival.reading is not None:
            return arrival.reading.result()
        try:
            return self._read(arrival.request, SHORT_SECONDS)
        except TemplateTooSlow:
            self._queue.appendleft(self._on_the_thread(arrival.request))
            return None

    def _on_the_thread(self, request: TextRequest) -> QueuedRequest:
        reading = self._thread.submit(self._read, request, RENDER_SECONDS)
        reading.add_done_callback(lambda _: self._wake())
        return QueuedRequest(request, 0, reading)


def characters(request: TextRequest) -> int:
    """About how much there is to read."""
    match request:
        case Chat():
            return sum(map(_length, request.messages)) + len(str(request.tools))
        case Complete():
            return len(request.prompt)
        case Tokenize():
            return len(request.text or "") + sum(map(_length, request.messages or ()))
        case Detokenize():
            return len(request.tokens)


def _length(message: Message) -> int:
    """Agents write whole files into the arguments of calls."""
    return len(message.text) + len(message.reasoning or "") + sum(len(str(call.arguments)) for call in message.calls)
