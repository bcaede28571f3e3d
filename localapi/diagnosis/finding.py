"""Findings, and running all checks concurrently."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from localapi.client import Server
from localapi.errors import OperatorError, Problem
from localapi.manifest import Entry, Manifest

LIMIT_SECONDS: Final = 8.0
"""Time limit of all checks together."""

Grade = Literal["ok", "note", "missing"]


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    topic: str
    grade: Grade
    """Severity; `missing`: the manifest needs it. `note`: worth knowing, but nothing fails now."""
    says: str
    mend: str | None = None
    """Command that fixes it, or advice."""


@dataclass(frozen=True)
class Subject:
    """Machine and manifest to check."""

    manifest: Manifest | None
    """Manifest; None if it cannot be read."""
    problems: Sequence[Problem]
    server: Server
    port: int
    players: Sequence[str]
    """Names of programs that play sound."""

    @property
    def entries(self) -> Collection[Entry]:
        """Entries of the manifest; none if it cannot be read."""
        return self.manifest.entries.values() if self.manifest else ()

    def uses(self, *backends: str) -> bool:
        """Return whether an entry here uses one of these backends."""
        return any(entry.options.backend_name in backends for entry in self.entries if not entry.options.is_remote)


Check = Callable[[Subject], list[Finding]]


def examine(subject: Subject, checks: Mapping[str, Check], limit: float = LIMIT_SECONDS) -> list[Finding]:
    """Return the findings of all checks in order, with a finding for each check that takes too long."""
    done: queue.Queue[tuple[str, list[Finding]]] = queue.Queue()

    def run(topic: str, check: Check) -> None:
        try:
            found = check(subject)
        except OperatorError as error:
            found = [Finding(topic, "note", str(error))]
        except Exception as error:  # one failed check must not hide the others
            found = [Finding(topic, "note", f"could not be checked: {type(error).__name__}: {error}")]
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
    late = f"did not respond within {limit:g} s"
    return [each for topic in checks for each in found.get(topic, [Finding(topic, "note", late)])]
