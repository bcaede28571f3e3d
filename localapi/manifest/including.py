"""Read a file with the files that it includes: `include: [models.d/*.yaml]`, relative to the including file.

Together, the files are one layer. None overrides another: a value that two of them set is an error that names both
places.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from localapi.backends.secret import DOTENV
from localapi.errors import ManifestError, Problem
from localapi.kinds import KINDS
from localapi.manifest.interpolation import Variables, mentions_variables, resolved
from localapi.manifest.origin import Items, KeyPath, Member, Node, Origin, Scalar, Table, noun
from localapi.manifest.server_options import EXTENSION, INCLUDE
from localapi.manifest.yaml_layer import Layer, read_layer

MAX_FILES: Final = 100
MAX_LEVELS: Final = 8
"""Maximum depth of nested includes."""
_WILD: Final = re.compile(r"[*?\[]")
_JOINED: Final = frozenset({(), ("server", "api_keys"), *((name,) for name in (*KINDS, "server", "peers"))})
"""Tables whose keys may come from several files."""

Place = tuple[Path, str]
"""Folder, and a name or a pattern of names in it."""


@dataclass
class Inclusion:
    """Files reached from one file. `read_file` returns the content of each; it may raise ManifestError."""

    read_file: Callable[[Path], Layer]
    problems: list[Problem]
    files: list[Path] = field(default_factory=list)
    """All files, existing or not, in the order of their content."""
    layers: list[Layer] = field(default_factory=list)
    """Content of the readable files, without extensions and with references replaced."""
    complete: bool = True
    """False if a file cannot be read or is invalid YAML."""
    patterns: set[Place] = field(default_factory=set)
    """Places at which further files would be included."""
    _included_at: dict[str, str] = field(default_factory=dict)

    def follow(self, path: Path, at: Origin | None = None, above: Sequence[str] = ()) -> None:
        """Read a file, and then those that it includes.

        `at` is where it is included, and `above` the chain of files that lead to it.
        """
        identity = _identity(path)
        if not self._may_follow(path, identity, at, above):
            return
        self._included_at[identity] = str(at)
        self.files.append(path)
        if at is not None and not os.path.lexists(path):
            self.problems.append(at.problem(f"{path} does not exist; create it, or remove this line", (INCLUDE,)))
            self.complete = False
            return
        try:
            layer = self.read_file(path)
        except ManifestError as error:
            self.problems.extend(error.problems)
            self.complete = False
            return
        self.problems.extend(layer.problems)
        if layer.root is None:
            self.layers.append(layer)
            self.complete = False
            return
        members = {key: member for key, member in layer.root.members.items() if not key.startswith(EXTENSION)}
        root = resolved(replace(layer.root, members=members), Variables(self.problems), self.problems)
        include = root.members.pop(INCLUDE, None)
        self.layers.append(replace(layer, root=root))
        for pattern in _patterns(include, self.problems) if include else ():
            for file in self._matching(path.parent, str(pattern.value)):
                self.follow(file, pattern.origin, (*above, identity))

    def joined(self) -> Table:
        """Return the content of all files. Values that two files set are added to the problems."""
        first, *others = [layer.root for layer in self.layers if layer.root is not None]
        for other in others:
            first = _joined(first, other, (), self.problems)
        return first

    def _may_follow(self, path: Path, identity: str, at: Origin | None, above: Sequence[str]) -> bool:
        if at is None:
            return True
        message = ""
        if identity in above:
            message = f"{path} includes this file, or is this file, so it cannot be included here; remove it"
        elif identity in self._included_at:
            message = f"{path} is already included at {self._included_at[identity]}; remove one of them"
        elif len(above) >= MAX_LEVELS:
            message = f"{path} is nested more than {MAX_LEVELS} files deep; include it from an earlier one"
        elif len(self.files) >= MAX_FILES:
            message = f"more than {MAX_FILES} files up to here; include fewer"
        if message:
            self.problems.append(at.problem(message, (INCLUDE,)))
        return not message

    def _matching(self, folder: Path, pattern: str) -> list[Path]:
        """Return the files of a path or a pattern, sorted by name. Record where further ones would be."""
        found = [folder]
        parts = Path(os.path.expanduser(pattern)).parts
        for position, part in enumerate(parts):
            is_last = position == len(parts) - 1
            if not _WILD.search(part):
                found = [each / part for each in found]
                continue
            self.patterns.update((each, part) for each in found)
            found = [each / name for each in found for name in _names(each, part)]
            found = [each for each in found if is_last or each.is_dir()]
        return found if _WILD.search(pattern) is None else [each for each in found if os.path.lexists(each)]


@dataclass(frozen=True)
class Followed:
    """Files and folders to watch for changes of a manifest."""

    yaml: tuple[Path, ...]
    """The roots and the files that they include, existing or not."""
    files: tuple[Path, ...]
    """These files, and others whose changes matter."""
    patterns: frozenset[Place]
    """Names of files that would belong to the manifest."""


def followed(roots: Iterable[Path]) -> Followed:
    """Return the files reached from these, valid or not, and `.env` if one of them refers to variables. Blocks."""
    found = Inclusion(_unchanged, [])
    for root in roots:
        found.follow(root)
    yaml = tuple(dict.fromkeys(found.files))
    refers = any(mentions_variables(layer.text.text) for layer in found.layers)
    return Followed(yaml, (*yaml, DOTENV) if refers else yaml, frozenset(found.patterns))


def _unchanged(path: Path) -> Layer:
    """Return the content of a file, which is read again only if its time, size or inode has changed."""
    stamp: tuple[int, ...] = ()
    with contextlib.suppress(OSError, ValueError):
        state = path.stat()
        stamp = (state.st_mtime_ns, state.st_size, state.st_ino)
    return _read(path, stamp)


@functools.lru_cache(maxsize=2 * MAX_FILES)
def _read(path: Path, stamp: tuple[int, ...]) -> Layer:
    del stamp
    return read_layer(path)


def _patterns(include: Member, problems: list[Problem]) -> Iterator[Scalar]:
    """Yield the paths and patterns that a file includes: one, or a list of them."""
    node = include.node
    if isinstance(node, Scalar) and node.value is None:
        return
    for index, item in enumerate(node.nodes if isinstance(node, Items) else (node,)):
        key: KeyPath = (INCLUDE, index) if isinstance(node, Items) else (INCLUDE,)
        message = ""
        if not (isinstance(item, Scalar) and isinstance(item.value, str) and item.value):
            message = f"should be a path, or a list of paths such as models.d/*.yaml; found {noun(item)}"
        elif "**" in item.value:
            message = "** is not supported here; name each folder, or use * for the name of one folder"
        if message:
            problems.append(item.origin.problem(message, key))
        elif isinstance(item, Scalar):
            yield item


def _identity(path: Path) -> str:
    """Return the same text for all paths of a file; the path itself if the current folder has been deleted."""
    with contextlib.suppress(OSError):
        return os.path.realpath(path)
    return str(path)


def _names(folder: Path, pattern: str) -> list[str]:
    """Return the names in a folder that match a pattern; hidden ones only if the pattern begins with a dot."""
    try:
        names = os.listdir(folder)
    except (OSError, ValueError):  # it may appear later
        return []
    return sorted(name for name in names if matches(name, pattern))


def matches(name: str, pattern: str) -> bool:
    """Return whether a name matches a pattern as in a shell."""
    return fnmatch.fnmatchcase(name, pattern) and (pattern.startswith(".") or not name.startswith("."))


def _joined(first: Table, other: Table, path: KeyPath, problems: list[Problem]) -> Table:
    members = dict(first.members)
    for key, member in other.members.items():
        under = members.get(key)
        here = (*path, key)
        if under is None or (_is_null(under.node) and here in _JOINED):
            members[key] = member
        elif _is_null(member.node) and here in _JOINED:
            continue
        elif here in _JOINED and isinstance(under.node, Table) and isinstance(member.node, Table):
            members[key] = Member(under.origin, _joined(under.node, member.node, here, problems))
        else:
            message = f"is already set at {under.origin}; remove one of them"
            problems.append(member.origin.problem(message, here))
    return replace(first, members=members)


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value is None
