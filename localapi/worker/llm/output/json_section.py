"""A section of tool calls written as JSON, given as they grow."""

from __future__ import annotations

from collections.abc import Collection

from localapi.worker.llm.output.calls import Calls, Found
from localapi.worker.llm.output.json_call import JsonCall, NotACall, is_object


class JsonSection:
    """A section of `{"name": ..., "arguments": {...}}`, read while it grows: one call, several, or a list of them."""

    def __init__(self, start: str, end: str, calls: Calls, names: Collection[str]) -> None:
        """`names`: of the tools; a call of any other is text."""
        self._end = end
        self._names = names
        self._calls = calls
        self._call: JsonCall | None = None
        self._raw = [start]
        """The text since the last complete call, until a name makes it a call."""
        self._any = False
        self._started = False
        self._spilling = False
        self._held = ""
        self._out: list[Found] = []
        self._arguments: list[str] = []
        self.rest: str | None = None

    def push(self, text: str) -> list[Found]:
        text, self._held = self._held + text, ""
        for at, character in enumerate(text):
            if character == self._end[0] and not self._in_string:
                if text.startswith(self._end, at):
                    self._close(self._end)
                    self.rest = text[at + len(self._end) :]
                    break
                if self._end.startswith(text[at:]):
                    self._held = text[at:]
                    break
            if not self._take(character):
                self.rest = text[at:]
                break
        return self._given()

    def finish(self, *, cut: bool) -> list[Found]:
        self._close(self._held)
        if self._spilling:
            self._arguments.append(self._held)
        self._calls.unfinished = self._started
        self.rest = ""
        return self._given()

    @property
    def _in_string(self) -> bool:
        return self._call is not None and self._call.in_string and not self._spilling

    def _take(self, character: str) -> bool:
        """Read on. False: the section has ended before this character."""
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
        if not self._started and call.name is not None and call.name not in self._names:
            self._reject()
            return False
        if not self._started:
            self._raw.append(character)
        self._follow(call)
        return True

    def _between(self, character: str) -> bool:
        """Outside of objects. Behind a call, a bracket too many or too few is forgiven."""
        if character == "{":
            self._call = JsonCall()
        elif not (character.isspace() or character in ("[,]}" if self._any else "[")):
            if not self._any:
                self._reject()
            return False
        self._raw.append(character)
        return True

    def _follow(self, call: JsonCall) -> None:
        """Give what the call has come to."""
        if call.name is not None and not self._started:
            self._started = True
            self._out.append(self._calls.start(call.name))
        if self._started:
            self._arguments += call.taken()
        if call.closed and self._started:
            self._complete(call)
        elif call.closed:
            self._reject()

    def _broken(self, call: JsonCall, character: str) -> bool:
        """Not the syntax of a call from here on."""
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
        """The section's end, or the answer's."""
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

    def _given(self) -> list[Found]:
        self._flush()
        out, self._out = self._out, []
        return out

    def _flush(self) -> None:
        if text := "".join(self._arguments):
            self._out.append(self._calls.grow(text))
        self._arguments = []
