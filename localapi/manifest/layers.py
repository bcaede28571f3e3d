"""Merge layers: maps are merged, lists and scalars replaced, and null removes a value."""

from __future__ import annotations

from localapi.kinds import KINDS
from localapi.manifest.origin import Member, Node, Scalar, Table
from localapi.manifest.server_options import known_options


def overlay(lower: Table, upper: Table) -> Table:
    """Return two layers merged; values of the upper one take precedence.

    A null removes the value of the lower layer, if there is one. If `upper` changes the backend of an entry, options
    that only the former backend has, such as its path, are dropped.
    """
    for section in KINDS:
        entries, over = lower.table(section), upper.table(section)
        if entries and over:
            kept = {key: _without_former(section, member, over.get(key)) for key, member in entries.members.items()}
            cleaned = Member(lower.members[section].origin, Table(kept, entries.origin))
            lower = Table({**lower.members, section: cleaned}, lower.origin)
    return _merged(lower, upper)


def without_nulls(layer: Table) -> Table:
    """Return the lowest layer without nulls, which have nothing to remove."""
    return _merged(Table({}, layer.origin), layer)


def _merged(lower: Table, upper: Table) -> Table:
    members = dict(lower.members)
    for key, member in upper.members.items():
        under = members.get(key)
        if isinstance(member.node, Scalar) and member.node.value is None:
            members.pop(key, None)
        elif isinstance(member.node, Table):
            below = under.node if under and isinstance(under.node, Table) else Table({}, member.node.origin)
            origin = under.origin if under and below is under.node else member.origin
            members[key] = Member(origin, _merged(below, member.node))
        else:
            members[key] = member
    return Table(members, lower.origin if lower.members else upper.origin)


def _without_former(section: str, member: Member, over: Node | None) -> Member:
    """Return the entry without options that the backend in `over` does not have."""
    if not (isinstance(member.node, Table) and isinstance(over, Table)):
        return member
    backend = known_options(section, _text(over.get("backend")))
    former = known_options(section, _text(member.node.get("backend"))) if backend else frozenset()
    kept = {key: part for key, part in member.node.members.items() if key not in former - backend}
    return Member(member.origin, Table(kept, member.node.origin))


def _text(node: Node | None) -> str | None:
    return str(node.value) if isinstance(node, Scalar) else None
