"""`localapi say`: a text spoken by the running server, to a file, to a pipe or to the loudspeakers."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO, Final

from localapi.errors import OperatorError

FORMATS: Final = ("mp3", "opus", "aac", "flac", "wav", "pcm")
SUFFIXES: Final = {**{f".{name}": name for name in FORMATS}, ".ogg": "opus", ".m4a": "aac"}
PLAYERS: Final = (
    ("afplay",),
    ("paplay",),
    ("pw-play",),
    ("aplay", "-q"),
    ("ffplay", "-nodisp", "-autoexit", "-v", "0"),
)
"""Programs that play a file, with their options; the first that is there is used."""
CHUNK_BYTES: Final = 16 * 1024


class NothingSaid(OperatorError):
    """The server did not answer, or not with speech."""


def format_of(path: Path) -> str:
    """The format that a file's name asks for. Raises NothingSaid."""
    try:
        return SUFFIXES[path.suffix.lower()]
    except KeyError:
        known = ", ".join(SUFFIXES)
        raise NothingSaid(f"{path} does not say which format it is: end it in {known}, or give --format") from None


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
    """Put the speech into a file, which appears when it is complete. `progress` gets the bytes so far."""
    written = 0
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as draft:
            try:
                for piece in pieces:
                    draft.write(piece)
                    written += len(piece)
                    progress(written)
                draft.close()
                Path(draft.name).replace(path)
            except BaseException:
                Path(draft.name).unlink(missing_ok=True)
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
