"""Tool calls written as JSON, read while they grow."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress

from localapi.worker.llm.output.argument_values import refuse_constant, without_surrogates
from localapi.worker.llm.output.sections import Calls, SectionItem, encodable


class NotACall(Exception):
    """The text is not the JSON of a call."""


class JsonCall:
    """Reader of one JSON object with a call's name and arguments, character by character, after its first brace.

    Arguments are given as the model writes them, or decoded if it writes them as a string. Control characters in
    strings, which JSON forbids but models write, are given as escapes.
    """

    def __init__(self, name: str | None = None, *, keyed_by_name: bool = False) -> None:
        """Start a call.

        If `name` is given, it came before, and the object is only the arguments, including the brace. If
        `keyed_by_name`, the object's only key is the name, and the value is the arguments.
        """
        self.name = name
        self._keyed_by_name = keyed_by_name
        self._is_bare = name is not None
        self.arguments: list[str] = []
        """Their text so far."""
        self.has_arguments = False
        """True if they are complete."""
        self.closed = False
        self.in_string = False
        self._step: Callable[[str], None] = self._value if self._is_bare else self._members
        self._given = 0
        self._key = "arguments" if self._is_bare else ""
        self._token: list[str] = []
        self._escaped = False
        self._depth = 0

    def take(self, character: str) -> None:
        """Read the next character. Raise NotACall."""
        self._step(character)

    def taken(self) -> list[str]:
        """Return the text of the arguments that has not been returned yet."""
        new, self._given = self.arguments[self._given :], len(self.arguments)
        return new

    def unread(self) -> list[str]:
        """Return the incomplete text of arguments that are a string or a number, which are only given when complete."""
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
        if self._keyed_by_name and self.name is None:
            self.name, self._key = self._key, "arguments"
        self._step = self._colon

    def _colon(self, character: str) -> None:
        if character == ":":
            self._step = self._value
        elif not character.isspace():
            raise NotACall

    def _value(self, character: str) -> None:
        if character.isspace():
            return
        if self._key in ("name", "tool_name") and self.name is None:
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
        """Read an object or a list to its end, whatever it contains."""
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
        """Read a string that is not the name. If it is the arguments, it is JSON in a string."""
        if self._string_goes_on(character, strict=not self._is_arguments):
            return
        text = self._decoded().strip()
        if self._is_arguments and text:
            with suppress(ValueError, RecursionError):  # control characters in its strings
                if not is_object(text):
                    text = json.dumps(json.loads(text, strict=False), ensure_ascii=False)
            self.arguments.append(without_surrogates(text))
        self._value_ends()

    def _scalar(self, character: str) -> None:
        if not (character in ",]}" or character.isspace()):
            self._token.append(character)
            return
        text = "".join(self._token)
        if self._is_arguments and text != "null":
            self.arguments.append(text)
        self._value_ends()
        self._members(character)

    def _value_ends(self) -> None:
        self.has_arguments = self.has_arguments or self._is_arguments
        self.closed = self._is_bare
        self._step = self._members

    def _open_string(self, step: Callable[[str], None]) -> None:
        self._token, self._step, self.in_string = [], step, True

    def _string_goes_on(self, character: str, *, strict: bool = True) -> bool:
        """Read a string into `_token`, without its quotes; return False at its end."""
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
    """Return True if the text is a JSON object."""
    try:
        return isinstance(json.loads(text, parse_constant=refuse_constant), dict)
    except (ValueError, RecursionError):
        return False


class JsonSection:
    """Read a section of `{"name": ..., "arguments": {...}}` as it grows: one call, several, or a list of them."""

    def __init__(self, start: str, end: str, calls: Calls, *, keyed_by_name: bool = False) -> None:
        """Start a section. `end` is empty if the section continues until text that is not a call.

        `keyed_by_name` is as in `JsonCall`.
        """
        self._start = start
        self._end = end
        self._keyed_by_name = keyed_by_name
        self._calls = calls
        self._call: JsonCall | None = None
        self._call_id: str | None = None
        self._raw = [start]
        """Text since the last complete call, until a name shows that it is a call."""
        self._any = False
        self._started = False
        self._spilling = False
        self._held = ""
        self._out: list[SectionItem] = []
        self._arguments: list[str] = []
        self.rest: str | None = None

    def push(self, text: str) -> list[SectionItem]:
        """Return the items that became certain with this text."""
        text, self._held = self._held + text, ""
        for at, character in enumerate(text):
            if character == self._end[:1] and not self._in_string:
                if text.startswith(self._end, at):
                    self._close(self._end)
                    self.rest = text[at + len(self._end) :]
                    break
                if self._end.startswith(text[at:]):
                    self._held = text[at:]
                    break
            if character == self._start[:1] and self._is_behind_a_call:  # Mistral's start is not a surplus bracket
                if text.startswith(self._start, at):
                    self._close("")
                    self.rest = text[at:]
                    break
                if self._start.startswith(text[at:]):
                    self._held = text[at:]
                    break
            if not self._take(character):
                self.rest = text[at:]
                break
        return self._given()

    def finish(self, *, cut: bool) -> list[SectionItem]:
        """Return the remaining items of a section that the answer ended in."""
        if self._is_behind_a_call:
            self._raw.append(self._held)
            self._held = ""
        self._close(self._held)
        if self._spilling:
            self._arguments.append(self._held)
        self._calls.unfinished = self._started
        self.rest = ""
        return self._given()

    @property
    def _is_behind_a_call(self) -> bool:
        return self._any and self._call is None and not self._spilling

    @property
    def _in_string(self) -> bool:
        return self._call is not None and self._call.in_string and not self._spilling

    def _take(self, character: str) -> bool:
        """Read the next character; return False if the section has ended before it."""
        if self._spilling:
            self._arguments.append(character)
            return True
        call = self._call
        if call is None:
            return self._between(character)
        try:
            call.take(character)
        except NotACall:
            return self._broken(call, character)
        if not self._started and call.name is not None and call.name not in self._calls.schemas:
            self._reject()
            return False
        if not self._started:
            self._raw.append(character)
        self._follow(call)
        return True

    def _between(self, character: str) -> bool:
        """Read a character outside of calls; return False if the section has ended before it."""
        if character == "{":
            self._call = JsonCall(keyed_by_name=self._keyed_by_name)
        elif not (character.isspace() or character in ("[,];}" if self._any else "[")):
            # After a call, a surplus or missing bracket is accepted.
            if not self._any:
                self._reject()
            return False
        self._raw.append(character)
        return True

    def _follow(self, call: JsonCall) -> None:
        """Yield what the call has grown by."""
        if call.name is not None and not self._started:
            self._started = True
            self._out.append(self._calls.start(call.name, self._call_id))
        if self._started:
            self._arguments += call.taken()
        if call.closed and self._started:
            self._complete(call)
        elif call.closed:
            self._reject()

    def _broken(self, call: JsonCall, character: str) -> bool:
        """Handle a character that is not the syntax of a call; return False if the section ends before it."""
        if not self._started:
            self._reject()
            return False
        if call.has_arguments:
            self._complete(call)
            return False
        self._spilling = self._calls.broken = True
        self._arguments += [*call.unread(), character]
        return True

    def _complete(self, call: JsonCall) -> None:
        self._arguments += call.taken()
        if not call.arguments:
            self._arguments.append("{}")
        elif not is_object("".join(call.arguments)):
            self._calls.broken = True
        self._flush()
        self._calls.complete += 1
        self._begin_again()
        self._any = True

    def _reject(self) -> None:
        self._out.append("".join(self._raw))
        self._begin_again()

    def _begin_again(self) -> None:
        self._call, self._raw, self._started = None, [], False

    def _close(self, marker: str) -> None:
        """End the section at its marker, or at the answer's end."""
        call = self._call
        if call is None or not self._started:
            if call is not None or not self._any:
                self._raw.append(marker)
                self._reject()
        elif not self._spilling and call.has_arguments:
            self._complete(call)
        elif not self._spilling:
            self._calls.broken = True
            self._arguments += call.unread()

    def _given(self) -> list[SectionItem]:
        self._flush()
        out, self._out = self._out, []
        return out

    def _flush(self) -> None:
        if any(self._arguments):
            self._out.append(self._calls.grow("".join(self._arguments)))
        self._arguments = []


