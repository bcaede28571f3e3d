"""A request for text as every dialect gives it: what to answer, and the parameters that the client set.

A parameter is None until the client or the manifest sets it; what nobody sets, the engine decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from localapi.backends.options import ChatOptions
from localapi.backends.parameters import ChatParameters
from localapi.http.generation import request_ids
from localapi.worker.protocol import Chat, Complete, JsonSchema


@dataclass(frozen=True, kw_only=True)
class TextRequest:
    """What a dialect makes of a body."""

    model: str
    asks: Sequence[Chat | Complete]
    """One for each prompt, without ids and parameters: `for_entry` adds them."""
    said: ChatParameters = field(default_factory=ChatParameters)
    """The parameters that the client set."""
    usual: Mapping[str, Any] = field(default_factory=dict)
    """Parameters that the dialect's API defines a value for, if neither the client nor the manifest sets them."""
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What the client called a parameter, if it is not our name."""
    stream: bool = False
    ignored: Sequence[str] = ()
    """Fields of the body that have no effect."""

    @property
    def count(self) -> int:
        """How many answers there will be."""
        return sum(ask.n for ask in self.asks)

    @property
    def may_be_relaxed(self) -> bool:
        """True if the reply may have to say that a schema is not kept to the letter."""
        return any(_may_be_relaxed(ask) for ask in self.asks)

    def for_entry(self, options: ChatOptions) -> tuple[list[Chat | Complete], list[str]]:
        """Return the engine's requests, and the client's names of the parameters that a lock overrules.

        What the client set comes before the entry's defaults, and the entry's locks come before both.
        """
        said = self.said.model_dump(exclude_none=True)
        locked = options.locked.model_dump(exclude_none=True)
        values = {**self.usual, **options.defaults.model_dump(exclude_none=True), **said, **locked}
        parameters = ChatParameters.model_validate(values)
        overruled: list[str] = []
        for name, value in said.items():
            if name in locked and locked[name] != value:
                overruled += self.names.get(name, [name])
        return [_with(ask, parameters) for ask in self.asks], sorted(overruled)


def _with(ask: Chat | Complete, parameters: ChatParameters) -> Chat | Complete:
    settled: dict[str, Any] = {
        "id": next(request_ids),
        "sampling": parameters.sampling,
        "max_tokens": parameters.longest_answer,
        "stop": parameters.stop_strings,
    }
    if isinstance(ask, Chat):
        settled["template_options"] = parameters.template_options
    return msgspec.structs.replace(ask, **settled)


def _may_be_relaxed(ask: Chat | Complete) -> bool:
    if isinstance(ask.form, JsonSchema) and not ask.form.strict:
        return True
    if not isinstance(ask, Chat) or ask.tool_choice == "none":
        return False
    return any(ask.tool_choice == "required" or tool["function"].get("strict") for tool in ask.tools)
