"""All messages of the protocol, and their framing.

A frame is a length (4 bytes, big-endian) and that many bytes of msgpack.
"""

from __future__ import annotations

import struct
from typing import Literal

import msgspec

from localapi.worker.protocol.chat_events import (
    Addition,
    Delta,
    DetokenizedText,
    Ended,
    Finished,
    Prefill,
    Relaxed,
    TokenizedText,
    ToolArguments,
    ToolStart,
)
from localapi.worker.protocol.chat_request import TextRequest
from localapi.worker.protocol.forwarding import Forward, ForwardedData, ForwardedEnd, ForwardedHead
from localapi.worker.protocol.loading import Loaded, Loading, LoadModel, LoadRefused
from localapi.worker.protocol.speech import Sound, Speak, Spoken, WordTimes
from localapi.worker.protocol.transcription import Heard, Listening, Transcribe, Transcribed
from localapi.worker.protocol.vectors import Embedded, Ranked, VectorRequest

LENGTH = struct.Struct(">I")
MAX_FRAME_BYTES = 256 * 1024 * 1024


class Cancel(msgspec.Struct, tag=True):
    """Server to worker: the request was cancelled. A step follows, without an event for it."""

    id: int


class Awaiting(msgspec.Struct, tag=True, kw_only=True):
    """Progress of a request on another server, before its response begins."""

    id: int
    at: str
    """The server, for people."""
    state: str
    """State, as in `runtime.progress`."""
    position: int | None = None
    step: str = ""
    done: int = 0
    total: int = 0


class ComesWhole(msgspec.Struct, tag=True):
    """Another server works on the request, and sends nothing before its reply is complete."""

    id: int


class Failed(msgspec.Struct, tag=True):
    """The request ended without a response; nothing follows for this id."""

    id: int
    kind: Literal["invalid_request", "context_length_exceeded", "generation_failed"]
    message: str
    param: str | None = None


Preliminary = Prefill | Awaiting | ComesWhole | Listening | Relaxed
"""Events that precede a response, and are not part of it."""
Event = (
    Prefill | Awaiting | ComesWhole | Listening | Relaxed | Delta | ToolStart | ToolArguments | Ended | Finished
    | TokenizedText | DetokenizedText | Sound | WordTimes | Spoken | Heard | Transcribed | Embedded | Ranked | Failed
    | Addition | ForwardedHead | ForwardedData | ForwardedEnd
)  # fmt: skip
Last = Finished | TokenizedText | DetokenizedText | Spoken | Transcribed | Embedded | Ranked | ForwardedEnd | Failed
"""Events after which nothing follows for the id."""


class Speculated(msgspec.Struct, frozen=True):
    """Tokens computed together with the previous one, since the model was loaded."""

    forced: int = 0
    """Tokens forced by a grammar."""
    proposed: int = 0
    """Guessed tokens that the model checked."""
    accepted: int = 0
    """Guessed tokens that the model confirmed."""


class Step(msgspec.Struct, tag=True):
    """Worker to server: the events of one decode step, for all requests. Without events, it is a sign of life."""

    events: list[Event]
    device_bytes: int = 0
    """Memory of an accelerator that the engine holds; 0 if it computes on the processor."""
    waiting: int = 0
    """Requests that have not been started, because the batch or the memory for conversations is full."""
    tokens: int = 0
    """Tokens generated since the model was loaded, in all responses."""
    speculated: Speculated | None = None
    """Speculated tokens; None if the engine computes one token at a time."""


Request = TextRequest | Speak | Transcribe | VectorRequest | Forward
ToWorker = LoadModel | Request | Cancel
ToServer = Loading | Loaded | LoadRefused | Step

_encoder = msgspec.msgpack.Encoder()
_to_worker = msgspec.msgpack.Decoder(ToWorker)
_to_server = msgspec.msgpack.Decoder(ToServer)


def frame(message: msgspec.Struct) -> bytes:
    """Return a message of this protocol, or of another one with the same frames, as a frame."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


def decode_to_worker(body: bytes) -> ToWorker:
    """Return the message of a frame, in the worker. Raise msgspec.DecodeError or msgspec.ValidationError."""
    message: ToWorker = _to_worker.decode(body)
    return message


def decode_to_server(body: bytes) -> ToServer:
    """Return the message of a frame, in the server. Raise msgspec.DecodeError or msgspec.ValidationError."""
    message: ToServer = _to_server.decode(body)
    return message
