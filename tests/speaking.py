"""A speech engine run as a worker's loop runs it, on the test's thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt

from localapi.worker.model import Host, Model
from localapi.worker.protocol import Event, Failed, Last, Loading, Request, Sound, Speak, Spoken, WordTime, WordTimes

PATIENCE_SECONDS = 60
"""With a busy machine; a test that waits so long has failed."""


class Loop:
    """An engine, and what a worker's loop does with it: it sleeps unless the engine is busy or wakes it."""

    def __init__(self, load: Callable[[dict[str, Any], Host], Model], options: dict[str, Any]) -> None:
        self._woken: SimpleQueue[None] = SimpleQueue()
        self.phases: list[str] = []
        self.engine = load(options, Host(self._report, lambda: self._woken.put(None)))

    def _report(self, loading: Loading) -> None:
        self.phases.append(loading.phase)

    def step(self) -> list[Event]:
        """The next events. Raises TimeoutError where none come."""
        while not self.engine.busy:
            try:
                self._woken.get(timeout=PATIENCE_SECONDS)
            except Empty:
                raise TimeoutError("the engine neither is busy nor wakes the loop") from None
        return self.engine.step()

    def until(self, met: Callable[[list[Event]], bool]) -> list[Event]:
        """All events until a condition is met."""
        events: list[Event] = []
        while not met(events):
            events += self.step()
        return events

    def run(self, *requests: Request) -> dict[int, list[Event]]:
        """Every event of these requests, in order."""
        for request in requests:
            self.engine.take(request)
        events = self.until(lambda events: sum(isinstance(event, Last) for event in events) == len(requests))
        return {request.id: [event for event in events if event.id == request.id] for request in requests}

    def say(self, *segments: str, **options: Any) -> list[Event]:
        """The events of one request."""
        return self.run(Speak(id=1, segments=[*segments], **options))[1]


def samples(events: Iterable[Event], segment: int | None = None) -> npt.NDArray[np.int16]:
    """Return the samples of one segment or of all."""
    heard = [event.pcm for event in events if isinstance(event, Sound) and segment in (None, event.segment)]
    return np.frombuffer(b"".join(heard), "<i2")


def seconds(events: Iterable[Event]) -> float:
    """Return the length of the sound."""
    sounds = [event for event in events if isinstance(event, Sound)]
    return sum(len(sound.pcm) / 2 / sound.sample_rate_hz for sound in sounds)


def words(events: Iterable[Event], segment: int = 0) -> list[WordTime]:
    """Return the times of a segment's words."""
    [times] = [event for event in events if isinstance(event, WordTimes) and event.segment == segment]
    return times.words


def failure(events: list[Event]) -> Failed:
    assert isinstance(events[-1], Failed)
    return events[-1]


def assert_in_order(events: list[Event], segments: int) -> None:
    """All sound is there, segment after segment, and then the end."""
    spoken = [event.segment for event in events if isinstance(event, Sound)]
    assert spoken == sorted(spoken)
    assert set(spoken) == set(range(segments))
    assert isinstance(events[-1], Spoken)


def odd_texts(chance: Any, count: int) -> Iterable[str]:
    """Texts that nobody would say."""
    alphabet = [
        "a",
        " ",
        "é",
        "🙂",
        "👩‍👩‍👧",
        "\u202e",
        "שלום",
        "你好",
        "مرحبا",
        "\0",
        "\ud800",
        "\n",
        "\t",
        ".",
        "!?",
        "…",
        "—",
    ]
    alphabet += [
        "<speak>",
        "<break time='9s'/>",
        "[[h@l'oU]]",
        "[[",
        "]]",
        "&amp;",
        "-f/etc/passwd",
        "{{7*7}}",
        "\x1b[0m",
    ]
    alphabet += [
        "1e999",
        "1234567890",
        "$(reboot)",
        "../..",
        "\u0301",
        "\ufffe",
        "ʰ",
        "ﷺ",
        "\U0001d573",
        "http://a.b/c?d=e&f",
    ]
    long = ["." * 4096, "!?" * 2048, "[" * 4096, "\n" * 4096, "(" * 4096, "-f/etc/passwd", "", " ", "\0", "a" * 600]
    for number in range(count):
        if number < len(long):
            yield long[number]
        else:
            yield "".join(chance.choices(alphabet, k=chance.randrange(1, 40)))
