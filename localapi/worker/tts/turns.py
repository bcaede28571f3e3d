"""Answer speech requests by turns, segment by segment, for models that compute on the main thread."""

from __future__ import annotations

import sys
import traceback
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass

from localapi.worker.model import first_line
from localapi.worker.protocol import Event, Failed, Request, Speak, Spoken

Pieces = Generator[Event | None, None, None]
"""The events of one request. None: a segment has ended."""


class RequestRefused(Exception):
    """The request cannot be served. `param`: the field at fault."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


@dataclass
class Utterance:
    """A request that is being answered."""

    id: int
    pieces: Pieces
    notes: list[str]


class TurnTaking:
    """The part of a `worker.model.Model` that takes requests and gives each its turns."""

    def __init__(self) -> None:
        self._turns: deque[Utterance] = deque()

    waiting = tokens = 0

    @property
    def busy(self) -> bool:
        return bool(self._turns)

    def take(self, request: Request) -> None:
        assert isinstance(request, Speak), request  # noqa: S101  # the server sends text requests to chat models only
        if any(each.id == request.id for each in self._turns):
            print(f"request {request.id} came twice; the second is ignored", file=sys.stderr)  # noqa: T201
            return
        notes: list[str] = []
        self._turns.append(Utterance(request.id, self._say(request, notes), notes))

    def cancel(self, id: int) -> None:  # noqa: A002  # the protocol's word
        for utterance in [each for each in self._turns if each.id == id]:
            self._end(utterance)

    def step(self) -> list[Event]:
        """Return the next event of the request whose turn it is, if it has one."""
        utterance = self._turns[0]
        try:
            piece = next(utterance.pieces)
        except StopIteration:
            last: Event = Spoken(utterance.id, utterance.notes)
        except RequestRefused as error:
            last = Failed(utterance.id, "invalid_request", str(error), error.param)
        except (Exception, SystemExit) as error:  # fails this request alone
            traceback.print_exc()
            last = Failed(utterance.id, "generation_failed", f"Speech synthesis failed: {first_line(error)}.")
        else:
            if piece is None:
                self._turns.rotate(-1)
                return []
            return [piece]
        self._end(utterance)
        return [last]

    def save_some(self) -> bool:
        return False

    def _say(self, request: Speak, notes: list[str]) -> Pieces:
        """Yield a request's events, and add what the client should know to the notes."""
        raise NotImplementedError

    def _end(self, utterance: Utterance) -> None:
        self._turns.remove(utterance)
        utterance.pieces.close()
