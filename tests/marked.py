"""Processes by a mark in their environment, which everything inherits that they start."""

from __future__ import annotations

from contextlib import suppress

import psutil

VARIABLE = "TEST_MARK"


def marked(mark: str) -> list[psutil.Process]:
    """The processes with a mark that have not ended."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(VARIABLE) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
