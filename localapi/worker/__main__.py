"""Host one model in a separate process: `python -P -m localapi.worker --fd N`.

N is an inherited end of a socket pair; the server holds the other end. (Unlike a socket with a path, a pair leaves
nothing on disk to leak, to guess or to clean up.) When the server's end closes, for whatever reason, this process ends
immediately, even during a load or a decode step, so there are never orphans.

The main thread loads and computes; a second thread reads the socket. This module knows frames and the loop, but no
backend.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import BinaryIO, Final

import msgspec

from localapi.worker import blas, descriptor_limit, rank_link, transformers_index
from localapi.worker.model import CannotLoad, Host, Model, PortTaken
from localapi.worker.outbox import Outbox
from localapi.worker.protocol import (
    LENGTH,
    MAX_FRAME_BYTES,
    Cancel,
    Chat,
    Complete,
    Detokenize,
    Embed,
    Event,
    Loading,
    LoadModel,
    LoadRefused,
    Rerank,
    Speak,
    Step,
    Tokenize,
    ToServer,
    ToWorker,
    Transcribe,
    decode_to_worker,
    frame,
)

PR_SET_PDEATHSIG = 1
"""Defined in linux/prctl.h."""

Inbox = SimpleQueue[ToWorker | None]
"""Queue of messages from the server. None: no message, but the model's `busy` may have changed."""
Send = Callable[[ToServer], None]

_VARIABLES: Final = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # stderr becomes log lines
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub would first ask the Hub for a list of agents
}

ENGINES: Final = {
    "mlx-lm": "localapi.worker.llm.mlx_lm",
    "piper": "localapi.worker.tts.piper",
    "espeak-ng": "localapi.worker.tts.espeak_ng",
    "mlx-audio": "localapi.worker.tts.mlx_audio",
    "faster-whisper": "localapi.worker.stt.faster_whisper",
    "mlx-audio-stt": "localapi.worker.stt.mlx_audio",
    "onnx": "localapi.worker.vectors.onnx",
    "mlx-lm-vectors": "localapi.worker.vectors.mlx",
    "mlx-vlm": "localapi.worker.vlm.mlx_vlm",
}
"""Module of each backend, by the name that the server sends."""


def main() -> None:
    """Load the model that the first message names, then serve it until the server's end of the socket closes."""
    parser = argparse.ArgumentParser(prog="localapi.worker", description="For internal use by the server.")
    parser.add_argument("--fd", type=int, required=True, help="inherited end of a socket pair")
    server = socket.socket(fileno=parser.parse_args().fd)
    end_with_server()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server handles Ctrl-C in the terminal
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    descriptor_limit.allow()
    transformers_index.keep()
    inbox: Inbox = SimpleQueue()
    cancelled: set[int] = set()
    threading.Thread(target=read, args=(server.makefile("rb"), inbox, cancelled), daemon=True).start()

    def send(message: ToServer) -> None:
        try:
            server.sendall(frame(message))
        except OSError:
            os._exit(0)  # the server is gone

    first = inbox.get()
    assert isinstance(first, LoadModel), first  # noqa: S101  # the protocol's first message
    link = rank_link.ALONE
    if first.rank is not None:
        link = rank_link.choice(first.rank, os.environ, rank_link.gpus(os.environ))
        os.environ.update(rank_link.variables(first.rank, link))  # before MLX is imported
    choice = blas.install_openblas() if first.engine.startswith("mlx") else None
    threads = choice.threads if choice is not None else None
    fast_blas = choice.description if choice is not None and choice.is_fast else ""
    host = Host(send, lambda: inbox.put(None), fast_blas, first.rank, link.backend, cancelled.__contains__)
    engine = load(first, host, send, threads)
    if engine is None:
        server.shutdown(socket.SHUT_WR)  # so that sent data arrives before the end of file
        os._exit(1)
    if choice is not None and not choice.is_fast:
        engine.loaded.notes.append(f"MLX uses {choice.description}")
    engine.loaded.device_bytes = device_bytes()
    send(engine.loaded)
    gc.collect()
    gc.freeze()  # so that collections skip the many long-lived objects of the libraries
    try:
        serve(engine, inbox, send, threads, cancelled)
    except RuntimeError as error:
        if first.rank is None or not rank_link.is_lost(error):
            raise
        print(f"another rank is gone: {error}", file=sys.stderr, flush=True)  # noqa: T201
        os._exit(1)  # the server starts all ranks again


