"""A chat on a terminal: what is typed, what comes back, and the commands that begin with a slash."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Final

from prompt_toolkit.history import History
from rich.console import Console
from rich.text import Text

from localapi.cli.answer_view import AnswerView, keys_unseen
from localapi.cli.asking import Answer, chat_models, check_model, summary
from localapi.cli.conversation import PARAMETERS, CannotSay, Conversation
from localapi.cli.line_input import LineInput, file_history, history_path
from localapi.cli.markdown_view import THEME
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
    "/save FILE": "write what was said as markdown, or as JSON where FILE ends in .json",
    "/quit": "leave, as Ctrl-D does",
    "//…": "a message that begins with a slash",
}
_KEYS: Final = (
    "Enter sends; Alt-Enter, or a backslash at the end, begins another line. Ctrl-C stops an answer; what came of it "
    "stays in the conversation."
)


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
        """What can follow on a line."""
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
