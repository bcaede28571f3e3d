"""The conversation of `localapi chat`: its messages, parameters and media, as they are sent and saved."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from localapi.errors import OperatorError

PARAMETERS: Final = (
    "temperature", "top_p", "top_k", "min_p", "max_tokens", "seed", "stop", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "reasoning_effort",
)  # fmt: skip
"""Parameters that /set accepts, by their names in the API."""
Message = dict[str, str]


class CannotSay(OperatorError):
    """A chat command cannot be carried out; the chat continues."""


@dataclass
class Conversation:
    """The messages and parameters of one chat."""

    model: str
    parameters: dict[str, Any] = field(default_factory=dict)
    system: str = ""
    messages: list[Message] = field(default_factory=list)
    """Turns of the user and the model, alternating."""
    unanswered: str = ""
    """Last question, if it has no response."""
    media: list[dict[str, Any]] = field(default_factory=list)
    """Images and recordings that belong to the first question, as content parts."""
    _saved: set[Path] = field(default_factory=set)

    def request(self) -> dict[str, Any]:
        """Return the request body for the next turn of the model."""
        messages: list[Any] = [{"role": "system", "content": self.system}] if self.system else []
        messages += self.messages
        first = next((at for at, message in enumerate(messages) if message["role"] == "user"), None)
        if self.media and first is not None:
            question = {"type": "text", "text": messages[first]["content"]}
            messages[first] = {"role": "user", "content": [*self.media, question]}
        return {"model": self.model, "messages": messages, **self.parameters}

    def ask(self, question: str) -> None:
        """Add the user's turn."""
        self.unanswered = ""
        self.messages.append({"role": "user", "content": question})

    def answered(self, text: str) -> None:
        """Add the model's turn. If it is empty, remove the question and keep it for `retry`."""
        if text:
            self.messages.append({"role": "assistant", "content": text})
        else:
            self.unanswered = self.messages.pop()["content"]

    def retry(self) -> str:
        """Remove the last question and its response, and return the question. Raise CannotSay if there is none."""
        if not self.unanswered and not self.messages:
            raise CannotSay("nothing has been asked yet")
        question = self.unanswered
        if not question:
            self.messages.pop()
            question = self.messages.pop()["content"]
        self.unanswered = ""
        return question

    def clear(self) -> None:
        """Remove all turns; keep the system prompt and the parameters."""
        self.messages.clear()
        self.unanswered = ""

    def set(self, name: str, value: str) -> None:
        """Set a parameter, or unset it if the value is empty. Raise CannotSay if it is invalid."""
        if name not in PARAMETERS:
            raise CannotSay(f"there is no parameter {name!r}; available: {', '.join(PARAMETERS)}")
        if not value:
            self.parameters.pop(name, None)
            return
        said: object = value
        with contextlib.suppress(ValueError):
            said = json.loads(value)
        from localapi.backends.parameters import objection  # noqa: PLC0415  # most chats set nothing

        if why := objection(name, said):
            raise CannotSay(f"{name} {why}; found {json.dumps(said)}")
        self.parameters[name] = said

    def save(self, path: Path) -> None:
        """Write the chat as JSON if the name ends in .json, otherwise as Markdown.

        Raise CannotSay if the file cannot be written, or exists and was not written by this chat.
        """
        request = self.request()
        text = json.dumps(request, indent=2) + "\n"
        if path.suffix != ".json":
            system = [{"role": "system", "content": self.system}] if self.system else []
            said = [*system, *self.messages]
            text = "\n".join(f"## {message['role']}\n\n{message['content']}\n" for message in said)
        try:
            with path.open("w" if path.resolve() in self._saved else "x", encoding="utf-8", errors="replace") as file:
                file.write(text)
        except FileExistsError:
            raise CannotSay(f"{path} already exists; name a new file") from None
        except OSError as error:
            raise CannotSay(f"{path} cannot be written: {error.strerror}") from None
        self._saved.add(path.resolve())
