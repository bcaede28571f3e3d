"""One layer laid over another: maps merge, lists and scalars replace, null removes."""

from __future__ import annotations

from localapi.kinds import KINDS
from localapi.manifest.document import known_options
from localapi.manifest.origin import Member, Node, Scalar, Table


def overlay(lower: Table, upper: Table) -> Table:
    """What two layers say together, the upper one having the last word.

    A null removes what the lower layer says, and means nothing where that says nothing. Where `upper` gives an entry
    another backend, the options that only the former backend knew (its path, say) do not carry over.
    """
    for section in KINDS:
        entries, over = lower.table(section), upper.table(section)
        if entries and over:
            kept = {key: _without_former(section, member, over.get(key)) for key, member in entries.members.items()}
            lower = _with(lower, section, Table(kept, entries.origin))
    return _merged(lower, upper)


def without_nulls(layer: Table) -> Table:
    """The first layer: there is nothing below for its nulls to remove."""
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
    """The entry without the options that the backend named in `over` has no use for."""
    if not (isinstance(member.node, Table) and isinstance(over, Table)):
        return member
    backend = known_options(section, _text(over.get("backend")))
    former = known_options(section, _text(member.node.get("backend"))) if backend else frozenset()
    kept = {key: part for key, part in member.node.members.items() if key not in former - backend}
    return Member(member.origin, Table(kept, member.node.origin))


def _with(table: Table, key: str, node: Node) -> Table:
    return Table({**table.members, key: Member(table.members[key].origin, node)}, table.origin)


def _text(node: Node | None) -> str | None:
    return node.text if isinstance(node, Scalar) else None
