"""How large a body may be: as large as its endpoint has a use for."""

from __future__ import annotations

from typing import Any, Final

from quart import Request

from localapi.api.openai.reference_audio import LONGEST_WRITTEN

MEGABYTE: Final = 2**20
MAX_BODY_BYTES: Final = 16 * MEGABYTE
SPEECH: Final = "/v1/audio/speech"
MAX_SPEECH_BODY_BYTES: Final = 2 * LONGEST_WRITTEN + MEGABYTE
"""A text, and the two recordings that a request can bring (ref_audio, source_audio)."""


def limit_of(path: str) -> int:
    """Return the bytes that a body for this path may have."""
    return MAX_SPEECH_BODY_BYTES if path.rstrip("/") == SPEECH else MAX_BODY_BYTES


class LimitedRequest(Request):
    """A request whose body is limited by its path: Quart knows one limit for all."""

    def __init__(self, method: str, scheme: str, path: str, *arguments: Any, **options: Any) -> None:
        limit = limit_of(path)
        super().__init__(method, scheme, path, *arguments, **{**options, "max_content_length": limit})
        self.max_content_length = limit
