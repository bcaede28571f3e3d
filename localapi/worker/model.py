"""The seam inside a worker: what its loop asks of the one engine that it runs.

Each engine has a module (`worker.__main__` lists them) with a function `load(options, host) -> Model`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from localapi.worker.protocol import Event, Loaded, Loading, Request

Report = Callable[[Loading], None]


@dataclass(frozen=True)
class Host:
    """What the loop offers its engine."""

    report: Report
    """Tell how far loading is. On the main thread."""
    wake: Callable[[], None]
    """Have the loop look at `busy` again. From any thread: for engines that compute on threads of their own."""
    fast_blas: str = ""
    """What MLX computes products of float32 with, on a processor; empty if that is slow, or no matter."""


class CannotLoad(Exception):
    """The model does not load; the message is for people and says what was wrong, what was found and what to do."""


def first_line(error: BaseException) -> str:
    """What an error says, short enough for the message of a `CannotLoad`."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".?")


class Model(Protocol):
    """One loaded model. Everything is called on the main thread, and nothing that a client sends makes it raise."""

    @property
    def loaded(self) -> Loaded:
        """What a user should know about the loaded model."""

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""

    @property
    def waiting(self) -> int:
        """Requests that wait until others have ended; 0 where all are answered by turns."""

    @property
    def tokens(self) -> int:
        """Written so far, in all answers; 0 where no text is written."""

    def take(self, request: Request) -> None:
        """Take a request; its events come from later steps."""

    def cancel(self, id: int) -> None:  # noqa: A002  # the protocol's word
        """Forget a request, wherever it is; unknown ids are ignored."""

    def step(self) -> list[Event]:
        """Do a bounded piece of work (one decode step at most) and give what came of it."""

    def save_some(self) -> bool:
        """In an idle moment: write a little of what should outlive the worker; whether there is more."""
