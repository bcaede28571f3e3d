"""The backend openai: a model on another server with OpenAI's API, on this machine or elsewhere."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from localapi.backends.engine import Engine, ReportLoading
from localapi.backends.option_types import StrictModel
from localapi.backends.options import ChatOptions, EntryOptions, FolderOf, Identity, RunsIn
from localapi.backends.parameters import MEDIA, TEXT
from localapi.backends.secret import NoSecret, SecretPlace, located_place, stamp_of
from localapi.backends.speech import ForwardedSpeech, file_at
from localapi.backends.transcription import TranscriptionOptions
from localapi.backends.upstream import (
    CONNECT_SECONDS,
    FIRST_TOKEN_SECONDS,
    IDLE_SECONDS,
    REPLY_SECONDS,
    Sought,
    Upstream,
)
from localapi.backends.vector_options import EmbeddingOptions, RerankOptions
from localapi.errors import UpstreamRefused
from localapi.system.threads import aside
from localapi.worker.protocol import Loading

if TYPE_CHECKING:
    from localapi.backends.http_engine import HttpEngine

_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OURS: Final = frozenset(
    {"host", "content-length", "content-type", "transfer-encoding", "connection", "accept-encoding"}
)
MAX_PORT: Final = 65535


def server_url(url: str) -> str:
    """Check the base URL of an API, and return it. Raise ValueError."""
    if "@" in url:
        raise ValueError("should not contain a user name or password; put them in `key` or `headers`")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        with_scheme = f"http://{url.split('://', 1)[-1]}"
        raise ValueError(f"should begin with http:// or https://, as in {with_scheme[:100]}")
    try:
        name, port = parts.hostname, parts.port
    except ValueError:
        if parts.netloc.count(":") > 1 and "[" not in parts.netloc:
            raise ValueError("should have an IPv6 address in brackets, as in http://[::1]:8000") from None
        raise ValueError(f"should have a port between 1 and {MAX_PORT}") from None
    if not name or port == 0 or re.search(r"\s", url):
        raise ValueError("should be an address such as http://127.0.0.1:8001/v1")
    if parts.query or parts.fragment:
        raise ValueError("should end before ? and #")
    return url


def _headers(headers: dict[str, Any]) -> dict[str, Any]:
    for name, value in headers.items():
        if not _HEADER.fullmatch(name):
            raise ValueError("should have names of HTTP headers, such as X-Team")
        if name.lower() == "authorization":
            raise ValueError("should not contain Authorization: the option `key` sends it as a bearer token")
        if name.lower() in _OURS:
            raise ValueError(f"should not contain {name}, which the server sets itself")
        if isinstance(value, str) and not (value.isascii() and value.isprintable()):
            raise ValueError("should have values of printable ASCII characters")
    return headers


class OtherServer(StrictModel):
    """Options for another server: its address, key and time limits."""

    url: Annotated[
        str,
        AfterValidator(server_url),
        Field(
            description="Base URL of the other server's API, with or without /v1.",
            examples=["http://127.0.0.1:8001/v1", "https://api.example.com"],
            repr=False,
        ),
    ]
    key: Annotated[
        SecretPlace | None,
        Field(
            description="Where to find the API key for the other server.", examples=[{"env": "CLOUD_KEY"}], repr=False
        ),
    ] = None
    headers: Annotated[
        dict[str, str | SecretPlace],
        AfterValidator(_headers),
        Field(
            description="Further headers for the other server; values may name secrets, as in `key`.",
            examples=[{"X-Team": "research"}],
            repr=False,
        ),
    ] = {}
    ca: Annotated[
        str | None,
        Field(
            min_length=1,
            description="File with the certificates (PEM) to trust instead of the default ones.",
            examples=["./ca.pem"],
        ),
    ] = None
    verify: Annotated[
        bool,
        Field(description="Check the other server's certificate. If false, anyone in between can read the traffic."),
    ] = True
    connect_seconds: Annotated[
        float,
        Field(gt=0, allow_inf_nan=False, description="Time limit for connecting.", examples=[2]),
    ] = CONNECT_SECONDS
    first_token_seconds: Annotated[
        float,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Time limit for the start of a stream; after it, the request gets a 504.",
            examples=[30],
        ),
    ] = FIRST_TOKEN_SECONDS
    idle_seconds: Annotated[
        float,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Time limit for a pause within a stream; after it, the request gets a 504.",
            examples=[60],
        ),
    ] = IDLE_SECONDS
    reply_seconds: Annotated[
        float,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Time limit for a reply that is not streamed; after it, the request gets a 504.",
            examples=[120],
        ),
    ] = REPLY_SECONDS

    @property
    def host(self) -> str:
        """Name and port of the server."""
        return urlsplit(self.url).netloc

    def located_server(self, folder_of: FolderOf) -> dict[str, Any]:
        """Return the options that name files, with absolute paths. Raise PathProblem."""
        located: dict[str, Any] = {}
        if self.ca is not None:
            located["ca"] = str(file_at("ca", self.ca, folder_of))
        if self.key is not None:
            located["key"] = located_place(("key",), self.key, folder_of)
        located["headers"] = {
            name: value if isinstance(value, str) else located_place(("headers", name), value, folder_of)
            for name, value in self.headers.items()
        }
        return located

    def secret_files(self) -> tuple[Path, ...]:
        """Return the files that a located entry reads."""
        places = [place for place in (self.key, *self.headers.values()) if isinstance(place, SecretPlace)]
        files = [place.file for place in places] + [self.ca]
        return tuple(Path(file) for file in files if file is not None)

    def upstream(self, name: str) -> Upstream:
        """Return the other server with its secrets. Blocks. Raise UpstreamRefused if a secret cannot be read."""
        return Upstream(
            url=self.url,
            key=None if self.key is None else _secret(name, "key", self.key),
            headers={
                header: value if isinstance(value, str) else _secret(name, f"headers.{header}", value)
                for header, value in self.headers.items()
            },
            ca=None if self.ca is None else Path(self.ca),
            verify=self.verify,
            connect_seconds=self.connect_seconds,
            first_token_seconds=self.first_token_seconds,
            idle_seconds=self.idle_seconds,
            reply_seconds=self.reply_seconds,
        )

    def stamps(self) -> dict[str, Any]:
        """Return the state of the files that the entry reads, for its identity: another key is another upstream."""
        found = stamp_of(self.secret_files())
        return {"stamp": found} if found else {}


def _secret(name: str, option: str, place: SecretPlace) -> str:
    try:
        return place.read()
    except NoSecret as error:
        where = f"the variable {place.env}" if place.env is not None else f"the file {place.file}"
        raise UpstreamRefused(f"`{option}` of {name} names {where}: {error}.") from None


class UpstreamOptions(OtherServer, EntryOptions):
    """Options of every entry whose model is on another server."""

    has_voices: ClassVar[bool] = False
    """True if the server is asked for its voices."""
    model: Annotated[
        str | None,
        Field(
            min_length=1,
            description="Name of the model on the other server. Default: its only model.",
            examples=["big-model"],
        ),
    ] = None

    def located(self, folder_of: FolderOf) -> Self:
        located = super().located(folder_of)
        assert isinstance(located, type(self))  # noqa: S101  # a kind's options return their own class
        return located.model_copy(update=self.located_server(folder_of))

    def identity(self) -> Identity:
        identity = super().identity()
        return Identity(identity.backend, {**identity.options, **self.stamps()})

    def files(self) -> tuple[Path, ...]:
        return self.secret_files()

    @property
    def runs_in(self) -> RunsIn:
        return "upstream"

    @property
    def runs_at(self) -> str | None:
        return self.host

    async def start(self, name: str, report: ReportLoading) -> Engine:
        place = await aside(lambda: self.upstream(name))
        report(Loading("connecting"))
        # The client takes long to import, and only servers with such entries need it.
        module = await aside(lambda: importlib.import_module("localapi.backends.http_engine"))
        engine: HttpEngine = module.HttpEngine(name, place, Sought(self.model, voices=self.has_voices))
        await engine.connect()
        return engine


class OpenAI(UpstreamOptions, ChatOptions):
    """Options of a chat model on another server."""

    honours = TEXT | MEDIA
    forwards = True
    backend: Annotated[
        Literal["openai"], Field(description="Model on another server with OpenAI's API: vLLM, a cloud, ...")
    ]


class OpenAISpeech(UpstreamOptions, ForwardedSpeech):
    """Options of a speech model on another server."""

    has_voices = True
    backend: Annotated[
        Literal["openai"], Field(description="Speech model on another server with OpenAI's /v1/audio/speech.")
    ]


class OpenAIEmbedding(UpstreamOptions, EmbeddingOptions):
    """Options of an embedding model on another server."""

    backend: Annotated[
        Literal["openai"], Field(description="Embedding model on another server with OpenAI's /v1/embeddings.")
    ]


class OpenAIRerank(UpstreamOptions, RerankOptions):
    """Options of a rerank model on another server."""

    backend: Annotated[
        Literal["openai"],
        Field(description="Rerank model on another server with /v1/rerank: vLLM, Infinity, ..."),
    ]


class OpenAITranscription(UpstreamOptions, TranscriptionOptions):
    """Options of a transcription model on another server."""

    forwards = True
    backend: Annotated[
        Literal["openai"],
        Field(description="Model on another server with OpenAI's /v1/audio/transcriptions."),
    ]
