"""The state of a waiting request as facts: consoles and terminals put them into words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

State = Literal["waiting", "queued", "memory", "loading", "prompt", "sound"]


@dataclass(frozen=True)
class Progress:
    """Progress of a request before its answer begins."""

    state: State
    """`memory`: the model is waiting for room in the memory budget; `prompt`: the model is reading the prompt; `sound`:
    the model is listening to a file."""
    model: str
    """Id of the entry."""
    position: int | None = None
    """Position in the queue, or among the models that are waiting for memory; from 1."""
    at: str | None = None
    """The other server where it waits; None: here."""
    step: str = ""
    """Current step of loading: "downloading", "reading weights"."""
    done: int = 0
    total: int = 0
    """Tokens of the prompt, seconds of sound, bytes that are loaded, or bytes in use of the memory budget; 0 if nothing
    is counted."""

    def facts(self) -> dict[str, Any]:
        """Return the fields that are known, for JSON."""
        counted = ("done", "total") if self.total else ()
        known = [name for name in ("at", "position", "step") if getattr(self, name)]
        return {name: getattr(self, name) for name in ("state", "model", *known, *counted)}
