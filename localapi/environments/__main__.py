"""`python -m localapi.environments NAME`: for the server, which reads the lines and can end the process."""

from __future__ import annotations

import sys

from localapi.environments.building import install
from localapi.environments.pinned import NAMES, Environment
from localapi.errors import EnvironmentFailed


def main() -> None:
    """Exit status 1 where it failed; the last line says why."""
    (name,) = sys.argv[1:]
    if name not in NAMES:
        sys.exit(f"there is no environment {name!r} (there are: {', '.join(NAMES)})")
    try:
        install(Environment.named(name), lambda line: print(line, flush=True))  # noqa: T201
    except EnvironmentFailed as error:
        sys.exit(" ".join(str(error).split()))


if __name__ == "__main__":
    main()
