"""Reserve ports until a process uses them."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FreePorts:
    """Reserved ports of one address of this machine."""

    addresses: Sequence[str] = ()
    """Addresses such as "127.0.0.1:4000"."""
    _sockets: Sequence[socket.socket] = ()

    def release(self) -> None:
        """Release the ports for the processes that will listen there."""
        for each in self._sockets:
            each.close()


NO_PORTS = FreePorts()


def keep(host: str, count: int) -> FreePorts:
    """Reserve this many ports of this address. Raise OSError."""
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            each = socket.socket()
            sockets.append(each)
            each.bind((host, 0))
    except OSError:
        FreePorts((), sockets).release()
        raise
    return FreePorts([f"{host}:{each.getsockname()[1]}" for each in sockets], sockets)
