"""What an error of the operating system means to whoever runs the server, and what to do about it.

Knows error numbers, and nothing of models. The standard library alone: workers use it, too.
"""

from __future__ import annotations

import errno
import os
import resource
from typing import Final

NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
NO_RIGHT: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
NO_DESCRIPTOR: Final = frozenset({errno.EMFILE, errno.ENFILE})
NO_PROCESS: Final = frozenset({errno.EAGAIN, errno.ENOMEM})
NO_DRIVE: Final = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN})
"""What files on a network drive answer when it is away."""


def advise(error: OSError) -> str:
    """What was wrong, where, and what to do, without a full stop at the end: "No space left on device: make room"."""
    # A name that is too long is a value that was never meant to be one: a recording in base64, say.
    name = "" if error.filename is None or error.errno == errno.ENAMETOOLONG else f" ({_name(error.filename)})"
    what = f"{error.strerror or error}{name}"
    if error.errno in NO_ROOM:
        return f"{what}: make room on that disk"
    if error.errno in NO_RIGHT:
        return f"{what}: the user that the server runs as (number {os.geteuid()}) needs the right to it"
    if error.errno in NO_DESCRIPTOR:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"{what}: this process may have {limit}; close connections, or raise the limit with ulimit -n"
    if error.errno in NO_PROCESS:
        return f"{what}: the system has no memory or no process left for it; end something, then ask again"
    if error.errno in NO_DRIVE:
        return f"{what}: is the drive connected?"
    return what


def _name(name: object) -> str:
    return os.fsdecode(name) if isinstance(name, str | bytes) else str(name)
