"""Requests wait in the order in which they came, and long texts are read beside whatever else goes on."""

from __future__ import annotations

import threading

import pytest

from localapi.worker.llm.prompt import TemplateTooSlow
from localapi.worker.llm.request_queue import LONG_TEXT, RequestQueue
from localapi.worker.llm.request_reading import ContextExceeded, Prompt
from localapi.worker.protocol import Chat, Complete, FunctionCall, Message, TextRequest


class Gated:
    """Reads when it may, and notes on which thread."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.woken = threading.Semaphore(0)
        self.threads: dict[int, str] = {}
        self.slow: set[int] = set()

    def read(self, request: TextRequest, seconds: float) -> Prompt:
        self.threads[request.id] = threading.current_thread().name
        if threading.current_thread() is not threading.main_thread():
            self.may.wait()
        elif request.id in self.slow:
            raise TemplateTooSlow("too slow")
        if request.id == 9:
            raise ContextExceeded("too long")
        return Prompt([request.id])


@pytest.fixture
def gated() -> Gated:
    return Gated()


@pytest.fixture
def arrivals(gated: Gated) -> RequestQueue:
    return RequestQueue(gated.read, gated.woken.release)


def short(id: int) -> Complete:  # noqa: A002  # the protocol's word
    return Complete(id=id, prompt="short")


def long(id: int) -> Complete:  # noqa: A002
    return Complete(id=id, prompt="x" * LONG_TEXT)


def taken(arrivals: RequestQueue) -> list[int]:
    found = []
    while arrivals.ready:
        prompt = arrivals.prompt(arrivals.take())
        found += [] if prompt is None else prompt.tokens
    return found


def test_short_texts_are_read_when_their_turn_comes(arrivals: RequestQueue, gated: Gated) -> None:
    for id_ in (1, 2, 3):
        arrivals.add(short(id_))
    assert gated.threads == {}
    assert taken(arrivals) == [1, 2, 3]
    assert set(gated.threads.values()) == {threading.main_thread().name}


def test_a_long_text_is_read_on_a_thread_and_short_ones_do_not_wait_for_it(
    arrivals: RequestQueue, gated: Gated
) -> None:
    for request in (short(1), long(2), short(3), long(4)):
        arrivals.add(request)
    assert taken(arrivals) == [1, 3]
    gated.may.set()
    gated.woken.acquire()
    gated.woken.acquire()
    assert taken(arrivals) == [2, 4]
    assert gated.threads[2] == gated.threads[4] != gated.threads[3]


def test_what_reading_raises_comes_when_the_prompt_is_taken(arrivals: RequestQueue, gated: Gated) -> None:
    gated.may.set()
    arrivals.add(long(9))
    gated.woken.acquire()
    arrival = arrivals.take()
    with pytest.raises(ContextExceeded):
        arrivals.prompt(arrival)


def test_a_cancelled_request_is_gone_also_while_it_is_read(arrivals: RequestQueue, gated: Gated) -> None:
    for request in (long(1), long(2), short(3)):
        arrivals.add(request)
    arrivals.cancel(1)
    arrivals.cancel(2)
    arrivals.cancel(7)
    assert taken(arrivals) == [3]
    gated.may.set()


def test_the_arguments_of_calls_are_text_to_be_read(arrivals: RequestQueue, gated: Gated) -> None:
    gated.may.set()
    call = FunctionCall("1", "write", "x" * LONG_TEXT)
    arrivals.add(Chat(id=1, messages=[Message("assistant", calls=[call])]))
    gated.woken.acquire()
    assert gated.threads[1] != threading.main_thread().name


def test_a_short_text_whose_template_is_slow_is_read_on_the_thread_after_all(
    arrivals: RequestQueue, gated: Gated
) -> None:
    gated.slow = {1}
    for id_ in (1, 2):
        arrivals.add(short(id_))
    assert taken(arrivals) == [2]
    gated.may.set()
    gated.woken.acquire()
    assert taken(arrivals) == [1]
    assert gated.threads[1] != threading.main_thread().name
