"""Replies for paths that do not exist: they name the nearest path that does."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import Final

MAX_SHOWN: Final = 200
"""Maximum characters of a path that are examined and shown."""
CHAT: Final = "/v1/chat/completions"
_NOT_NAMED: Final = ("/admin/", "/console/")
_WORD: Final = re.compile(r"[a-z]+")
_SAME_WORD: Final = 0.8
"""Share of common letters above which two words count as one: "model" and "models", "completion" and "completions"."""


def no_such_path(method: str, path: str, routes: Iterable[tuple[str, str]]) -> str:
    """Return the message; `routes` are the methods and paths of the server."""
    asked = path[:MAX_SHOWN]
    found = nearest(asked, [route for _, route in routes])
    said = f"There is nothing at {method} {asked}; the nearest path is {found}"
    if asked.startswith(f"{found}/"):
        return f"{said}."  # the client has found the API, which lacks this path
    example = "" if found == CHAT else f", as in {CHAT}"
    return f"{said}, and OpenAI's API is under /v1{example}."


def nearest(path: str, routes: Iterable[str]) -> str:
    """Return the route that a path was most likely meant to be, excluding administration.

    Words count more than letters: `/api/chat` is nearer to `/v1/chat/completions` than to `/status`. A path that has no
    word of any route is most likely a part of OpenAI's API that this server lacks.
    """
    candidates = sorted({route for route in routes if not route.startswith(_NOT_NAMED) and route != "/"})
    words = {route: _common_words(path, route) for route in candidates}
    most = max(words.values())
    best = [route for route in candidates if words[route] == most and (most or route.startswith("/v1/"))]
    beginning = path.split("/")[1:2]
    return max(best, key=lambda route: (route.split("/")[1:2] == beginning, _likeness(path, route)))


def _common_words(path: str, route: str) -> int:
    asked, had = set(_WORD.findall(path.lower())), set(_WORD.findall(route))
    return sum(1 for word in had - {"v", "id", "api"} if any(_likeness(word, each) >= _SAME_WORD for each in asked))


def _likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other, autojunk=False).ratio()
