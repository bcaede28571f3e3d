"""The line on which a chat is typed: history, completion, several lines."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.styles import Style

Words = Callable[[str], Iterable[str]]
"""Gives the words that can follow a line so far, which ends before the word that is being typed."""

_STYLE = Style.from_dict({"prompt": "bold", "placeholder": "#888888"})


def history_path() -> Path:
    """Where lines are kept: in the user's state folder."""
    home = "~/Library/Application Support" if sys.platform == "darwin" else os.environ.get("XDG_STATE_HOME")
    return Path(home or "~/.local/state").expanduser() / "localapi" / "chat_history"


def file_history(path: Path) -> History:
    """Lines that outlive the chat, in a file that nobody else can read. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != stat.S_IRUSR | stat.S_IWUSR:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    return FileHistory(str(path))


class LineInput:
    """Asks for what is said next."""

    def __init__(self, history: History | None, words: Words) -> None:
        self._session: PromptSession[str] = PromptSession(
            history=history or InMemoryHistory(),
            completer=_Words(words),
            complete_while_typing=False,
            multiline=True,
            prompt_continuation=lambda width, line, wraps: "… ".rjust(width),
            key_bindings=_keys(),
            style=_STYLE,
        )

    def read(self, placeholder: str) -> str:
        """What was typed, several lines perhaps. Raises EOFError where the user leaves."""
        shade = FormattedText([("class:placeholder", placeholder)])
        return self._session.prompt(FormattedText([("class:prompt", "> ")]), placeholder=shade)


class _Words(Completer):
    def __init__(self, words: Words) -> None:
        self._words = words

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        before, _, begun = document.text_before_cursor.rpartition(" ")
        yield from (Completion(word, -len(begun)) for word in self._words(before) if word.startswith(begun))


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _enter(event: KeyPressEvent) -> None:
        """Send; after a backslash, another line."""
        buffer = event.current_buffer
        if buffer.document.char_before_cursor == "\\":
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _newline(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-c")
    def _leave(event: KeyPressEvent) -> None:
        """Throw away what is typed; leave where nothing is."""
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=EOFError)

    return keys
