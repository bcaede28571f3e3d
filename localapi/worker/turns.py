"""Answer requests in turns, piece by piece, for audio models that compute on the main thread."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from localapi.worker.model import first_line
from localapi.worker.protocol import Event, Failed, Last, Request, Speak, Spoken

Asked = TypeVar("Asked", bound=Request)
Pieces = Generator[Event | None, None, None]
"""Events of one request. None: it is another request's turn."""


class RequestRefused(Exception):
    """The request cannot be served. `param` is the field at fault."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


@dataclass
class Turn:
    """A request that is being answered."""

    id: int
    pieces: Pieces


class TurnTaking(Generic[Asked]):
    """Part of a `worker.model.Model` that accepts requests and gives each its turns."""

    task: ClassVar[str]
    """Name of the task in messages about failures: "Speech synthesis"."""

    def __init__(self) -> None:
        self._turns: deque[Turn] = deque()

    waiting = tokens = 0

    @property
    def busy(self) -> bool:
        return bool(self._turns)

    def take(self, request: Request) -> None:
        self._turns.append(Turn(request.id, self._answer(request)))  # type: ignore[arg-type]  # one of this model's kind

    def cancel(self, id: int) -> None:  # noqa: A002  # the protocol's word
        for turn in [each for each in self._turns if each.id == id]:
            self._end(turn)

    def step(self) -> list[Event]:
        """Return the next event of the request whose turn it is, if it has one."""
        turn = self._turns[0]
        event: Event | None
        try:
            event = next(turn.pieces)
        except RequestRefused as error:
            event = Failed(turn.id, "invalid_request", str(error), error.param)
        except (Exception, SystemExit) as error:  # only this request fails
            traceback.print_exc()
            event = Failed(turn.id, "generation_failed", f"{self.task} failed: {first_line(error)}.")
        if event is None:
            self._turns.rotate(-1)
            return []
        if isinstance(event, Last):
            self._end(turn)
        return [event]

    def save_some(self) -> bool:
        return False

    def _answer(self, request: Asked) -> Pieces:
        """Yield a request's events; the last one is a `protocol.Last`."""
        raise NotImplementedError

    def _end(self, turn: Turn) -> None:
        self._turns.remove(turn)
        turn.pieces.close()


class Speaking(TurnTaking[Speak]):
    """Turn-taking for speech."""

    task = "Speech synthesis"

    def _answer(self, request: Speak) -> Pieces:
        notes: list[str] = []
        yield from self._say(request, notes)
        yield Spoken(request.id, notes)

    def _say(self, request: Speak, notes: list[str]) -> Pieces:
        """Yield a request's events, and add what the client should know to the notes."""
        raise NotImplementedError
