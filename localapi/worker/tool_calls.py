"""Tool calls in an answer's text: a section of it to calls with a name and JSON arguments.

A section is the text behind the mark that starts calls, up to the mark that ends them; `Section` is the seam. Calls
written as JSON are read as they grow (`JsonSection`). Every other syntax belongs to mlx-lm's parser of its model family
and waits for the section's end (`ParsedSection`). What is no call comes back as text. Knows no MLX and no thinking.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn, Protocol

import msgspec

Parser = Callable[[str, Any], Any]
"""mlx-lm's `tool_parsers.<family>.parse_tool_call`: a section and OpenAI's tools to one call or several."""

_NAME = re.compile(r"[\w.:/-]+")
_GUESSING = {"glm47", "minicpm5"}
"""Families whose parser makes a call of any text: with them a call counts only if the tool was offered."""
_NEXT_CALL = {
    "qwen3_coder": re.compile(r"(?<=</function>)\s*(?=<function=)"),
    "kimi_k3": re.compile(r"(?<=<\|close\|>call<\|sep\|>)\s*(?=<\|open\|>call)"),
    "minimax_m2": re.compile(r"(?<=</invoke>)\s*(?=<invoke )"),
}
"""Borders of calls, where the family's parser mixes up or drops calls if one section holds several."""
_BACKTRACKING = {"gemma4", "function_gemma"}
MOST_CALLS = 32
"""Calls in one section of a family whose parser takes minutes over a long text full of starts."""
INNER_MARKS = {
    "function_gemma": ("<escape>",),
    "gemma4": ('<|"|>',),
    "glm47": ("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
    "kimi_k2": ("<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"),
    "kimi_k3": ("<|open|>", "<|close|>", "<|sep|>"),
    "longcat": ("<longcat_arg_key>", "</longcat_arg_key>", "<longcat_arg_value>", "</longcat_arg_value>"),
    "mistral": ("[ARGS]",),
}
"""What a family's parser reads inside a section, where it may be a special token."""


class ToolStart(msgspec.Struct, frozen=True, tag=True):
    """A call begins: the function's name is complete."""

    index: int
    call_id: str
    name: str


class ToolArguments(msgspec.Struct, frozen=True, tag=True):
    """Text that a call's arguments grow by; together it is JSON."""

    index: int
    text: str


Found = ToolStart | ToolArguments | str
"""What a section holds. A plain string is text that turned out to be no call, its marks included."""


class Markers:
    """Finds the first of some strings in a text that comes in pieces; of two that start together, the longer."""

    def __init__(self, strings: Collection[str]) -> None:
        self._strings = sorted({s for s in strings if s}, key=len, reverse=True)
        self._first = {s[0] for s in self._strings}
        self._longest = len(self._strings[0]) if self._strings else 0
        self._pattern = re.compile("|".join(map(re.escape, self._strings)) or r"(?!)")

    def __bool__(self) -> bool:
        return bool(self._strings)

    def split(self, text: str, *, final: bool = False) -> tuple[str, str | None, str]:
        """What is before the first marker, the marker, and what is behind it.

        Without one: the text that is certain, None, and what may begin one (nothing if the text is `final`).
        """
        begun = len(text) if final else self._begun(text)
        found = self._pattern.search(text)
        if found and found.start() < begun:
            return text[: found.start()], found[0], text[found.end() :]
        return text[:begun], None, text[begun:]

    def _begun(self, text: str) -> int:
        """Where the text may begin a marker that it does not hold to its end."""
        for at in range(max(0, len(text) - self._longest + 1), len(text)):
            if text[at] in self._first:
                tail = text[at:]
                if any(s.startswith(tail) and s != tail for s in self._strings):
                    return at
        return len(text)


class Calls:
    """The calls of one answer, over all its sections."""

    def __init__(self) -> None:
        self.started = 0
        self.complete = 0
        self.broken = False
        self._ids: set[str] = set()

    def start(self, name: str, call_id: object = None) -> ToolStart:
        """A new call. The model's own id is kept: Kimi's template writes it, and nothing else, into the next prompt."""
        known = isinstance(call_id, str) and call_id and _encodable(call_id) and call_id not in self._ids
        id_ = str(call_id) if known else f"call_{secrets.token_hex(12)}"
        self._ids.add(id_)
        self.started += 1
        return ToolStart(self.started - 1, id_, name)

    def grow(self, text: str) -> ToolArguments:
        """More arguments of the call that started last."""
        return ToolArguments(self.started - 1, text)


class Section(Protocol):
    """One section of one answer."""

    rest: str | None
    """None while the section goes on; then the text behind it."""

    def push(self, text: str) -> list[Found]:
        """What is certain after this text and was not before."""

    def finish(self, *, cut: bool) -> list[Found]:
        """The answer ended inside the section; `cut`: not where the model meant to end it."""


class ToolFormat:
    """How one model writes calls."""

    def __init__(self, start: str, end: str, parser: Parser) -> None:
        self.start = start
        self.end = end
        self.family = str(getattr(parser, "__module__", "")).rpartition(".")[2]
        self._parser = parser

    @property
    def marks(self) -> set[str]:
        """Strings that must reach the sections, even where the tokenizer calls them special."""
        return {self.start, self.end, *INNER_MARKS.get(self.family, ())} - {""}

    def section(self, tools: Sequence[dict[str, Any]], calls: Calls, *, abandon: str | None = None) -> Section:
        """A section that begins now. `abandon`: a string which says that the section was none."""
        if self.family == "json_tools":
            return JsonSection(self.start, self.end, calls)
        return ParsedSection(self, tools, calls, abandon)

    def parse(self, text: str, tools: Sequence[dict[str, Any]]) -> list[tuple[str, str, object]]:
        """Name, arguments and the model's id of each call. Raises anything where the text is not calls."""
        if self.family in _BACKTRACKING and text.count("call:") > MOST_CALLS:
            raise ValueError("too many calls")
        parsed = self._parser(text, list(tools))
        found = [_checked(call) for call in (parsed if isinstance(parsed, list) else [parsed])]
        if not found:
            raise ValueError("no call")
        for name, arguments, _ in found:
            if name not in _names(tools):
                self._check_guess(name)
            if self.family == "glm47" and arguments.keys() == {"raw"} and "<arg_key>" not in text:
                raise ValueError("not the syntax of a call")
        return [(name, _dumped(arguments), call_id) for name, arguments, call_id in found]

    def pieces(self, text: str) -> list[str]:
        """The section's calls, each alone, where the parser needs that."""
        border = _NEXT_CALL.get(self.family)
        return border.split(text) if border else [text]

    def _check_guess(self, name: str) -> None:
        if self.family in _GUESSING or not _NAME.fullmatch(name):
            raise ValueError("no such tool")


class ParsedSection:
    """A section that mlx-lm parses once it is complete."""

    def __init__(self, form: ToolFormat, tools: Sequence[dict[str, Any]], calls: Calls, abandon: str | None) -> None:
        self._format = form
        self._tools = tools
        self._calls = calls
        self._abandon = abandon
        self._ends = Markers([form.end, abandon or ""])
        self._text: list[str] = []
        self._held = ""
        self.rest: str | None = None

    def push(self, text: str) -> list[Found]:
        before, marker, behind = self._ends.split(self._held + text)
        self._text.append(before)
        if marker is None:
            self._held = behind
            return []
        if marker == self._abandon:
            self.rest = marker + behind
            return [self._format.start + "".join(self._text)]
        self.rest = behind
        return self._found(marker)

    def finish(self, *, cut: bool) -> list[Found]:
        self.rest = ""
        if cut and self._format.end:  # lenient parsers make calls with half of their arguments of it
            return [self._format.start + "".join(self._text) + self._held]
        return self._found(self._held)

    def _found(self, marker: str) -> list[Found]:
        text = "".join(self._text)
        found: list[Found] = []
        lost: list[Found] = []
        for piece in self._format.pieces(text.strip()):
            try:
                calls = self._format.parse(piece, self._tools)
            except Exception:  # parsers raise whatever their slip is: AttributeError, SyntaxError, RecursionError
                lost.append(piece)
                continue
            for name, arguments, call_id in calls:
                found += [self._calls.start(name, call_id), self._calls.grow(arguments)]
                self._calls.complete += 1
        return found + lost if found else [self._format.start + text + marker]


class JsonSection:
    """A section of `{"name": ..., "arguments": {...}}`, read while it grows: one call, several, or a list of them."""

    def __init__(self, start: str, end: str, calls: Calls) -> None:
        self._end = end
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
        elif not _is_object("".join(call.arguments)):
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
        if not name or not _encodable(name):
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


def described(tools: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The functions among OpenAI's tools, with all that parsers expect in their schemas."""
    return [
        {**tool, "function": _function(tool["function"])} for tool in tools if isinstance(tool.get("function"), dict)
    ]


def _function(function: dict[str, Any]) -> dict[str, Any]:
    parameters = function.get("parameters")
    parameters = parameters if isinstance(parameters, dict) else {}
    properties = parameters.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    properties = {name: schema if isinstance(schema, dict) else {} for name, schema in properties.items()}
    return {**function, "parameters": {**parameters, "properties": properties}}


def _names(tools: Sequence[dict[str, Any]]) -> set[str]:
    return {str(tool["function"].get("name")) for tool in tools}


def _checked(call: Any) -> tuple[str, dict[str, Any], object]:
    """Name, arguments and id of what a parser says is a call. Raises ValueError, or what json raises."""
    name, arguments = call["name"], call.get("arguments", call.get("parameters"))
    if isinstance(arguments, str):
        arguments = json.loads(arguments, strict=False)
    if arguments is None:
        arguments = {}
    if not (isinstance(name, str) and name and _encodable(name) and isinstance(arguments, dict)):
        raise ValueError("not a call")
    return name, arguments, call.get("id")


def _dumped(arguments: dict[str, Any]) -> str:
    """As JSON; raises ValueError or TypeError where Python's values are not JSON's."""
    text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    return text if _encodable(text) else json.dumps(arguments, allow_nan=False)


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text, parse_constant=_refuse), dict)
    except (ValueError, RecursionError):
        return False


def _repaired(text: str) -> str:
    """The JSON, with control characters in its strings as escapes."""
    try:
        return text if _is_object(text) else json.dumps(json.loads(text, strict=False), ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _encodable(text: str) -> bool:
    """Whether it is free of lone surrogates, which no reply can carry."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
