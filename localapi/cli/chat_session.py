"""Chat on a terminal: the prompt, the responses, and the commands that begin with a slash."""

from __future__ import annotations

import contextlib
import os
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
from localapi.cli.conversation import PARAMETERS, CannotSay, Conversation
from localapi.cli.plain_text import shown
from localapi.client import Server
from localapi.errors import NoServer, OperatorError, Refused

HELP: Final = {
    "/help": "this list",
    "/clear": "forget the conversation",
    "/retry": "ask the last question again",
    "/system TEXT": "set the system prompt; without TEXT, remove it",
    "/set NAME VALUE": "set a parameter, such as temperature 0.2; without VALUE, reset it; without NAME, list all",
    "/model NAME": "continue with another model; without NAME, list the models",
    "/save FILE": "save the conversation as Markdown, or as JSON if FILE ends in .json",
    "/quit": "leave; Ctrl-D does the same",
    "//…": "a message that begins with a slash",
}
_KEYS: Final = (
    "Enter sends; Alt-Enter, or a backslash at the end of a line, starts a new line. Ctrl-C stops a response; its "
    "text so far "
    "stays in the conversation."
)
_STYLE = Style.from_dict({"prompt": "bold", "placeholder": "#888888"})


class ChatSession:
    """Chat that lasts until the user leaves."""

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
        history: History = InMemoryHistory()
        if keep_history:
            path = history_path()
            try:
                history = file_history(path)
            except OSError as error:
                self._tell(f"the history is not kept: {path}: {error.strerror}")
        self._prompt: PromptSession[str] = PromptSession(
            FormattedText([("class:prompt", "> ")]),
            placeholder=FormattedText([("class:placeholder", "ask something, or /help")]),
            history=history,
            completer=_Completer(self._words),
            complete_while_typing=False,
            multiline=True,
            prompt_continuation=lambda width, line, wraps: "… ".rjust(width),
            key_bindings=_keys(),
            style=_STYLE,
        )

    def run(self) -> None:
        """Ask and answer until the user leaves."""
        self._tell(f"{self._conversation.model} on {self._server.address}; /help lists the commands, Ctrl-D leaves")
        while not self._leaving:
            try:
                line = self._prompt.prompt().strip()
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
                raise CannotSay(f"there is no /{name}; /help lists the commands, and // begins a message with a slash")
            self._commands[name](rest.strip())
        elif line:
            self._ask(line.removeprefix("/") if line.startswith("//") else line)

    def _ask(self, question: str) -> None:
        """Send a question, and show the response until it ends, fails, or is stopped by the user."""
        conversation, answer = self._conversation, Answer()
        conversation.ask(question)
        ended = "stopped"
        try:
            pieces = answer.pieces(self._server, conversation.request())
            with keys_unseen(), AnswerView(self._console) as view, closing(pieces):
                for piece in pieces:
                    view.show(piece)
            ended = "" if answer.text else "the response is empty"
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
        self._tell("system prompt set" if text else "no system prompt")

    def _set(self, rest: str) -> None:
        name, _, value = rest.partition(" ")
        if name:
            self._conversation.set(name, value.strip())
        for key, said in self._conversation.parameters.items():
            self._tell(f"{key} {said}")
        if not self._conversation.parameters:
            self._tell(f"no parameters set; available: {', '.join(PARAMETERS)}")

    def _model(self, name: str) -> None:
        if name:
            check_model(self._server, name)
            self._conversation.model = name
        for known in chat_models(self._server):
            self._tell(f"{'*' if known == self._conversation.model else ' '} {known}")

    def _save(self, name: str) -> None:
        if not name:
            raise CannotSay("name the file: /save FILE")
        path = Path(os.path.expanduser(name))  # Path's own exception for an unknown user
        self._conversation.save(path)
        self._tell(f"written to {path}")

    def _quit(self, _: str) -> None:
        self._leaving = True

    def _words(self, before: str) -> Iterable[str]:
        """Return the words that may follow the text of a line up to the word that is being typed."""
        words: Iterable[str] = ()
        match before.split():
            case []:
                words = [f"/{name}" for name in self._commands]
            case ["/set"]:
                words = PARAMETERS
            case ["/model"]:
                with contextlib.suppress(OperatorError):
                    words = chat_models(self._server)
        return words

    def _complain(self, error: OperatorError) -> None:
        self._console.print(Text(shown(str(error)), style="red"))

    def _tell(self, text: str) -> None:
        if text:
            self._console.print(Text(shown(text), style="dim"))


def history_path() -> Path:
    """Return the file of the history, in the user's state folder."""
    home = "~/Library/Application Support" if sys.platform == "darwin" else os.environ.get("XDG_STATE_HOME")
    return Path(home or "~/.local/state").expanduser() / "localapi" / "chat_history"


def file_history(path: Path) -> History:
    """Return a history kept in a file that only its owner can read. Raise OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        os.fchmod(file.fileno(), 0o600)
    return FileHistory(str(path))


class _Completer(Completer):
    def __init__(self, words: Callable[[str], Iterable[str]]) -> None:
        self._words = words

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        before, _, begun = document.text_before_cursor.rpartition(" ")
        yield from (Completion(word, -len(begun)) for word in self._words(before) if word.startswith(begun))


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _enter(event: KeyPressEvent) -> None:
        """Send, or start a new line after a backslash."""
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
        """Discard the typed text, or leave if there is none."""
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=EOFError)

    return keys
