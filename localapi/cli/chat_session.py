"""A chat on a terminal: what is typed, what comes back, and the commands that begin with a slash."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Final

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.styles import Style
from rich.console import Console
from rich.text import Text

from localapi.cli.answer_view import THEME, AnswerView, keys_unseen
from localapi.cli.asking import Answer, chat_models, check_model, summary
from localapi.cli.chat import PARAMETERS, CannotSay, Conversation
from localapi.cli.plain_text import shown
from localapi.client import Server
from localapi.errors import NoServer, OperatorError, Refused

HELP: Final = {
    "/help": "this list",
    "/clear": "forget what was said",
    "/retry": "ask the last question again",
    "/system TEXT": "what the model is told first; without TEXT nothing",
    "/set NAME VALUE": "a parameter: /set temperature 0.2; without VALUE the model's own, without NAME all",
    "/model NAME": "go on with another model; without NAME show which there are",
    "/save FILE": "write what was said as markdown, or as JSON if FILE ends in .json",
    "/quit": "leave, as Ctrl-D does",
    "//…": "a message that begins with a slash",
}
_KEYS: Final = (
    "Enter sends; Alt-Enter, or a backslash at the end, begins another line. Ctrl-C stops an answer; what came of it "
    "stays in the conversation."
)
Words = Callable[[str], Iterable[str]]
"""Gives the words that can follow a line so far, which ends before the word that is being typed."""
_STYLE = Style.from_dict({"prompt": "bold", "placeholder": "#888888"})


class ChatSession:
    """One chat, until the user leaves."""

    def __init__(self, server: Server, conversation: Conversation, *, keep_history: bool) -> None:
        self._server, self._conversation = server, conversation
        self._console = Console(theme=THEME, highlight=False, markup=False, emoji=False)
        self._leaving = False
        self._commands: dict[str, Callable[[str], None]] = {
            "help": self._help,
            "clear": self._clear,
            "retry": self._retry,
            "system": self._system,
            "set": self._set,
            "model": self._model,
            "save": self._save,
            "quit": self._quit,
        }
        self._input = LineInput(self._history(keep=keep_history), self._words)

    def _history(self, *, keep: bool) -> History | None:
        path = history_path()
        try:
            return file_history(path) if keep else None
        except OSError as error:
            self._tell(f"lines are not kept: {path}: {error.strerror}")
            return None

    def run(self) -> None:
        """Ask and answer until the user leaves."""
        self._tell(f"{self._conversation.model} on {self._server.address}; /help lists what there is, Ctrl-D leaves")
        while not self._leaving:
            try:
                line = self._input.read("ask something, or /help").strip()
            except EOFError:
                return
            try:
                self._take(line)
            except OperatorError as error:
                self._complain(error)
            except KeyboardInterrupt:
                self._tell("stopped")

    def _take(self, line: str) -> None:
        if line.startswith("/") and not line.startswith("//"):
            name, _, rest = line[1:].partition(" ")
            if name not in self._commands:
                raise CannotSay(f"there is no /{name}; /help lists what there is, and // begins a message with a slash")
            self._commands[name](rest.strip())
        elif line:
            self._ask(line.removeprefix("/") if line.startswith("//") else line)

    def _ask(self, question: str) -> None:
        """One question, and its answer as far as it comes: the user may stop it, or the server may fail."""
        conversation, answer = self._conversation, Answer()
        conversation.ask(question)
        ended = "stopped"
        try:
            pieces = answer.pieces(self._server, conversation.request())
            with keys_unseen(), AnswerView(self._console) as view, closing(pieces):
                for piece in pieces:
                    view.show(piece)
            ended = "" if answer.text else "the model wrote nothing"
        except KeyboardInterrupt:
            pass
        except (NoServer, Refused) as error:
            self._complain(error)
            ended = "failed; /retry asks again"
        finally:
            conversation.answered(answer.text)
            self._tell(" · ".join(filter(None, (ended, summary(answer)))))
            self._console.print()

    def _help(self, _: str) -> None:
        width = max(map(len, HELP))
        for name, text in HELP.items():
            self._console.print(Text.assemble((name.ljust(width), "bold"), "  ", text))
        self._tell(_KEYS)

    def _clear(self, _: str) -> None:
        self._conversation.clear()
        self._tell("forgotten")

    def _retry(self, _: str) -> None:
        question = self._conversation.retry()
        self._tell(f"> {question}")
        self._ask(question)

    def _system(self, text: str) -> None:
        self._conversation.system = text
        self._tell("set" if text else "no system message")

    def _set(self, rest: str) -> None:
        name, _, value = rest.partition(" ")
        if name:
            self._conversation.set(name, value.strip())
        for key, said in self._conversation.parameters.items():
            self._tell(f"{key} {said}")
        if not self._conversation.parameters:
            self._tell(f"all as the model has them; there are {', '.join(PARAMETERS)}")

    def _model(self, name: str) -> None:
        if name:
            check_model(self._server, name)
            self._conversation.model = name
        for known in chat_models(self._server):
            self._tell(f"{'*' if known == self._conversation.model else ' '} {known}")

    def _save(self, name: str) -> None:
        if not name:
            raise CannotSay("name the file: /save FILE")
        path = Path(os.path.expanduser(name))  # Path's own raises for a user whom nobody knows
        self._conversation.save(path)
        self._tell(f"written to {path}")

    def _quit(self, _: str) -> None:
        self._leaving = True

    def _words(self, before: str) -> Iterable[str]:
        """Return the words that may follow on a line."""
        match before.split():
            case []:
                return [f"/{name}" for name in self._commands]
            case ["/set"]:
                return PARAMETERS
            case ["/model"]:
                try:
                    return chat_models(self._server)
                except OperatorError:
                    return []
            case _:
                return []

    def _complain(self, error: OperatorError) -> None:
        self._console.print(Text(shown(str(error)), style="red"))

    def _tell(self, text: str) -> None:
        if text:
            self._console.print(Text(shown(text), style="dim"))


def history_path() -> Path:
    """Where lines are kept: in the user's state folder."""
    home = "~/Library/Application Support" if sys.platform == "darwin" else os.environ.get("XDG_STATE_HOME")
    return Path(home or "~/.local/state").expanduser() / "localapi" / "chat_history"


def file_history(path: Path) -> History:
    """Return a history kept in a file that only its owner can read. Raise OSError."""
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
        """Return what was typed, which may be several lines. Raise EOFError if the user leaves."""
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
        """Discard what is typed; leave if there is nothing."""
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=EOFError)

    return keys
