"""Message of the neutral conversation under construction, for dialects that split it into several blocks or items."""

from __future__ import annotations

from dataclasses import dataclass, field

from localapi.worker.protocol import FunctionCall, Message, Part, TextPart


@dataclass
class MessageDraft:
    """A message whose parts are still being read."""

    role: str
    parts: list[Part] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[FunctionCall] = field(default_factory=list)
    call_id: str | None = None

    def neutral(self) -> Message:
        """Return the message for engines: the same for a string and for one text part, so that prompts stay cached."""
        match self.parts:
            case []:
                content: str | list[Part] = ""
            case [TextPart(text=text)]:
                content = text
            case _:
                content = self.parts
        reasoning = "\n".join(self.thoughts) or None
        return Message(self.role, content, reasoning=reasoning, calls=self.calls, call_id=self.call_id)
