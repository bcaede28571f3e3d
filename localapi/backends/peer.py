"""Another localapi whose models are offered here: its options in the manifest, and its description of its models."""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any, Final, Self
from urllib.parse import urlsplit

import msgspec
from pydantic import Field, create_model

from localapi.backends.openai import OtherServer
from localapi.backends.options import FolderOf, Name
from localapi.backends.upstream import Upstream
from localapi.errors import ApiError, LoopDetected, UpstreamRefused
from localapi.system.threads import aside
from localapi.worker.protocol import Voice

if TYPE_CHECKING:
    from localapi.backends.http_client import HttpClient

log = logging.getLogger(__name__)

MOST_MODELS: Final = 1000
"""Maximum models of one peer that are offered here."""
SEPARATOR: Final = "/"
"""Separator between the name of a peer and that of its model."""


class _PeerOptions(OtherServer):
    only: Annotated[
        list[Name],
        Field(description="Patterns of names of its models; only these are offered here.", examples=[["qwen*"]]),
    ] = []

    def located(self, folder_of: FolderOf) -> Self:
        """Return these options with absolute paths. Raise PathProblem."""
        return self.model_copy(update=self.located_server(folder_of))

    def offers(self, model: str) -> bool:
        """Return True if this model of the peer should be offered here."""
        without: list[str] = getattr(self, "except")
        if any(fnmatchcase(model, pattern) for pattern in without):
            return False
        return not self.only or any(fnmatchcase(model, pattern) for pattern in self.only)


_without: Any = Annotated[
    list[Name],
    Field(description="Patterns of names of its models that are not offered here.", examples=[["*-draft"]]),
]


class PeerOptions(create_model("PeerOptions", __base__=_PeerOptions, **{"except": (_without, [])})):  # type: ignore[misc]
    """Another localapi. Its models are offered here as PEER/MODEL."""


class LoadThere(msgspec.Struct):
    """Progress of a load, from the peer's `/status`."""

    phase: str = ""
    done: int = 0
    total: int = 0


class RequestsThere(msgspec.Struct):
    """Requests in the peer's engine."""

    running: int = 0
    waiting: int = 0


class StatusThere(msgspec.Struct):
    """State of a model, from the peer's `/status`."""

    id: str = ""
    waiting: int = 0
    """Requests in its queue."""
    requests: RequestsThere | None = None
    healthy: bool | None = None
    unhealthy_reason: str | None = None
    tokens_per_second: float | None = None
    last_error: str | None = None
    progress: LoadThere | None = None


class StatusPage(msgspec.Struct):
    """The peer's `/status`."""

    models: list[StatusThere]


@dataclass(frozen=True)
class Answer:
    """Description of a peer, as reported by the peer."""

    models: list[dict[str, Any]]
    """Its own models, as its `/v1/models` describes them, without those of its peers."""
    status: Mapping[str, StatusThere] = field(default_factory=dict)
    """Status of each model by id; empty if the key has no admin right."""
    voices: Mapping[str, list[Voice]] = field(default_factory=dict)
    """The voices of each speech model, by id."""


class PeerClient:
    """Connection to a peer, for questions about its models."""

    def __init__(self, name: str, upstream: Upstream, client: HttpClient) -> None:
        self.upstream = upstream
        self._name = name
        self._client = client
        self._is_admin = True
        """False if the peer does not show its status to this key."""

    @classmethod
    async def open(cls, name: str, options: OtherServer, *, sender: str | None) -> Self:
        """Return the connection to a peer; nothing is sent yet. Raise UpstreamRefused.

        `sender` is the id of this server, by which a peer detects that it is this server itself.
        """
        described = f"peers.{name}"
        upstream = await aside(lambda: options.upstream(described))
        # The client takes long to import, and only servers with peers need it.
        module = await aside(lambda: importlib.import_module("localapi.backends.http_client"))
        client: HttpClient = module.HttpClient(described, upstream, who=f"The peer {name}", sender=sender)
        await client.open()
        return cls(name, upstream, client)

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def ask(self) -> Answer:
        """Return what the peer offers. Raise ApiError if it is away, rejects the key, or is not localapi."""
        try:
            models = self._checked(await self._client.models())
            status = await self._status()
            is_speaking = any(each["kind"] == "speech" for each in models)
            return Answer(models, status, await self._voices() if is_speaking else {})
        except LoopDetected:
            raise UpstreamRefused(
                f"The peer {self._name} ({self.upstream.host}) is this server itself. Remove it from `peers`."
            ) from None

    def _checked(self, listed: list[Any] | None) -> list[dict[str, Any]]:
        """Return the peer's own models. Raise UpstreamRefused if another program lists them."""
        if listed is None:
            raise self._another("it has no /v1/models")
        models: list[dict[str, Any]] = []
        for each in listed[:MOST_MODELS]:
            is_ours = (
                isinstance(each, dict) and each.get("owned_by") == "localapi" and isinstance(each.get("kind"), str)
            )
            if not is_ours or not isinstance(each.get("id"), str):
                raise self._another("its list of models comes from another program")
            if each.get("peer") is None:
                models.append(each)
        return models

    def _another(self, reason: str) -> UpstreamRefused:
        return UpstreamRefused(
            f"The peer {self._name} ({self.upstream.host}) is not localapi: {reason}. For vLLM, Ollama and others, "
            f"remove it from `peers` and add an entry with `backend: openai` and `url: {_base(self.upstream.url)}`."
        )

    async def _status(self) -> dict[str, StatusThere]:
        """Return the state of each model by id; nothing if the key may not see it, which is determined once."""
        if not self._is_admin:
            return {}
        try:
            content = await self._client.get("/../status")
        except UpstreamRefused:
            self._is_admin = False
            return {}
        try:
            return {each.id: each for each in msgspec.convert(content, StatusPage).models}
        except msgspec.ValidationError as error:  # of another version
            log.debug("peers.%s: its status is ignored: %s", self._name, error)
            return {}

    async def _voices(self) -> dict[str, list[Voice]]:
        content = await self._client.get("/audio/voices")
        voices: dict[str, list[Voice]] = {}
        for each in (content.get("voices") if isinstance(content, dict) else None) or ():
            if isinstance(each, dict) and isinstance(each.get("id"), str):
                voice = Voice(each["id"], str(each.get("name") or ""), str(each.get("language") or ""))
                voices.setdefault(str(each.get("model")), []).append(voice)
        return voices


async def faults(peers: Mapping[str, OtherServer], *, seconds: float) -> dict[str, str]:
    """Return why peers cannot be used, by name. All are asked concurrently, within the time limit."""

    async def fault(name: str, options: OtherServer) -> str | None:
        try:
            async with asyncio.timeout(seconds):
                client = await PeerClient.open(name, options, sender=None)
                try:
                    await client.ask()
                finally:
                    await client.close()
        except TimeoutError:
            return f"The peer {name}, {options.host}, did not respond within {seconds:g} s."
        except ApiError as error:
            return error.message
        return None

    found = await asyncio.gather(*(fault(name, options) for name, options in peers.items()))
    return {name: reason for name, reason in zip(peers, found, strict=True) if reason is not None}


def _base(url: str) -> str:
    """Return a URL for an entry: with a path, but without anything that may be secret."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/") or "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}"
