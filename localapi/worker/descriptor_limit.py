"""How many files a worker may have open: what a library asks for, as far as the system allows it.

mlx-lm asks for up to 4096 while it is imported (utils.py of version 0.32: `resource.setrlimit`), and cannot be imported
where fewer are the most, as in many containers.
"""

from __future__ import annotations

import resource


def allow() -> None:
    """From now on, in this process: who asks for more than there may be keeps what there is."""
    ask = resource.setrlimit

    def ask_for(kind: int, limits: tuple[int, int], /) -> None:
        try:
            ask(kind, limits)
        except (OSError, ValueError):
            if kind != resource.RLIMIT_NOFILE:
                raise

    resource.setrlimit = ask_for
