"""Detect requests that return to a server they have passed, because servers name each other in their manifests."""

from __future__ import annotations

import re
from typing import Final

from quart import request

from localapi.backends.engine import VIA_HEADER, via
from localapi.errors import LoopDetected

LONGEST: Final = 16
"""Maximum servers that a request may pass."""
_ID: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")


class LoopCheck:
    """Check of each request to the server with this id; it records the servers passed for upstreams."""

    def __init__(self, server_id: str) -> None:
        self._id = server_id

    def check(self) -> None:
        """Raise LoopDetected if the request has passed this server before, or too many servers."""
        said = request.headers.get(VIA_HEADER, "")
        parts = [part.strip() for part in said.split(",")]
        chain = tuple(part for part in parts if _ID.fullmatch(part))
        if self._id in chain:
            raise LoopDetected(
                "The request has returned to this server: their manifests send it in a circle. Remove one of the "
                "entries, peers or members of pools that lead from one to the other."
            )
        if len(chain) >= LONGEST:
            raise LoopDetected(f"The request has passed too many servers ({VIA_HEADER}): {len(chain)}.")
        via.set((*chain, self._id))
