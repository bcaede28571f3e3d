"""A finding, and the run of all checks at the same time."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from localapi.client import Server
from localapi.errors import OperatorError, Problem
from localapi.manifest import Manifest

LIMIT_SECONDS: Final = 8.0
"""For all checks together."""

Grade = Literal["ok", "note", "missing"]


@dataclass(frozen=True)
class Finding:
    """One line for people."""

    topic: str
    grade: Grade
    """`missing`: the manifest needs it. `note`: worth knowing, and nothing fails for it now."""
    says: str
    mend: str | None = None
    """The command that mends it, or what a person can do."""


@dataclass(frozen=True)
class Subject:
    """What is looked at."""

    manifest: Manifest | None
    """None where it cannot be read."""
    problems: Sequence[Problem]
    server: Server
    port: int
    players: Sequence[str]
    """Programs that play sound."""

    def uses(self, *backends: str) -> bool:
        """Whether an entry is run by one of these."""
        entries = self.manifest.entries.values() if self.manifest else ()
        return any(entry.options.backend_name in backends for entry in entries)


Check = Callable[[Subject], list[Finding]]


def examine(subject: Subject, checks: Mapping[str, Check], limit: float = LIMIT_SECONDS) -> list[Finding]:
    """The findings of all checks, in their order; a check that takes too long is told as that."""
    done: queue.Queue[tuple[str, list[Finding]]] = queue.Queue()

    def run(topic: str, check: Check) -> None:
        try:
            found = check(subject)
        except OperatorError as error:
            found = [Finding(topic, "note", str(error))]
        except Exception as error:  # of one check; the others are worth telling
            found = [Finding(topic, "note", f"could not be looked at: {type(error).__name__}: {error}")]
        done.put((topic, found))

    for topic, check in checks.items():
        threading.Thread(target=run, args=(topic, check), daemon=True).start()
    found: dict[str, list[Finding]] = {}
    deadline = time.monotonic() + limit
    while len(found) < len(checks):
        try:
            topic, findings = done.get(timeout=max(deadline - time.monotonic(), 0.0))
        except queue.Empty:
            break
        found[topic] = findings
    late = f"did not answer within {limit:g} s"
    return [each for topic in checks for each in found.get(topic, [Finding(topic, "note", late)])]
