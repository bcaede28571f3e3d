"""Passes of the reloader in `GET /status`: the changes of each, or the problems that it found."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from localapi.errors import Problem
from localapi.reload.reloader import Attempt


class ExcerptReply(Struct, kw_only=True):
    """Lines of a file as they were read, with possible secrets hidden."""

    first_line: int
    lines: list[str]


class ProblemReply(Struct, kw_only=True):
    """One problem in the manifest."""

    source: str
    line: int | None
    column: int | None
    key: str
    message: str
    excerpt: ExcerptReply | None


class ChangesReply(Struct, kw_only=True):
    """Changes made by an edit, as ids of models."""

    added: list[str]
    changed: list[str]
    updated: list[str]
    removed: list[str]
    server: bool


class AttemptReply(Struct, kw_only=True):
    """Result of reading the manifest: the changes, or the problems that prevented them."""

    at: float
    ok: bool
    revision: int
    changes: ChangesReply
    not_loaded: dict[str, str]
    problems: list[ProblemReply]


def describe_attempt(attempt: Attempt) -> AttemptReply:
    """Return the result of one pass of the reloader."""
    return AttemptReply(
        at=attempt.at,
        ok=attempt.ok,
        revision=attempt.revision,
        changes=msgspec.convert(attempt.diff, ChangesReply, from_attributes=True),
        not_loaded=dict(attempt.not_loaded),
        problems=problem_replies(attempt.problems),
    )


def problem_replies(problems: Sequence[Problem]) -> list[ProblemReply]:
    """Return problems of the manifest in the form in which they are sent."""
    return msgspec.convert(problems, list[ProblemReply], from_attributes=True)
