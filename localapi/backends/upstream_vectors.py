"""Vectors and scores in the replies of another server."""

from __future__ import annotations

import base64
import binascii
import sys
from array import array
from typing import Any, Final

from localapi.backends.openai_events import BadReply

_NUMBER_BYTES: Final = 4
"""Size of a 32-bit floating point number."""


def vectors_in(reply: dict[str, Any], count: int) -> list[bytes]:
    """Return the vectors of a reply of `/v1/embeddings`, in the order of the inputs. Raise BadReply."""
    vectors = by_index(reply.get("data"), count)
    return [_vector(each.get("embedding")) for each in vectors]


def scores_in(reply: dict[str, Any], count: int) -> list[float]:
    """Return the scores of a reply of `/v1/rerank`, in the order of the documents. Raise BadReply."""
    scores: list[float] = []
    for each in by_index(reply.get("results", reply.get("data")), count):
        score = each.get("relevance_score", each.get("score"))
        if not isinstance(score, int | float):
            raise BadReply("a document has no score")
        scores.append(float(score))
    return scores


def by_index(items: object, count: int) -> list[dict[str, Any]]:
    """Return the items of a list by their `index`. Raise BadReply if there is not one for each."""
    found: dict[int, dict[str, Any]] = {}
    for at, each in enumerate(items if isinstance(items, list) else ()):
        if isinstance(each, dict):
            found[each.get("index", at)] = each
    if sorted(found) != list(range(count)):
        raise BadReply(f"it should have {count} results, one for each input, and has {len(found)}")
    return [found[at] for at in range(count)]


def tokens_in(reply: dict[str, Any]) -> int:
    """Return the tokens that a reply counts; 0 if it counts none."""
    usage = reply.get("usage")
    for name in ("prompt_tokens", "total_tokens"):
        tokens = usage.get(name) if isinstance(usage, dict) else None
        if isinstance(tokens, int):
            return tokens
    return 0


def _vector(said: object) -> bytes:
    """Return the little-endian bytes of a vector, which a server may send as numbers even if asked for base64."""
    try:
        if isinstance(said, str):
            vector = base64.b64decode(said, validate=True)
        elif isinstance(said, list):
            numbers = array("f", said)
            if sys.byteorder == "big":
                numbers.byteswap()
            vector = numbers.tobytes()
        else:
            raise BadReply("an input has no vector")
    except (binascii.Error, TypeError, OverflowError) as error:
        raise BadReply("a vector is neither base64 nor numbers") from error
    if not vector or len(vector) % _NUMBER_BYTES:
        raise BadReply("a vector has an incomplete number")
    return vector
