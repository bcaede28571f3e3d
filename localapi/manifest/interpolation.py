"""Replace `${env.NAME}` and `${env.NAME:-default}` in the values of a file; `$${` stands for a literal `${`.

Keys of mappings are left unchanged. A value keeps its written text, so that messages, `localapi check` and `/status`
show the reference and not its value, which may be a secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from localapi.backends.secret import DOTENV, NoSecret, read_dotenv
from localapi.errors import Problem
from localapi.manifest.origin import Items, KeyPath, Member, Node, Scalar, Table
from localapi.manifest.scalars import resolve

_MARKS: Final = re.compile(
    r"(?P<escape>\$\$\{)|\$\{env\.(?P<name>[A-Za-z_][A-Za-z0-9_]*)(:-(?P<default>[^}]*))?\}|(?P<wrong>\$\{env\b[^}]*\}?)"
)
_FORMS: Final = "write ${env.NAME} or ${env.NAME:-default}, or $${ for a literal ${"


def mentions_variables(text: str) -> bool:
    """Return True if a file's text may contain references."""
    return "${env." in text


@dataclass
class Variables:
    """Variables of the environment, and below them those of `.env`, which is read once, when needed."""

    problems: list[Problem]
    _dotenv: Mapping[str, str | None] | None = field(default=None, repr=False)

    def get(self, name: str) -> str | None:
        """Return a variable; None if it is not set. Blocks."""
        if name in os.environ:
            return os.environ[name]
        if self._dotenv is None:
            self._dotenv = {}
            try:
                self._dotenv = read_dotenv()
            except NoSecret as error:
                self.problems.append(Problem(str(DOTENV), str(error).removeprefix(f"{DOTENV} ")))
        return self._dotenv.get(name)


def resolved(root: Table, variables: Variables, problems: list[Problem]) -> Table:
    """Return a file's tree with references replaced. Missing variables are added to the problems."""
    found = _resolved(root, (), variables.get, problems)
    assert isinstance(found, Table)  # noqa: S101  # nodes keep their form
    return found


def _resolved(node: Node, path: KeyPath, get: Callable[[str], str | None], problems: list[Problem]) -> Node:
    if isinstance(node, Table):
        members = {
            key: Member(member.origin, _resolved(member.node, (*path, key), get, problems))
            for key, member in node.members.items()
        }
        return replace(node, members=members)
    if isinstance(node, Items):
        nodes = [_resolved(item, (*path, index), get, problems) for index, item in enumerate(node.nodes)]
        return replace(node, nodes=tuple(nodes))
    if not isinstance(node.value, str) or "${" not in node.value:
        return node
    return _scalar(node, path, get, problems)


def _scalar(node: Scalar, path: KeyPath, get: Callable[[str], str | None], problems: list[Problem]) -> Scalar:
    """Return a value with its references replaced; a value without quotes is then typed as YAML types it."""
    replaced = False

    def substitute(found: re.Match[str]) -> str:
        nonlocal replaced
        if found["escape"]:
            return "${"
        if found["wrong"]:
            problems.append(node.origin.problem(f"{found['wrong']} is not a reference; {_FORMS}", path))
            return ""
        replaced = True
        value = get(found["name"])
        if value:
            return value
        if found["default"] is not None:
            return found["default"]
        if value is None:
            message = (
                f"the variable {found['name']} is not set in the environment or in .env; set it, "
                f"or give a default: ${{env.{found['name']}:-default}}"
            )
            problems.append(node.origin.problem(message, path))
        return ""

    text = _MARKS.sub(substitute, str(node.value))
    return replace(node, value=resolve(text) if replaced and node.is_plain else text)
