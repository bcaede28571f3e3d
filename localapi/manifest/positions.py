"""Where each key and value of a YAML text begins and ends, in characters: what an edit needs to know of it.

Takes texts that `yaml_layer` found nothing wrong with, and refuses to know what their values mean.
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
"""The head of a text block whose last empty lines belong to it."""


@dataclass(frozen=True)
class Placed:
    """A value."""

    start: int
    end: int
    """After its last character; of a block, after the last one that it holds."""
    form: Form
    """A mapping is a block or, in brackets, a flow."""
    members: tuple[PlacedMember, ...] = ()
    """Of a mapping."""
    keeps: bool = False
    """Whether it ends with empty lines that are a part of it."""

    def member(self, key: str) -> PlacedMember | None:
        """The one of this key."""
        return next((each for each in self.members if each.key == key), None)


@dataclass(frozen=True)
class PlacedMember:
    """A key and its value."""

    key: str
    start: int
    """Of the key, or of the ? before it."""
    value: Placed

    @property
    def end(self) -> int:
        """After the value's last character."""
        return self.value.end


def place(text: str) -> Placed | None:
    """The root value; None where the text holds none."""
    # PyYAML's own parser, also where there is libyaml: its positions count characters.
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
        members.append(PlacedMember(name, _key_start(text, key.start), _value(text, next(stream), stream)))
    if event.flow_style:
        return Placed(start, _index(item, "end_mark"), "flow", tuple(members))
    last = members[-1].value
    return Placed(start, last.end, "block", tuple(members), last.keeps)


def _key_start(text: str, key: int) -> int:
    """Of a key that was written behind a ?, the place of that."""
    before = text[:key].rstrip(" \t")
    return len(before) - 1 if before.endswith("?") else key


def _sequence(text: str, event: events.SequenceStartEvent, stream: Iterator[events.Event], start: int) -> Placed:
    last: Placed | None = None
    while not isinstance(item := next(stream), events.SequenceEndEvent):
        last = _value(text, item, stream)
    if event.flow_style or last is None:
        return Placed(start, _index(item, "end_mark"), "list")
    return Placed(start, last.end, "list", keeps=last.keeps)


def _index(event: events.Event, mark: str) -> int:
    found: int = getattr(event, mark).index
    return found
