"""HTTP client for a running server: JSON, bytes, server-sent events and errors."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from localapi.errors import NoServer, Refused

CHUNK_BYTES: Final = 16 * 1024
CONNECT_SECONDS: Final = 2
_NO_PROXY: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Event:
    """Server-sent event, or a comment between events."""

    name: str
    """Name of the event: "message" if it has none, "comment" for a comment."""
    data: str

    def json(self) -> Any:
        """Return the data, decoded from JSON."""
        return json.loads(self.data)


@dataclass(frozen=True)
class Server:
    """Server at an address such as http://127.0.0.1:8000, with the headers that carry an API key.

    Each request may raise NoServer if there is no reply or the connection breaks, or Refused with the server's error.
    """

    address: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def is_there(self) -> bool:
        """Return whether something listens at the address."""
        try:
            with socket.create_connection(self.host_and_port, timeout=CONNECT_SECONDS):
                return True
        except (OSError, ValueError):  # also for invalid names, such as one with http://
            return False

    @property
    def host_and_port(self) -> tuple[str, int]:
        """Host and port for sockets."""
        parts = urllib.parse.urlsplit(self.address)
        return parts.hostname or "", parts.port or http.client.HTTP_PORT

    def get(self, path: str, *, seconds: float | None = None) -> Any:
        """Return the JSON reply of a GET. `seconds` limits each wait for the server."""
        with self._opened(path, None, seconds) as reply:
            return _json(reply.read(), self.address)

    def post(self, path: str, body: object = None, *, seconds: float | None = None) -> Any:
        """Return the JSON reply of a POST."""
        with self._opened(path, {} if body is None else body, seconds) as reply:
            return _json(reply.read(), self.address)

    def stream(self, path: str, body: object) -> Iterator[bytes]:
        """Yield the bytes of the reply to a POST as they arrive. Closing the iterator closes the connection."""
        with self._opened(path, body, None) as reply:
            while data := reply.read1(CHUNK_BYTES):
                yield data

    def events(
        self, path: str, body: object = None, *, form: tuple[Mapping[str, str], Iterable[bytes]] | None = None
    ) -> Generator[Event, None, None]:
        """Yield the server-sent events of a GET, or of a POST if there is a body, with comments as events.

        `form` is a body other than JSON: its headers and its bytes. Closing the iterator closes the connection.
        """
        with self._opened(path, body, None, form) as reply:
            yield from _events(reply)

    @contextmanager
    def _opened(
        self,
        path: str,
        body: object,
        seconds: float | None,
        form: tuple[Mapping[str, str], Iterable[bytes]] | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        data: bytes | Iterable[bytes] | None = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **self.headers}
        if form is not None:
            headers, data = {**self.headers, **form[0]}, form[1]
        wrong_address = f"{self.address} is not a valid address; check --host and HOST"
        try:
            asked = urllib.request.Request(f"{self.address}{path}", data, headers)  # noqa: S310  # the scheme is ours
        except ValueError:
            raise NoServer(wrong_address) from None
        try:
            with _NO_PROXY.open(asked, timeout=seconds) as reply:
                yield reply
        except urllib.error.HTTPError as error:
            raise _refused(error) from None
        except (http.client.InvalidURL, UnicodeError):
            raise NoServer(wrong_address) from None
        except urllib.error.URLError as error:
            raise NoServer(
                f"no server responds on {self.address} ({error.reason}); start one with `localapi`"
            ) from None
        except TimeoutError:
            raise NoServer(f"the server on {self.address} did not respond within {seconds:g} s") from None
        except (http.client.HTTPException, OSError) as error:
            raise NoServer(f"the server on {self.address} closed the connection ({error}); see its log") from None


def _json(text: bytes, address: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise NoServer(f"the program on {address} is not localapi: its reply is not JSON") from None


def _refused(error: urllib.error.HTTPError) -> Refused:
    with error:
        told: Any = {}
        with contextlib.suppress(ValueError, KeyError, TypeError, OSError, http.client.HTTPException):
            told = json.load(error)["error"]
    told = told if isinstance(told, dict) else {}
    message = told.get("message") or f"the server answered with status {error.code}"
    if error.code == HTTPStatus.UNAUTHORIZED:
        message = f"{message} Set the variable LOCALAPI_API_KEY to a key."
    return Refused(str(message), status=error.code, code=told.get("code"))


def _events(lines: Iterator[bytes] | http.client.HTTPResponse) -> Iterator[Event]:
    """Yield the events in a stream of lines; an event is complete at its blank line."""
    name, data = "message", list[str]()
    for raw in lines:
        line = raw.decode(errors="replace").rstrip("\r\n")
        key, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield Event(name, "\n".join(data))
            name, data = "message", []
        elif not key:
            yield Event("comment", value)
        elif key == "event":
            name = value
        elif key == "data":
            data.append(value)
