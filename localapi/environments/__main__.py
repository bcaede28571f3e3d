"""Run `python -m localapi.environments NAME` for the server, which reads the output and can end the process."""

from __future__ import annotations

import sys

from localapi.environments.building import install
from localapi.environments.pinned import NAMES, Environment
from localapi.errors import EnvironmentFailed


def main() -> None:
    """Install an environment. Exit with status 1 if it fails; the last line has the reason."""
    (name,) = sys.argv[1:]
    if name not in NAMES:
        sys.exit(f"there is no environment {name!r} (available: {', '.join(NAMES)})")
    try:
        install(Environment.named(name), lambda line: print(line, flush=True))  # noqa: T201
    except EnvironmentFailed as error:
        sys.exit(" ".join(str(error).split()))


if __name__ == "__main__":
    main()
