"""Interface between a worker's loop and its model, and code that loading has in common for all models.

Each backend has a module (`worker.__main__` lists them) with a function `load(options, host) -> Model`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from localapi.worker.protocol import Event, Loaded, Loading, Rank, Request
from localapi.worker.rank_link import Backend

Report = Callable[[Loading], None]


@dataclass(frozen=True)
class Host:
    """Services of the loop for its model."""

    report: Report
    """Report the progress of loading. Call it on the main thread."""
    wake: Callable[[], None]
    """Make the loop check `busy` again. Call it from any thread, if the model computes on its own threads."""
    fast_blas: str = ""
    """Fast BLAS that MLX uses on a processor; empty if it has none or computes on a GPU."""
    rank: Rank | None = None
    """Worker's place among the ranks that hold the model; None if it is alone."""
    link: Backend = "ring"
    """Connection between the ranks."""
    cancelled: Callable[[int], bool] = lambda _: False
    """Return True for a request that was cancelled although `cancel` could not be called yet. For models whose steps
    take long."""


class CannotLoad(Exception):
    """The model cannot be loaded. The message says what is wrong, what was found and what to do."""


class PortTaken(CannotLoad):
    """Another process listens at the address on which a rank should listen."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, for the message of a `CannotLoad`."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".?")


class Model(Protocol):
    """One loaded model. All calls are on the main thread, and nothing that a client sends makes them raise."""

    @property
    def loaded(self) -> Loaded:
        """Facts about the loaded model for the server."""

    @property
    def busy(self) -> bool:
        """True if `step` has something to do."""

    @property
    def waiting(self) -> int:
        """Number of requests that wait until others have ended; 0 if requests take turns."""

    @property
    def tokens(self) -> int:
        """Number of tokens generated so far, in all responses; 0 if the model generates no text."""

    def take(self, request: Request) -> None:
        """Accept a request. Its events come from later steps."""

    def cancel(self, id: int) -> None:  # noqa: A002  # the protocol's word
        """Drop a request in any state. Unknown ids are ignored."""

    def step(self) -> list[Event]:
        """Do a bounded piece of work (one decode step at most) and return its events."""

    def save_some(self) -> bool:
        """Write a part of the data that should outlive the worker, at an idle moment; return True if there is more."""


def read_json(file: Path, *, default: Any = None) -> Any:
    """Return the content of a file, or `default` if there is none. Raise CannotLoad."""
    try:
        return json.loads(file.read_text("utf-8"))
    except FileNotFoundError as error:
        if default is not None:
            return default
        raise CannotLoad(f"{file} is missing.") from error
    except (OSError, ValueError) as error:
        raise CannotLoad(f"{file} cannot be read: {first_line(error)}.") from error


def read_object(file: Path) -> dict[str, Any]:
    """Return the object in a file. Raise CannotLoad."""
    content = read_json(file)
    if not isinstance(content, dict):
        raise CannotLoad(f"{file} must contain a JSON object.")
    return content
