"""Check the server's port and the Hugging Face Hub."""

from __future__ import annotations

import functools
import os
import threading
import urllib.error
import urllib.request
from typing import Final

from localapi.diagnosis.finding import Finding, Subject
from localapi.errors import NoServer, Refused
from localapi.system.threads import within

SECONDS: Final = 4.0
HUB: Final = "https://huggingface.co"


def server(subject: Subject) -> list[Finding]:
    """Check whether the port is free, or used by localapi."""
    at = subject.server.address
    if not subject.server.is_there():
        return [Finding("server", "ok", f"not running on {at}; the port is free")]
    try:
        told = subject.server.get("/openapi.json", seconds=SECONDS)
        ours = told["info"]["title"] == "localapi"
    except Refused as error:
        return [Finding("server", "note", f"{at} answers: {error}")]
    except (NoServer, KeyError, TypeError):
        ours = False
    if not ours:
        return [Finding("server", "missing", f"another program answers on {at}", f"localapi --port {subject.port + 1}")]
    return [Finding("server", "ok", f"localapi {told['info']['version']} is running on {at}")]


def hub(_: Subject) -> list[Finding]:
    """Check whether models can be downloaded."""
    why = hub_answers()
    place = _hub_place()
    if why is None:
        return [Finding("hub", "ok", f"{place} answers")]
    says = f"{place} cannot be reached ({why}); models cannot be downloaded"
    return [Finding("hub", "note", says, "check the network, or set HTTPS_PROXY")]


def _hub_place() -> str:
    return os.environ.get("HF_ENDPOINT") or HUB


_asking: Final = threading.Lock()


def hub_answers() -> str | None:
    """Return why the Hub does not answer, or None if it does. Ask only once."""
    with _asking:
        return _answer()


@functools.lru_cache(maxsize=1)
def _answer() -> str | None:
    """Ask the Hub in a separate thread, as the system's name resolution has no time limit."""
    try:
        return within(SECONDS, lambda: _asked(_hub_place()))
    except TimeoutError as error:
        return str(error)


def _asked(place: str) -> str | None:
    asked = urllib.request.Request(place, method="HEAD")  # noqa: S310  # the user's own setting, or https
    try:
        with urllib.request.urlopen(asked, timeout=SECONDS):  # noqa: S310
            return None
    except urllib.error.HTTPError:
        return None  # it answers
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
