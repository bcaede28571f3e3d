"""A call written as a JSON object, read while it grows."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NoReturn

from localapi.worker.llm.output.calls import encodable


class NotACall(Exception):
    """The text is not the JSON of a call."""


class JsonCall:
    """One JSON object with a call's name and arguments, behind its first brace; character by character.

    Arguments are given as the model writes them, or decoded where it writes them as a string. Control characters in
    strings, which JSON forbids and models write, are given as escapes.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.arguments: list[str] = []
        """All of their text so far."""
        self.has_arguments = False
        """Whether they are complete."""
        self.closed = False
        self.in_string = False
        self._step: Callable[[str], None] = self._members
        self._given = 0
        self._key = ""
        self._token: list[str] = []
        self._escaped = False
        self._depth = 0

    def take(self, character: str) -> None:
        """Read on. Raises NotACall."""
        self._step(character)

    def taken(self) -> list[str]:
        """Text of the arguments that was not given yet."""
        new, self._given = self.arguments[self._given :], len(self.arguments)
        return new

    def unread(self) -> list[str]:
        """Text of arguments that are a string or a number, which are given when complete."""
        return self._token if self._is_arguments else []

    @property
    def _is_arguments(self) -> bool:
        return self._key in ("arguments", "parameters") and not self.has_arguments

    def _members(self, character: str) -> None:
        if character == "}":
            self.closed = True
        elif character == '"':
            self._key = ""
            self._open_string(self._key_text)
        elif not (character.isspace() or character == ","):
            raise NotACall

    def _key_text(self, character: str) -> None:
        if self._string_goes_on(character):
            return
        self._key, self._token = self._decoded(), []
        self._step = self._colon

    def _colon(self, character: str) -> None:
        if character == ":":
            self._step = self._value
        elif not character.isspace():
            raise NotACall

    def _value(self, character: str) -> None:
        if character.isspace():
            return
        if self._key == "name" and self.name is None:
            if character != '"':
                raise NotACall
            self._open_string(self._name_text)
        elif character in "{[":
            self._step = self._nested
            self._nested(character)
        elif character == '"':
            self._open_string(self._string_text)
        elif character.isalnum() or character == "-":
            self._token = [character]
            self._step = self._scalar
        else:
            raise NotACall

    def _name_text(self, character: str) -> None:
        if self._string_goes_on(character):
            return
        name = self._decoded().strip()
        if not name or not encodable(name):
            raise NotACall
        self.name = name
        self._step = self._members

    def _nested(self, character: str) -> None:
        """An object or a list: whole, whatever it holds."""
        if self.in_string:
            escaped, self._escaped = self._escaped, character == "\\" and not self._escaped
            self.in_string = escaped or character != '"'
            if character < " " and not escaped:
                character = json.dumps(character)[1:-1]
        elif character == '"':
            self.in_string = True
        else:
            self._depth += (character in "{[") - (character in "}]")
        if self._is_arguments:
            self.arguments.append(character)
        if not self._depth:
            self._value_ends()

    def _string_text(self, character: str) -> None:
        """A string that is not the name. As arguments it is JSON in a string."""
        if self._string_goes_on(character, strict=not self._is_arguments):
            return
        if self._is_arguments and (text := self._decoded().strip()):
            self.arguments.append(_repaired(text).encode("utf-8", "backslashreplace").decode())
        self._value_ends()

    def _scalar(self, character: str) -> None:
        if not (character in ",]}" or character.isspace()):
            self._token.append(character)
            return
        if self._is_arguments and (text := "".join(self._token)) != "null":
            self.arguments.append(text)
        self._value_ends()
        self._members(character)

    def _value_ends(self) -> None:
        self.has_arguments = self.has_arguments or self._is_arguments
        self._step = self._members

    def _open_string(self, step: Callable[[str], None]) -> None:
        self._token, self._step, self.in_string = [], step, True

    def _string_goes_on(self, character: str, *, strict: bool = True) -> bool:
        """Read a string into `_token`, without its quotes."""
        if character == '"' and not self._escaped:
            self.in_string = False
            return False
        if strict and character < " ":
            raise NotACall
        self._escaped = character == "\\" and not self._escaped
        self._token.append(character)
        return True

    def _decoded(self) -> str:
        try:
            return str(json.loads(f'"{"".join(self._token)}"', strict=False))
        except ValueError:
            raise NotACall from None


def is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text, parse_constant=_refuse), dict)
    except (ValueError, RecursionError):
        return False


def _repaired(text: str) -> str:
    """The JSON, with control characters in its strings as escapes."""
    try:
        return text if is_object(text) else json.dumps(json.loads(text, strict=False), ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