class NamedJsonSection(JsonSection):
    """Reader of a section of calls whose name precedes the JSON of their arguments, while it grows."""

    def __init__(
        self, start: str, end: str, calls: Calls, head: re.Pattern[str], *, tail: str, abandon: str | None
    ) -> None:
        """`head`, `tail`: as in `CallFormat`. The section's start may stand before each call.

        `abandon`: as in `ToolFormat.section`.
        """
        super().__init__(start, end, calls)
        self._abandon = abandon
        self._is_abandoned = False
        self._head = head
        self._tail = tail

    def push(self, text: str) -> list[SectionItem]:
        """Return the items that became certain with this text."""
        found = super().push(text)
        if self._is_abandoned and self._abandon:
            self.rest = self._abandon[:-1] + (self.rest or "")
        return found

    def _between(self, character: str) -> bool:
        if character != "{":
            self._raw.append(character)
            if not self._abandon or character != self._abandon[-1]:
                return True
            text = "".join(self._raw)
            if not text.endswith(self._abandon):
                return True
            self._is_abandoned = True
            self._raw = [text.removesuffix(self._abandon)]
            self._reject()
            return False
        head = self._head.fullmatch(self._gap("".join(self._raw)))
        if head is None or head["name"] not in self._calls.schemas:
            self._reject()
            return False
        self._call = JsonCall(head["name"])
        self._call_id = head.groupdict().get("id")
        return self._take(character)

    def _gap(self, text: str) -> str:
        """Return the text between two calls without the marks that may stand there."""
        return text.strip().removeprefix(self._tail).strip().removeprefix(self._start).strip()

    def _reject(self) -> None:
        text = "".join(self._raw)
        if self._any and not self._gap(text):
            self._begin_again()
            return
        super()._reject()

    def _close(self, marker: str) -> None:
        if self._call is None and self._any and self._gap("".join(self._raw)):
            self._reject()  # text after a call
            return
        super()._close(marker)
