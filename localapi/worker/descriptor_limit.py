"""Tolerate libraries that request more open files than the system allows.

mlx-lm requests 4096 when it is imported (utils.py of version 0.32: `resource.setrlimit`), so it cannot be imported if
the limit is lower, as in many containers.
"""

from __future__ import annotations

import resource


def allow() -> None:
    """Keep the current limit from now on if this process requests more than it may have."""
    ask = resource.setrlimit

    def ask_for(kind: int, limits: tuple[int, int], /) -> None:
        try:
            ask(kind, limits)
        except (OSError, ValueError):
            if kind != resource.RLIMIT_NOFILE:
                raise

    resource.setrlimit = ask_for
