"""State of a waiting request as facts, which consoles and terminals put into words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

State = Literal["waiting", "queued", "memory", "loading", "prompt", "sound"]


@dataclass(frozen=True)
class Progress:
    """Progress of a request before its response begins."""

    state: State
    """State; `memory`: the model waits for room in the memory budget; `prompt`: the model processes the prompt;
    `sound`: the model processes a file."""
    model: str
    """Id of the entry."""
    position: int | None = None
    """Position in the queue, or among the models that wait for memory; from 1."""
    at: str | None = None
    """Other server on which it waits; None for this one."""
    step: str = ""
    """Current step of loading: "downloading", "reading weights"."""
    done: int = 0
    total: int = 0
    """Tokens of the prompt, seconds of audio, bytes to load, or bytes of the memory budget; 0 if nothing is counted."""

    def facts(self) -> dict[str, Any]:
        """Return the known fields, for JSON."""
        counted = ("done", "total") if self.total else ()
        known = [name for name in ("at", "position", "step") if getattr(self, name)]
        return {name: getattr(self, name) for name in ("state", "model", *known, *counted)}
