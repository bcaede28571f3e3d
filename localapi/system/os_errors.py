"""Explain errors of the operating system to the operator, with advice.

This module knows error numbers, but no models. It uses only the standard library, because workers need it too.
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
"""Errors of files on a network drive that is gone."""


def advise(error: OSError) -> str:
    """Return the error, the path and advice, without a full stop: "No space left on device: free some disk space"."""
    what = error.strerror or str(error)
    # A name that is too long was probably not meant as one, such as a recording in base64.
    if error.filename is not None and error.errno != errno.ENAMETOOLONG:
        name = error.filename
        what += f" ({os.fsdecode(name) if isinstance(name, str | bytes) else name})"
    if error.errno in NO_ROOM:
        return f"{what}: free some disk space"
    if error.errno in NO_RIGHT:
        return f"{what}: the server's user (id {os.geteuid()}) needs access"
    if error.errno in NO_DESCRIPTOR:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"{what}: the limit of this process is {limit}; close connections, or raise it with ulimit -n"
    if error.errno in NO_PROCESS:
        return f"{what}: the system is out of memory or processes; end something, then try again"
    if error.errno in NO_DRIVE:
        return f"{what}: is the drive connected?"
    return what