def end_with_server() -> None:
    """Let Linux end this process with the server, because a stopped process does not notice that the socket closes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def read(stream: BinaryIO, inbox: Inbox, cancelled: set[int] | None = None) -> None:
    """Put each message into the inbox; end the process if the stream ends or is invalid.

    `cancelled` collects the requests for which the inbox contains a Cancel.
    """
    try:
        while True:
            head = stream.read(LENGTH.size)
            if len(head) < LENGTH.size:
                break
            (length,) = LENGTH.unpack(head)
            if length > MAX_FRAME_BYTES:
                break
            body = stream.read(length)
            if len(body) < length:
                break
            message = decode_to_worker(body)
            if isinstance(message, Cancel) and cancelled is not None:
                cancelled.add(message.id)
            inbox.put(message)
    except ConnectionError:
        pass  # the server ended while it was sending
    except (OSError, msgspec.MsgspecError) as error:
        print(f"invalid message from the server: {error}", file=sys.stderr, flush=True)  # noqa: T201
    finally:
        os._exit(0)


def load(first: LoadModel, host: Host, send: Send, threads: blas.Threads | None = None) -> Model | None:
    """Return the loaded model; None if it was refused, which is reported to the server."""
    try:
        host.report(Loading(phase=f"importing {first.engine}"))
        module = importlib.import_module(ENGINES[first.engine])
        if threads is not None:
            threads.look()  # a backend may measure during loading
        engine: Model = module.load(first.options, host)
    except CannotLoad as error:
        send(LoadRefused(message=str(error), port_taken=isinstance(error, PortTaken)))
        if os.environ.get("LOCALAPI_LOG_LEVEL", "").lower() == "debug":
            sys.excepthook(*sys.exc_info())
        return None
    except Exception as error:  # a bug: the traceback goes to the log
        sys.excepthook(*sys.exc_info())
        send(LoadRefused(message=f"{first.engine} failed while loading: {type(error).__name__}: {error}"))
        return None
    return engine


def serve(
    engine: Model,
    inbox: Inbox,
    send: Send,
    threads: blas.Threads | None = None,
    cancelled: set[int] | None = None,
) -> None:
    """Handle messages and compute steps, forever. Block while there is nothing to do."""

    def told(events: list[Event]) -> Step:
        # only chat models speculate
        return Step(events, device_bytes(), engine.waiting, engine.tokens, getattr(engine, "speculated", None))

    outbox = Outbox(send, told)
    while True:
        while not (engine.busy and inbox.empty()):
            if not engine.busy:
                outbox.flush()
                while inbox.empty() and engine.save_some():
                    pass
            message = inbox.get()
            handle(message, engine, outbox)
            if isinstance(message, Cancel) and cancelled is not None:
                cancelled.discard(message.id)
        if threads is not None:
            threads.look()
        outbox.add(engine.step())


def device_bytes() -> int:
    """Return the GPU memory that MLX holds; 0 on a processor. The process's own memory does not include it."""
    mx = sys.modules.get("mlx.core")
    if mx is None or mx.default_device().type == mx.cpu:
        return 0
    return int(mx.get_active_memory() + mx.get_cache_memory())


def handle(message: ToWorker | None, engine: Model, outbox: Outbox) -> None:
    """Pass one message to the model."""
    match message:
        case Chat() | Complete() | Tokenize() | Detokenize() | Speak() | Transcribe() | Embed() | Rerank():
            if outbox.expect(message.id):
                engine.take(message)
            else:
                print(f"request {message.id} came twice; the second is ignored", file=sys.stderr)  # noqa: T201
        case Cancel():
            engine.cancel(message.id)
            outbox.forget(message.id)
            outbox.heartbeat()
        case None:
            pass
        case LoadModel():
            print("a second LoadModel was ignored", file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
