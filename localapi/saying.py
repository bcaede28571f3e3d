"""`localapi say`: a text spoken by a server, to a file, to a pipe or to the loudspeakers."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO, Final

from localapi.errors import OperatorError

FORMATS: Final = ("mp3", "opus", "aac", "flac", "wav", "pcm")
SUFFIXES: Final = {**{f".{name}": name for name in FORMATS}, ".ogg": "opus"}
PLAYERS: Final = (
    ("afplay",),
    ("paplay",),
    ("pw-play",),
    ("aplay", "-q"),
    ("ffplay", "-nodisp", "-autoexit", "-v", "0"),
)
"""Programs that play a file, with their options; the first that is there is used."""
CHUNK_BYTES: Final = 16 * 1024
CONNECT_SECONDS: Final = 2


class NothingSaid(OperatorError):
    """The server did not answer, or not with speech."""


def format_of(path: Path) -> str:
    """The format that a file's name asks for. Raises NothingSaid."""
    try:
        return SUFFIXES[path.suffix.lower()]
    except KeyError:
        known = ", ".join(SUFFIXES)
        raise NothingSaid(f"{path} does not say which format it is: end it in {known}, or give --format") from None


@contextlib.contextmanager
def server(address: str, profile: str | None, *, may_start: bool) -> Iterator[str]:
    """The address of a server that runs: the given one, or one that is started here and ended afterwards.

    Raises NothingSaid where the one that was started ends at once, with its last words.
    """
    if not may_start or _is_served(address):
        yield address
        return
    command = [sys.executable, "-m", "localapi", "serve", "--host", "127.0.0.1", "--port", "0"]
    command += ["--profile", profile] if profile is not None else []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as process:  # noqa: S603
        try:
            yield _address_of(process)
        finally:
            process.terminate()


def _is_served(address: str) -> bool:
    parts = urllib.parse.urlsplit(address)
    try:
        with socket.create_connection((parts.hostname, parts.port), timeout=CONNECT_SECONDS):
            return True
    except OSError:
        return False


def _address_of(process: subprocess.Popen[str]) -> str:
    """Where a server that starts will listen; its log is read from then on, so that it never waits for a reader."""
    assert process.stderr is not None  # noqa: S101  # it was started with a pipe
    line = ""
    for line in process.stderr:
        if found := re.search(r" on (http://\S+)/v1", line):
            threading.Thread(target=_read_out, args=(process,), daemon=True).start()
            return found[1]
    raise NothingSaid(f"no server runs, and none could be started: {line.strip()}")


def _read_out(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None  # noqa: S101  # it was started with a pipe
    with contextlib.suppress(ValueError, OSError):
        for _ in process.stderr:
            pass


def speech(address: str, request: dict[str, Any], headers: Mapping[str, str]) -> Iterator[bytes]:
    """The file, as it comes. Raises NothingSaid with the server's reason."""
    asked = urllib.request.Request(  # noqa: S310  # the scheme is ours
        f"{address}/v1/audio/speech",
        data=json.dumps({name: value for name, value in request.items() if value is not None}).encode(),
        headers={"Content-Type": "application/json", **headers},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(asked) as reply:
            while data := reply.read1(CHUNK_BYTES):
                yield data
    except urllib.error.HTTPError as error:
        hint = " Put it into the variable LOCALAPI_API_KEY." if error.code == HTTPStatus.UNAUTHORIZED else ""
        raise NothingSaid(_reason(error) + hint) from None
    except http.client.HTTPException as error:
        raise NothingSaid(f"the server on {address} broke off: its log says why ({error})") from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise NothingSaid(f"no server answers on {address} ({reason}): start one with `localapi`") from None


def _reason(error: urllib.error.HTTPError) -> str:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.load(error)["error"]["message"])
    return f"the server answered with status {error.code}"


def write(pieces: Iterator[bytes], path: Path, progress: Callable[[int], None]) -> None:
    """Put the speech into a file, which appears when it is complete; a device or a named pipe gets it as it comes.

    `progress` gets the bytes so far.
    """
    special = path.exists() and not path.is_file()
    draft = path if special else path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            with draft.open("wb") as out:
                written = 0
                for piece in pieces:
                    written += out.write(piece)
                    progress(written)
            if not special:
                draft.replace(path)
        except BaseException:
            if not special:
                draft.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise NothingSaid(f"{path} cannot be written: {error.strerror}") from error


def pipe(pieces: Iterator[bytes], out: BinaryIO) -> None:
    """Put the speech on a pipe as it comes."""
    for piece in pieces:
        out.write(piece)
        out.flush()


def play(pieces: Iterator[bytes]) -> None:
    """Play a WAV file when it is complete. Raises NothingSaid where nothing can play it."""
    player = next((player for player in PLAYERS if shutil.which(player[0])), None)
    if player is None:
        names = ", ".join(player[0] for player in PLAYERS)
        raise NothingSaid(f"there is no program to play sound with ({names}): write a file with --output FILE")
    with tempfile.TemporaryDirectory(prefix="localapi-") as folder:
        path = Path(folder) / "said.wav"
        write(pieces, path, lambda _: None)
        status = subprocess.run([*player, str(path)], check=False, stdout=sys.stderr).returncode  # noqa: S603
    if status != 0:
        raise NothingSaid(f"{player[0]} ended with exit status {status}")
