"""Request for text in the form that every dialect produces: what to answer, and the parameters that the client set.

A parameter is None until the client or the manifest sets it. The engine chooses the value of one that stays None.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from localapi.api.system_prompt import SystemPrompt
from localapi.backends.options import ChatOptions
from localapi.backends.parameters import FORMS, MEDIA, ChatParameters
from localapi.errors import InvalidRequest, shown
from localapi.http.generation import request_ids
from localapi.kinds.chat import capabilities, media
from localapi.worker.protocol import (
    AudioPart,
    Capabilities,
    Chat,
    Complete,
    ImagePart,
    JsonSchema,
    Message,
    Part,
    TextPart,
    form_param,
)


@contextmanager
def in_words_of_client(names: Mapping[str, Sequence[str]]) -> Iterator[None]:
    """Let an error of a request name its parameter as the client does: the first of these names that it used."""
    try:
        yield
    except InvalidRequest as error:
        called = names.get(error.param or "")
        if called and error.param:
            error.message = error.message.replace(error.param, called[0])
            error.param = called[0]
        raise


@dataclass(frozen=True, kw_only=True)
class NeutralRequest:
    """Request for text, parsed by a dialect from a body."""

    model: str
    asks: Sequence[Chat | Complete]
    """One request for each prompt, without ids and parameters, which `for_entry` adds. None: only load the model."""
    said: ChatParameters = field(default_factory=ChatParameters)
    """Parameters that the client set."""
    usual: Mapping[str, Any] = field(default_factory=dict)
    """Parameters for which the dialect's API defines a value if neither the client nor the manifest sets them."""
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Client's names for parameters, features and media, if they differ from ours."""
    wishes: Set[str] = frozenset()
    """Parameters that the client sets regardless of the model; they are dropped for a model that has no use for them.
    """
    keep_alive: float | None = None
    """Seconds without a request after which the model is unloaded; None for the manifest's value."""
    stream: bool = False
    ignored: Sequence[str] = ()
    """Fields of the body that have no effect."""
    refusal: InvalidRequest | None = None
    """Error of a request that only the server it is forwarded to can interpret. Each ask then has its `original`."""

    def check(self) -> None:
        """Check what all dialects have in common: tools, calls, and how a conversation ends. Raise InvalidRequest."""
        with self.in_words_of_client():
            for ask in self.asks:
                if isinstance(ask, Chat):
                    _check_tools(ask)
                    _check_turns(ask)

    def in_words_of_client(self) -> AbstractContextManager[None]:
        """Let an error of the request name its parameter as the client does."""
        return in_words_of_client(self.names)

    def suited_to(self, capabilities: Capabilities) -> tuple[NeutralRequest, list[str]]:
        """Return the request without thinking parameters that the model has no use for, and their names in the request.

        A parameter that holds anyway is not named: no thinking for a model that never thinks, thinking for one that
        always does.
        """
        controls = (capabilities.thinking_switch, capabilities.thinking_levels)
        usual = dict(self.usual)
        if not any(controls):
            usual.pop("reasoning_effort", None)
        wish = self.said.reasoning_effort if "reasoning_effort" in self.wishes else None
        if wish is None or any(controls) or None in controls:
            return replace(self, usual=usual), []
        said = self.said.model_copy(update={"reasoning_effort": None})
        kept = bool(capabilities.thinking) == (wish != "none")
        named = [] if kept else [self._called("reasoning_effort")]
        return replace(self, usual=usual, said=said), named

    def _called(self, name: str) -> str:
        return self.names.get(name, [name])[0]

    def honoured_by(self, options: ChatOptions, can: Capabilities | None = None) -> tuple[NeutralRequest, list[str]]:
        """Return the request without what the entry's model does not honour, and the client's names of that.

        `can` is what is known of the model, if it has been loaded. Raise InvalidRequest if there is any, unless the
        entry says `unsupported: warn`.
        """
        can = can or capabilities(options, None)
        if options.forwards and self.is_original:
            return self, []
        if self.refusal is not None:
            raise self.refusal
        unhonoured = list(self._unhonoured(honoured(options, can)))
        if not unhonoured:
            return self, []
        refused = [each for each in unhonoured if each.name not in self.wishes]
        if refused and options.unsupported == "error":
            raise refused[0].error(options.backend_name, self.model, media(options, can))
        names = {each.name for each in unhonoured}
        said = self.said.model_copy(update=dict.fromkeys(names & ChatParameters.model_fields.keys()))
        asks = [_without(ask, names) for ask in self.asks]
        return replace(self, asks=asks, said=said), [each.param for each in unhonoured]

    def _unhonoured(self, honours: Set[str]) -> Iterator[Unhonoured]:
        for name in self.said.model_dump(exclude_none=True):
            if name not in honours:
                yield Unhonoured(name, self._called(name))
        for name in dict.fromkeys(name for ask in self.asks for name in _features(ask)):
            if name not in honours:
                yield Unhonoured(name, self._called(name))
        for ask in self.asks:
            for at, message in enumerate(ask.messages if isinstance(ask, Chat) else ()):
                for place, part in enumerate(() if isinstance(message.content, str) else message.content):
                    medium = _medium(part)
                    if medium is not None and medium not in honours:
                        param = self.names.get(medium, [f"messages[{at}].content[{place}].type"])[0]
                        yield Unhonoured(medium, param, "unsupported_content")

    @property
    def is_original(self) -> bool:
        """True if the request can be forwarded as the client wrote it."""
        return all(ask.original is not None for ask in self.asks)

    @property
    def count(self) -> int:
        """Number of choices."""
        return sum(ask.n for ask in self.asks)

    @property
    def may_be_relaxed(self) -> bool:
        """True if the reply may have to say that a schema is not fully enforced."""
        return any(_may_be_relaxed(ask) for ask in self.asks)

    def for_entry(self, options: ChatOptions) -> tuple[list[Chat | Complete], list[str]]:
        """Return the engine's requests, and the client's names of the parameters that locks override.

        The client's values override the entry's defaults, and the entry's locks override both.
        """
        said = self.said.model_dump(exclude_none=True)
        locked = options.locked.model_dump(exclude_none=True)
        defaults = options.defaults.model_dump(exclude_none=True)
        system = SystemPrompt(defaults.pop("system", None), locked.pop("system", None))
        usual = {} if options.forwards else self.usual
        values = {**usual, **defaults, **said, **locked}
        parameters = ChatParameters.model_validate(values)
        overruled: list[str] = []
        for name, value in said.items():
            if name in locked and locked[name] != value:
                overruled += self.names.get(name, [name])
        asks = []
        for ask in self.asks:
            original = self._forwarded(ask, defaults, locked) if options.forwards else None
            prompted = system.applied(ask)
            if original is not None and isinstance(original.get("messages"), list):
                original["messages"] = system.applied_to_original(original["messages"])
            if isinstance(ask, Chat) and system.overrules(ask):
                overruled += self.names.get("system", ["messages"])
            asks.append(_with(prompted, parameters, original))
        return asks, sorted(overruled)

    def _forwarded(
        self, ask: Chat | Complete, defaults: Mapping[str, Any], locked: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """Return the body to forward: the client's values, over the entry's defaults and under its locks."""
        if ask.original is None:
            return None
        body = dict(ask.original)
        for name, value in locked.items():
            for said in self.names.get(name, ()):
                body.pop(said, None)
            body[name] = value
        for name, value in defaults.items():
            if not any(said in body for said in (name, *self.names.get(name, ()))):
                body[name] = value
        return body


def _check_tools(chat: Chat) -> None:
    names: list[str] = []
    for tool in chat.tools:
        if tool.name in names:
            raise InvalidRequest(f"The tool name {tool.name!r} is used twice; names must differ.", param="tools")
        names.append(tool.name)
    if chat.tool_name is not None and chat.tool_name not in names:
        raise unknown_tool(chat.tool_name, names)
    if chat.tool_choice == "required" and not names:
        raise InvalidRequest("tool_choice is 'required', but there are no tools.", param="tool_choice")
    if chat.tool_choice == "required" and chat.form is not None:
        raise InvalidRequest("A response cannot both be a tool call and have another form.", param="tool_choice")


def unknown_tool(name: str, names: Sequence[str]) -> InvalidRequest:
    """Return the error for a required tool that does not exist."""
    return InvalidRequest(
        f"tool_choice names {name!r}; the tools are: {', '.join(names) or 'none'}.", param="tool_choice"
    )


def _check_turns(chat: Chat) -> None:
    last = chat.messages[-1] if chat.messages else Message("")
    if chat.continues and last.role != "assistant":
        raise InvalidRequest(
            f"'continue_final_message' needs a last message of role assistant; found {last.role}.",
            param="continue_final_message",
        )
    if chat.continues and last.calls:
        raise InvalidRequest(
            "'continue_final_message' continues text; the last message has tool_calls. Send their results.",
            param="continue_final_message",
        )
    calls: set[str] = set()
    for at, message in enumerate(chat.messages):
        calls.update(call.id for call in message.calls)
        if message.call_id is not None and message.call_id not in calls:
            raise InvalidRequest(
                f"No earlier assistant message calls a tool with the id {message.call_id!r}.",
                param=f"messages[{at}].tool_call_id",
            )


def honoured(options: ChatOptions, can: Capabilities) -> frozenset[str]:
    """Return what an entry's model honours: what its backend honours, without media that the model cannot accept."""
    return (options.honours - MEDIA) | media(options, can)


@dataclass(frozen=True)
class Unhonoured:
    """Part of a request that its backend does not honour."""

    name: str
    """Name, as in `ChatOptions.honours`."""
    param: str
    """Its place in the client's request."""
    code: str = "unsupported_parameter"

    def error(self, backend: str, model: str, reads: Set[str]) -> InvalidRequest:
        """Return the error. `reads` are the media that the model accepts."""
        if self.name in MEDIA:
            what = " and ".join(["text", *sorted(reads)]) if reads else "text only"
            return InvalidRequest(
                f"The model {shown(model)} accepts {what}, but the request has a part of type {self.name}. Choose a "
                f"model whose `input` in /v1/models names {self.name}, or remove the part.",
                param=self.param,
                code=self.code,
            )
        return InvalidRequest(
            f"The backend {backend} does not support '{self.param}'. Remove it, or set `unsupported: warn` for this "
            "model in the manifest.",
            param=self.param,
            code=self.code,
        )


_NOTHING: Final[Mapping[str, Mapping[str, Any]]] = {
    **{form: {"form": None} for form in FORMS},
    "n": {"n": 1},
    "logprobs": {"top_logprobs": None},
    "tools": {"tools": [], "tool_choice": "auto", "tool_name": None},
    "tool_choice": {"tool_choice": "auto", "tool_name": None},
    "parallel_tool_calls": {"parallel_tool_calls": True},
    "continue_final_message": {"continues": False},
    "echo": {"echo": False},
}
"""Fields of a request that uses no feature."""


def _features(ask: Chat | Complete) -> Iterator[str]:
    """Yield the TEXT_FEATURES that a request uses."""
    if ask.form is not None:
        yield form_param(ask)
    if ask.n > 1:
        yield "n"
    if ask.top_logprobs is not None:
        yield "logprobs"
    if isinstance(ask, Complete):
        if ask.echo:
            yield "echo"
        return
    if ask.tools and ask.tool_choice != "none":
        yield "tools"
    if ask.tool_choice == "required":
        yield "tool_choice"
    if not ask.parallel_tool_calls and ask.tools:
        yield "parallel_tool_calls"
    if ask.continues:
        yield "continue_final_message"


def _medium(part: Part) -> str | None:
    match part:
        case ImagePart():
            return "image"
        case AudioPart():
            return "audio"
        case TextPart():
            return None


def _without(ask: Chat | Complete, names: Set[str]) -> Chat | Complete:
    """Return the request without these features and media."""
    changes: dict[str, Any] = {}
    for name in dict.fromkeys(_features(ask)):
        if name in names:
            changes |= _NOTHING[name]
    if isinstance(ask, Chat) and names & MEDIA:
        changes["messages"] = [_without_media(message, names) for message in ask.messages]
    return msgspec.structs.replace(ask, **changes)


def _without_media(message: Message, names: Set[str]) -> Message:
    if isinstance(message.content, str):
        return message
    kept = [part for part in message.content if _medium(part) not in names]
    return msgspec.structs.replace(message, content=kept)


def _with(ask: Chat | Complete, parameters: ChatParameters, original: dict[str, Any] | None) -> Chat | Complete:
    settled: dict[str, Any] = {
        "original": original,
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
    return any(ask.tool_choice == "required" or tool.strict for tool in ask.tools)
