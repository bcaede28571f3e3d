"""What was said in a chat, and how it is asked. Knows nothing of terminals and servers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from localapi.errors import OperatorError

PARAMETERS: Final = (
    "temperature", "top_p", "top_k", "min_p", "max_tokens", "seed", "stop", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "reasoning_effort",
)  # fmt: skip
"""What /set knows, by the names of the API."""
Message = dict[str, str]


class CannotSay(OperatorError):
    """A line of a chat that asks for something that cannot be done; the chat goes on."""


@dataclass
class Conversation:
    """The messages and parameters of one chat."""

    model: str
    parameters: dict[str, Any] = field(default_factory=dict)
    system: str = ""
    messages: list[Message] = field(default_factory=list)
    """Of the user and of the model, in turns."""
    unanswered: str = ""
    """The last question, where no answer to it came."""
    _saved: set[Path] = field(default_factory=set)

    def request(self) -> dict[str, Any]:
        """What is sent to be answered."""
        before = [{"role": "system", "content": self.system}] if self.system else []
        return {"model": self.model, "messages": [*before, *self.messages], **self.parameters}

    def ask(self, question: str) -> None:
        """The user's turn."""
        self.unanswered = ""
        self.messages.append({"role": "user", "content": question})

    def answered(self, text: str) -> None:
        """The model's turn; where nothing came the question is taken back, and kept for `retry`."""
        if text:
            self.messages.append({"role": "assistant", "content": text})
        else:
            self.unanswered = self.messages.pop()["content"]

    def retry(self) -> str:
        """Takes the last question and its answer back, and gives the question. Raises CannotSay."""
        if not self.unanswered and not self.messages:
            raise CannotSay("nothing has been asked yet")
        question = self.unanswered
        if not question:
            self.messages.pop()
            question = self.messages.pop()["content"]
        self.unanswered = ""
        return question

    def clear(self) -> None:
        """Forget what was said; system message and parameters stay."""
        self.messages.clear()
        self.unanswered = ""

    def set(self, name: str, value: str) -> None:
        """Set a parameter, or leave it to the model where there is no value. Raises CannotSay."""
        if name not in PARAMETERS:
            raise CannotSay(f"there is no parameter {name!r}; there are {', '.join(PARAMETERS)}")
        if not value:
            self.parameters.pop(name, None)
            return
        said: object = value
        with contextlib.suppress(ValueError):
            said = json.loads(value)
        _refuse_what_the_api_would(name, said)
        self.parameters[name] = said

    def save(self, path: Path) -> None:
        """Write it all: as JSON where the name ends in .json, else as markdown.

        Replaces no file that this chat did not write. Raises CannotSay.
        """
        request = self.request()
        text = _json(request) if path.suffix == ".json" else _markdown(request["messages"])
        try:
            with path.open("w" if path.resolve() in self._saved else "x", encoding="utf-8", errors="replace") as file:
                file.write(text)
        except FileExistsError:
            raise CannotSay(f"{path} is there already: name a new file") from None
        except OSError as error:
            raise CannotSay(f"{path} cannot be written: {error.strerror}") from None
        self._saved.add(path.resolve())


def _refuse_what_the_api_would(name: str, value: object) -> None:
    """By the server's own words for what a parameter may be. Raises CannotSay."""
    from localapi.backends.parameters import objection  # noqa: PLC0415  # most chats set nothing

    if why := objection(name, value):
        raise CannotSay(f"{name} {why}; found {json.dumps(value)}")


def _json(request: Mapping[str, Any]) -> str:
    return json.dumps(request, indent=2) + "\n"


def _markdown(messages: list[Message]) -> str:
    return "\n".join(f"## {message['role']}\n\n{message['content']}\n" for message in messages)
