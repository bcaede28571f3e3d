"""The messages between server and worker, and how they are framed.

A frame is a length (4 bytes, big-endian) and that many bytes of msgpack. The structs know nothing of HTTP, YAML or of
any engine; OpenAI's words are used where OpenAI has a word. The echo engine, which lives in the server, speaks the same
structs without the frames.
"""

from __future__ import annotations

import struct
from typing import Any, Literal

import msgspec

LENGTH = struct.Struct(">I")
MAX_FRAME_BYTES = 256 * 1024 * 1024


class Load(msgspec.Struct, tag=True):
    """Server to worker, once and first: what to load."""

    engine: str
    """Name of the engine's module in `localapi.worker`, with dashes: "mlx-lm"."""
    options: dict[str, Any]
    """The entry's identity, as the backend's options name it; plain values, paths resolved."""


class Sampling(msgspec.Struct, frozen=True):
    """How the next token is chosen."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None


class Chat(msgspec.Struct, tag=True):
    """Server to worker: continue this conversation."""

    id: int
    messages: list[dict[str, Any]]
    """OpenAI's messages with content as one string; checked by the server."""
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    """None: until the model stops or its context is full."""
    stop: list[str] = []


class Cancel(msgspec.Struct, tag=True):
    """Server to worker: nobody waits for this request any more. No answer is sent for it."""

    id: int


class Loading(msgspec.Struct, tag=True):
    """Worker to server: how far loading is."""

    phase: str
    """What happens now, for people: "importing mlx-lm", "downloading", "reading weights"."""
    done: int = 0
    total: int = 0
    """Bytes; 0 where nothing is counted."""


class Loaded(msgspec.Struct, tag=True):
    """Worker to server: the model answers from now on."""

    context_length: int | None = None
    """Tokens of prompt and answer together; None where the model does not say."""
    notes: list[str] = []
    """What a user should know about how this model runs ("no chat template: ...")."""


class LoadRefused(msgspec.Struct, tag=True):
    """Worker to server: the model does not load. The worker ends itself after this."""

    message: str


class Prefill(msgspec.Struct, tag=True):
    """How much of a prompt is processed."""

    id: int
    done: int
    total: int
    """Tokens."""


class Delta(msgspec.Struct, tag=True):
    """Text that a request's answer grew by."""

    id: int
    text: str


class Finished(msgspec.Struct, tag=True):
    """The answer is complete; nothing follows for this id."""

    id: int
    reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int


class Failed(msgspec.Struct, tag=True):
    """The request ended without an answer; nothing follows for this id."""

    id: int
    kind: Literal["invalid_request", "context_length_exceeded", "generation_failed"]
    message: str
    param: str | None = None


Event = Prefill | Delta | Finished | Failed


class Step(msgspec.Struct, tag=True):
    """Worker to server: what one decode step brought, for every request in it."""

    events: list[Event]


ToWorker = Load | Chat | Cancel
ToServer = Loading | Loaded | LoadRefused | Step

_encoder = msgspec.msgpack.Encoder()
_to_worker = msgspec.msgpack.Decoder(ToWorker)
_to_server = msgspec.msgpack.Decoder(ToServer)


def frame(message: ToWorker | ToServer) -> bytes:
    """The message as it goes over the socket."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


def decode_to_worker(body: bytes) -> ToWorker:
    """A frame's body on the worker's side. Raises msgspec.DecodeError or msgspec.ValidationError."""
    message: ToWorker = _to_worker.decode(body)
    return message


def decode_to_server(body: bytes) -> ToServer:
    """A frame's body on the server's side. Raises msgspec.DecodeError or msgspec.ValidationError."""
    message: ToServer = _to_server.decode(body)
    return message
