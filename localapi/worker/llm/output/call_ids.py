"""Ids of calls in the form that a family's template requires.

Clients send ids back, and conversations may come from another model or server. So an id is created when a model writes
none, and an id of another form is changed only in the prompt: the same id always becomes the same.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

_LETTERS_AND_DIGITS: Final = string.ascii_letters + string.digits
NINE: Final = 9
"""The length of Mistral's ids."""


@dataclass(frozen=True)
class CallIds:
    """Ids of most families: any text."""

    pattern: re.Pattern[str] = re.compile(r"(?s:.+)")
    """Form of an id in a prompt."""

    def new(self, name: str, taken: Collection[str]) -> str:
        """Return an id for a call of this function, which is none of those that are taken."""
        return f"call_{secrets.token_hex(12)}"

    def fitting(self, call_id: str, name: str, number: int) -> str:
        """Return the id that replaces `call_id` in the prompt, for the conversation's call with this number."""
        return call_id if self.pattern.fullmatch(call_id) else self._made_of(call_id, name, number)

    def _made_of(self, call_id: str, name: str, number: int) -> str:
        return call_id


@dataclass(frozen=True)
class NineCharacters(CallIds):
    """Mistral's ids, which are nine letters and digits."""

    pattern: re.Pattern[str] = re.compile(rf"[a-zA-Z0-9]{{{NINE}}}")

    def new(self, name: str, taken: Collection[str]) -> str:
        """Return nine random letters and digits."""
        return "".join(secrets.choice(_LETTERS_AND_DIGITS) for _ in range(NINE))

    def _made_of(self, call_id: str, name: str, number: int) -> str:
        return hashlib.sha256(call_id.encode("utf-8", "surrogatepass")).hexdigest()[:NINE]


@dataclass(frozen=True)
class TenCharacters(CallIds):
    """Solar's ids, which are ten lowercase letters and digits; it accepts any other."""

    def new(self, name: str, taken: Collection[str]) -> str:
        """Return ten random letters and digits."""
        return secrets.token_hex(5)


@dataclass(frozen=True)
class NameAndNumber(CallIds):
    """Kimi's ids, which are the only place where its prompts contain the name of a called function."""

    pattern: re.Pattern[str] = re.compile(r"functions\.[^\s:]+:[0-9]+")

    def new(self, name: str, taken: Collection[str]) -> str:
        """Return the name with the first number that is free."""
        number = len(taken)
        while f"functions.{name}:{number}" in taken:
            number += 1
        return f"functions.{name}:{number}"

    def _made_of(self, call_id: str, name: str, number: int) -> str:
        return f"functions.{name}:{number}"


ANY: Final = CallIds()
