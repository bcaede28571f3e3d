"""System prompt that a variant of a model adds to conversations, or that replaces theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from localapi.worker.protocol import Chat, Complete, Message

_ROLES: Final = ("system", "developer")


@dataclass(frozen=True)
class SystemPrompt:
    """Prompts of an entry; None if it has none."""

    usual: str | None
    """Prompt for conversations without one."""
    locked: str | None
    """Prompt that replaces the client's."""

    def applied(self, ask: Chat | Complete) -> Chat | Complete:
        """Return the request with the prompt. Completions have no place for one."""
        if not isinstance(ask, Chat) or (self.locked is None and self.usual is None):
            return ask
        own = [message for message in ask.messages if message.role in _ROLES]
        others = [message for message in ask.messages if message.role not in _ROLES]
        if self.locked is not None:
            return msgspec.structs.replace(ask, messages=[Message("system", self.locked), *others])
        if own or self.usual is None:
            return ask
        return msgspec.structs.replace(ask, messages=[Message("system", self.usual), *others])

    def overrules(self, ask: Chat) -> bool:
        """Return True if the client sent a prompt other than the locked one."""
        own = [message for message in ask.messages if message.role in _ROLES]
        return self.locked is not None and any(message.text != self.locked for message in own)

    def applied_to_original(self, messages: list[Any]) -> list[Any]:
        """Return the messages of a forwarded body in OpenAI's form, with the prompt."""
        own = [each for each in messages if isinstance(each, Mapping) and each.get("role") in _ROLES]
        if self.locked is not None:
            others = [each for each in messages if each not in own]
            return [{"role": "system", "content": self.locked}, *others]
        if own or self.usual is None:
            return messages
        return [{"role": "system", "content": self.usual}, *messages]
