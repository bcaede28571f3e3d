"""Another server with OpenAI's API, as an entry describes it. Importing this loads no HTTP client."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

CONNECT_SECONDS: Final = 10.0
FIRST_TOKEN_SECONDS: Final = 600.0
IDLE_SECONDS: Final = 300.0
REPLY_SECONDS: Final = 3600.0
MODELS: Final = "/models"
"""Path of the list of models, below the base."""
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_ENDPOINTS: Final = re.compile(
    r"/(chat/completions|completions|models|audio/speech|audio/transcriptions|audio/translations|responses|embeddings)$"
)
_VERSIONED: Final = re.compile(r"/v\d+\w*(/openai)?$")


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """Options for another server: its address, key and time limits."""

    url: str
    """Base URL of its API, with or without /v1."""
    key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Headers sent with every request. Their values are treated as secrets."""
    ca: Path | None = None
    """Certificates to trust instead of the default ones."""
    verify: bool = True
    """False if the server's certificate is not checked."""
    connect_seconds: float = CONNECT_SECONDS
    first_token_seconds: float = FIRST_TOKEN_SECONDS
    """Time limit for the start of a stream."""
    idle_seconds: float = IDLE_SECONDS
    """Time limit for a pause after that."""
    reply_seconds: float = REPLY_SECONDS
    """Time limit for a reply that is not streamed."""
    probe_path: str = MODELS
    """Path below the base that is probed from time to time to check that the server is up."""

    @property
    def host(self) -> str:
        """Name and port, as in the URL."""
        return urlsplit(self.url).netloc

    @property
    def is_local(self) -> bool:
        """True if requests stay on this machine."""
        name = urlsplit(self.url).hostname or ""
        return name in LOOPBACK or name.startswith("127.")

    @property
    def warnings(self) -> list[str]:
        """Warnings about unsafe settings, for people."""
        if self.is_local:
            return []
        if self.url.startswith("http:") and (self.key or self.headers):
            return [f"the key and all texts go to {self.host} unencrypted: use https"]
        if not self.verify and self.url.startswith("https:") and self.ca is None:
            return [
                f"the certificate of {self.host} is not checked (verify: false): anyone in between can read the traffic"
            ]
        return []

    def bases(self) -> tuple[str, ...]:
        """Return the bases that the URL may mean, the likeliest first."""
        url = _ENDPOINTS.sub("", self.url.rstrip("/"))
        while url.endswith("/v1/v1"):
            url = url.removesuffix("/v1")
        if _VERSIONED.search(urlsplit(url).path):
            return (url,)
        return f"{url}/v1", url

    def scrub(self, text: str) -> str:
        """Return a text of the other server without the secrets that were sent to it."""
        for secret in (self.key, *self.headers.values()):
            if secret:
                text = text.replace(secret, "…")
        return text


@dataclass(frozen=True)
class Sought:
    """Model to find on another server."""

    model: str | None = None
    """Name on the other server; None if that is expected to have exactly one model."""
    usual_model: str | None = None
    """Name to use if `model` is None and the server has several models or lists none."""
    has_default: bool = False
    """True if requests to a server with several models need no name."""
    voices: bool = False
    """True for speech: the server is asked for its voices."""
