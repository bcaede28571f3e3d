"""Parse YAML text into a tree whose values know their line and column.

The tree is built from the parser's events in one pass, without PyYAML's constructors, which silently drop duplicate
keys, use the booleans of YAML 1.1, and follow aliases without limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from yaml import events

from localapi.errors import Problem
from localapi.manifest.origin import Items, KeyPath, Member, Node, Origin, Scalar, Table, noun
from localapi.manifest.scalars import resolve
from localapi.manifest.syntax import explain
from localapi.manifest.text import UNPRINTABLE, Text, read_text

MAX_NODES = 20_000
MAX_DEPTH = 50

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGE = "<<"
_PLAIN_TAGS = frozenset({None, "!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})

Started = events.ScalarEvent | events.SequenceStartEvent | events.MappingStartEvent


@dataclass(frozen=True)
class Layer:
    """Content of one file."""

    text: Text
    root: Table | None
    """Tree of values; None if the problems leave nothing usable."""
    problems: tuple[Problem, ...]


def read_layer(path: Path) -> Layer:
    """Read the layer of a file. Raise ManifestError if it is not text."""
    return layer_of(read_text(path))


def layer_of(text: Text) -> Layer:
    """Return the layer of a text, which may not be saved yet."""
    composer = _Composer(text)
    return Layer(text, composer.compose(), tuple(composer.problems))


class _GiveUp(Exception):
    """Stop reading: the problem is recorded, and the rest of the file is of no use."""


@dataclass(frozen=True)
class _Anchored:
    """Node that aliases repeat; `node` is None until it is complete."""

    node: Node | None = None
    size: int = 1
    height: int = 1


@dataclass
class _Composer:
    source: Text
    problems: list[Problem] = field(default_factory=list)
    _anchors: dict[str, _Anchored] = field(default_factory=dict)
    _nodes: int = 0
    _deepest: int = 0
    _events: Iterator[events.Event] = field(init=False)

    def compose(self) -> Table | None:
        """Return the tree of the only document, as far as it is valid."""
        try:
            self._events = yaml.parse(self.source.text, Loader=_LOADER)
            return self._document()
        except _GiveUp:
            return None
        except yaml.YAMLError as error:
            self.problems.append(explain(error, str(self.source.path), self.source.text))
            return None
        except (ValueError, OverflowError) as error:
            # For "\UFFFFFFFF", PyYAML's own scanner raises ValueError from chr().
            self.problems.append(Problem(str(self.source.path), f"is not valid YAML: {error}"))
            return None

    def _document(self) -> Table | None:
        next(self._events)
        event = next(self._events)
        if isinstance(event, events.StreamEndEvent):
            self.problems.append(Problem(str(self.source.path), "is empty; write {} for an empty manifest"))
            return None
        started = next(self._events)
        root = self._node(started, (), 1)
        next(self._events)
        after = next(self._events)
        if isinstance(after, events.DocumentStartEvent):
            self._note(after, "a second document begins here (---); a manifest is one document, so remove the line")
        if isinstance(root, Table):
            return root
        if isinstance(root, Scalar) and root.value is None:
            self.problems.append(root.origin.problem("is empty; write {} for an empty manifest"))
        else:
            self.problems.append(
                root.origin.problem(f"should consist of keys such as chat: and speech:; found {noun(root)}")
            )
        return None

    def _node(self, event: events.Event, path: KeyPath, depth: int) -> Node:
        if isinstance(event, events.AliasEvent):
            return self._alias(event, path, depth)
        assert isinstance(event, Started)  # noqa: S101  # the parser's grammar leaves nothing else
        self._count(event, 1, depth)
        if event.tag not in _PLAIN_TAGS:
            written = str(event.tag).replace("tag:yaml.org,2002:", "!!", 1)
            self._note(event, f"tags are not supported; found {written}: remove it", path)
        if event.anchor is None:
            return self._untagged(event, path, depth)
        before, deepest = self._nodes, self._deepest
        self._anchors[event.anchor], self._deepest = _Anchored(), depth
        node = self._untagged(event, path, depth)
        self._anchors[event.anchor] = _Anchored(node, self._nodes - before + 1, self._deepest - depth + 1)
        self._deepest = max(deepest, self._deepest)
        return node

    def _untagged(self, event: Started, path: KeyPath, depth: int) -> Node:
        origin = self._origin(event)
        if isinstance(event, events.SequenceStartEvent):
            nodes: list[Node] = []
            while not isinstance(item := next(self._events), events.SequenceEndEvent):
                nodes.append(self._node(item, (*path, len(nodes)), depth + 1))
            return Items(tuple(nodes), origin)
        if isinstance(event, events.MappingStartEvent):
            return self._table(origin, path, depth)
        if found := UNPRINTABLE.search(event.value):
            self._note(event, f"contains a control character (U+{ord(found[0]):04X}); remove it", path)
            return Scalar("", "", origin)
        plain = event.implicit[0] and event.tag is None
        return Scalar(resolve(event.value) if plain else event.value, event.value, origin, is_plain=plain)

    def _table(self, origin: Origin, path: KeyPath, depth: int) -> Table:
        members: dict[str, Member] = {}
        merged: dict[str, Member] = {}
        seen: dict[str, Origin] = {}
        while not isinstance(event := next(self._events), events.MappingEndEvent):
            key_node = self._node(event, path, depth + 1)
            merges = isinstance(event, events.ScalarEvent) and event.value == _MERGE and event.implicit[0]
            key = self._key(key_node, path)
            at = self._origin(event)
            node = self._node(next(self._events), (*path, key), depth + 1)
            if key in seen:
                first = f"line {seen[key].line}, column {seen[key].column}"
                message = f"duplicate key {key!r}; the first is at {first}: remove one"
                self.problems.append(at.problem(message, (*path, key)))
            seen.setdefault(key, at)
            if merges:
                merged = self._merged(node, (*path, key))
            else:
                members[key] = Member(at, node)
        return Table({**members, **{key: merged[key] for key in merged if key not in members}}, origin)

    def _key(self, node: Node, path: KeyPath) -> str:
        if not isinstance(node, Scalar):
            self.problems.append(node.origin.problem(f"a key should be text; found {noun(node)}", path))
            return "?"
        if not isinstance(node.value, str):
            message = f'a key should be text; found {noun(node)}: put it in quotes, "{node.text}"'
            self.problems.append(node.origin.problem(message, path))
        return node.text

    def _merged(self, node: Node, path: KeyPath) -> dict[str, Member]:
        """Return the members that `<<: *anchor` or `<<: [*one, *two]` merges; earlier ones take precedence."""
        members: dict[str, Member] = {}
        for part in node.nodes if isinstance(node, Items) else (node,):
            if isinstance(part, Table):
                members = {**part.members, **members}
            else:
                message = f"<< should be followed by an alias of a mapping; found {noun(part)}"
                self.problems.append(part.origin.problem(message, path))
        return members

    def _alias(self, event: events.AliasEvent, path: KeyPath, depth: int) -> Node:
        anchored = self._anchors.get(str(event.anchor))
        if anchored is None:
            self._note(event, f"there is no anchor &{event.anchor} before this alias; write the value itself", path)
        elif anchored.node is None:
            self._note(event, f"the alias *{event.anchor} is inside its own anchor; write the value itself", path)
        else:
            self._count(event, anchored.size, depth + anchored.height - 1)
            return anchored.node
        return Scalar("", "", self._origin(event))

    def _count(self, event: events.Event, nodes: int, depth: int) -> None:
        self._nodes += nodes
        self._deepest = max(self._deepest, depth)
        if self._nodes > MAX_NODES:
            self._note(
                event, f"more than {MAX_NODES:,} values up to here, including repetitions by aliases; shorten it"
            )
            raise _GiveUp
        if depth > MAX_DEPTH:
            self._note(event, f"is nested more than {MAX_DEPTH} levels deep; a manifest needs five")
            raise _GiveUp

    def _note(self, event: events.Event, message: str, path: KeyPath = ()) -> None:
        self.problems.append(self._origin(event).problem(message, path))

    def _origin(self, event: events.Event) -> Origin:
        mark = event.start_mark
        assert mark is not None  # noqa: S101  # both parsers set it
        return Origin(str(self.source.path), self.source.path.parent, mark.line + 1, mark.column + 1)
