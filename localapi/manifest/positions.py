"""Positions of each key and value in a YAML text, in characters, for editing it.

The text must be valid for `yaml_layer`. Nothing here interprets values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import yaml
from yaml import events

Form = Literal["block", "flow", "list", "scalar", "alias"]

_KEEPS = re.compile(r"[|>][-+0-9]*\+|[|>]\+")
"""Header of a block scalar that includes its last blank lines."""


@dataclass(frozen=True)
class Placed:
    """Value and its position."""

    start: int
    end: int
    """Position after the last character, including nested values."""
    form: Form
    """Style of a mapping: a block, or a flow in braces."""
    members: tuple[PlacedMember, ...] = ()
    """Members of a mapping."""
    items: tuple[Placed, ...] = ()
    """Items of a list."""
    keeps: bool = False
    """True if its last blank lines are part of it."""

    def member(self, key: str) -> PlacedMember | None:
        """Return the member with this key."""
        return next((each for each in self.members if each.key == key), None)


@dataclass(frozen=True)
class PlacedMember:
    """Key and its value."""

    key: str
    start: int
    """Position of the key, or of the ? before it."""
    key_end: int
    """Position after the key, before its colon."""
    value: Placed

    @property
    def end(self) -> int:
        """Position after the last character of the value."""
        return self.value.end


def place(text: str) -> Placed | None:
    """Return the root value, or None if the text has no value."""
    # PyYAML's own parser, even if libyaml is available, because its positions count characters.
    stream = yaml.parse(text, Loader=yaml.SafeLoader)
    for event in stream:
        if isinstance(event, events.DocumentStartEvent):
            return _value(text, next(stream), stream)
    return None


def _value(text: str, event: events.Event, stream: Iterator[events.Event]) -> Placed:
    start, end = _index(event, "start_mark"), _index(event, "end_mark")
    match event:
        case events.AliasEvent():
            return Placed(start, end, "alias")
        case events.ScalarEvent():
            written = text[start:end]
            keeps = event.style in ("|", ">") and _KEEPS.search(written.splitlines()[0]) is not None
            return Placed(start, end if keeps else start + len(written.rstrip()), "scalar", keeps=keeps)
        case events.SequenceStartEvent():
            return _sequence(text, event, stream, start)
    assert isinstance(event, events.MappingStartEvent)  # noqa: S101  # the parser's grammar leaves nothing else
    members: list[PlacedMember] = []
    while not isinstance(item := next(stream), events.MappingEndEvent):
        key = _value(text, item, stream)
        name = item.value if isinstance(item, events.ScalarEvent) else text[key.start : key.end]
        before = text[: key.start].rstrip(" \t")
        key_start = len(before) - 1 if before.endswith("?") else key.start
        members.append(PlacedMember(name, key_start, key.end, _value(text, next(stream), stream)))
    if event.flow_style:
        return Placed(start, _index(item, "end_mark"), "flow", tuple(members))
    last = members[-1].value
    return Placed(start, last.end, "block", tuple(members), keeps=last.keeps)


def _sequence(text: str, event: events.SequenceStartEvent, stream: Iterator[events.Event], start: int) -> Placed:
    items: list[Placed] = []
    while not isinstance(item := next(stream), events.SequenceEndEvent):
        items.append(_value(text, item, stream))
    if event.flow_style or not items:
        return Placed(start, _index(item, "end_mark"), "list", items=tuple(items))
    return Placed(start, items[-1].end, "list", items=tuple(items), keeps=items[-1].keeps)


def _index(event: events.Event, mark: str) -> int:
    found: int = getattr(event, mark).index
    return found
