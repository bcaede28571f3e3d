"""The environment of child processes: the server's own, without the keys that open the server.

A worker runs other people's libraries on other people's files, and needs no key. What it does need of the server's
environment nobody can know (HF_HOME, proxies, the settings of libraries), so all else is passed on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

_withheld = {"LOCALAPI_API_KEY"}


def withhold(names: Iterable[str]) -> None:
    """Never pass these variables on, from now on. What was once a key is not forgotten when the manifest is edited."""
    _withheld.update(names)


def inherited() -> dict[str, str]:
    """What a child process may know."""
    return {name: value for name, value in os.environ.items() if name not in _withheld}
