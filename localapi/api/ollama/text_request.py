"""Bodies of `POST /api/chat` and `POST /api/generate`, and the requests that they make."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, ValidationError

from localapi.api.keep_alive import KeepAlive
from localapi.api.neutral_request import NeutralRequest
from localapi.api.ollama.wire import HIGHEST_TEMPERATURE, ModelName, ModelOptions, names_of_options, parameters_of
from localapi.api.openai.chat_request import MAX_MESSAGES, MAX_TOOLS
from localapi.api.openai.generation_request import BodyObject
from localapi.backends.parameters import ChatParameters, FreeObject
from localapi.errors import InvalidRequest
from localapi.http.body import RequestBody
from localapi.worker import protocol
from localapi.worker.protocol import Chat, Complete, Form, FunctionCall, FunctionTool, JsonObject, JsonSchema, TextPart

MAX_TOP_LOGPROBS: Final = 20
_IMAGES: Final = ((b"\x89PNG", "png"), (b"\xff\xd8", "jpeg"), (b"GIF8", "gif"), (b"RIFF", "webp"))


def _base64(value: str) -> str:
    try:
        base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        raise ValueError("should be an image in base64") from None
    return value


Image = Annotated[str, AfterValidator(_base64)]


class OllamaFunction(BodyObject):
    name: str
    index: int | None = None
    arguments: str | FreeObject | None = None  # as in chat requests, because typing knows one union of the two


class OllamaCall(BodyObject):
    id: str | None = None
    index: int | None = None
    """Its index, which the position in the list already gives."""
    function: OllamaFunction


class OllamaTurn(BodyObject):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    images: list[Image] | None = None
    tool_calls: list[OllamaCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class OllamaToolFunction(BodyObject):
    name: Annotated[str, Field(min_length=1, max_length=200)]
    description: str | None = None
    parameters: FreeObject | None = None


class OllamaTool(BodyObject):
    type: str | None = "function"
    function: OllamaToolFunction


class OllamaRequest(RequestBody):
    """Fields that both bodies have."""

    model: ModelName
    stream: bool = True
    format: Literal["", "json"] | FreeObject | None = None
    options: ModelOptions | None = None
    keep_alive: KeepAlive = None
    think: bool | Literal["", "low", "medium", "high", "max"] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int | None, Field(ge=0, le=MAX_TOP_LOGPROBS)] = None

    @property
    def form(self) -> Form | None:
        """Form that the response must have."""
        if isinstance(self.format, dict):
            # In Ollama, additionalProperties is false if a schema omits it, as those of pydantic and zod do.
            return JsonSchema(json.dumps(self.format, ensure_ascii=False), closed=True)
        return JsonObject() if self.format == "json" else None

    @property
    def likely_tokens(self) -> int | None:
        """Number of likeliest tokens to report; None if no log probabilities are requested."""
        return (self.top_logprobs or 0) if self.logprobs else None

    def request(
        self, model: str, asks: Sequence[Chat | Complete], ignored: Sequence[str], images: Sequence[str] = ()
    ) -> NeutralRequest:
        """Return the neutral request. `images` are the places of images in the body."""
        if self.options is not None and (self.options.temperature or 0) > HIGHEST_TEMPERATURE:
            ignored = [*ignored, "options.temperature"]
        return NeutralRequest(
            model=model,
            asks=asks,
            said=self._parameters(),
            names={
                **names_of_options(),
                "reasoning_effort": ["think"],
                "response_format": ["format"],
                "continue_final_message": ["messages"],
                "image": list(images),
            },
            keep_alive=self.keep_alive,
            stream=self.stream,
            ignored=ignored,
        )

    def _parameters(self) -> ChatParameters:
        said = parameters_of(self.options)
        if isinstance(self.think, bool):
            said["reasoning_effort"] = "medium" if self.think else "none"
        elif self.think:
            said["reasoning_effort"] = self.think
        try:
            return ChatParameters.model_validate(said)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            name = names_of_options().get(str(problem["loc"][0]), ["options"])[0]
            message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
            raise InvalidRequest(f"Invalid '{name}': {message}.", param=name, code="invalid_value") from None


class OllamaChatRequest(OllamaRequest):
    """Conversation. Without messages, the model is loaded, or unloaded with `keep_alive: 0`."""

    messages: Annotated[list[OllamaTurn], Field(default_factory=list, max_length=MAX_MESSAGES)]
    tools: Annotated[list[OllamaTool], Field(default_factory=list, max_length=MAX_TOOLS)]

    def neutral(self, model: str, ignored: Sequence[str]) -> NeutralRequest:
        """Return the neutral request. `model` is the name of an entry."""
        if not self.messages:
            return self.request(model, [], ignored)
        last = self.messages[-1]
        chat = Chat(
            id=0,
            messages=_messages(self.messages),
            form=self.form,
            top_logprobs=self.likely_tokens,
            tools=[
                FunctionTool(tool.function.name, tool.function.description, tool.function.parameters)
                for tool in self.tools
            ],
            continues=last.role == "assistant" and bool(last.content) and not last.tool_calls,
        )
        images: list[str] = []
        for at, turn in enumerate(self.messages):
            images += [f"messages[{at}].images[{place}]" for place in range(len(turn.images or ()))]
        return self.request(model, [chat], ignored, images)


class OllamaGenerateRequest(OllamaRequest):
    """Prompt. Without one, the model is loaded, or unloaded with `keep_alive: 0`."""

    prompt: str = ""
    system: str | None = None
    images: list[Image] | None = None
    raw: bool = False
    suffix: str | None = None
    template: str | None = None
    context: list[int] | None = None

    def neutral(self, model: str, ignored: Sequence[str]) -> NeutralRequest:
        """Return the neutral request. Raise InvalidRequest."""
        for name, instead in (
            ("suffix", "This server only continues texts at their end"),
            (
                "template",
                "The chat template is always the model's own; send `raw: true` with a prompt in the model's format",
            ),
            ("context", "Send the conversation to /api/chat instead"),
        ):
            if getattr(self, name):
                raise InvalidRequest(f"'{name}' is not supported. {instead}.", param=name, code="unsupported_parameter")
        if not self.prompt and not self.images:
            return self.request(model, [], ignored)
        likely = self.likely_tokens
        if self.raw:
            if self.images:
                raise InvalidRequest(
                    "'images' cannot be sent with 'raw'.", param="images", code="unsupported_parameter"
                )
            text = Complete(id=0, prompt=self.prompt, form=self.form, top_logprobs=likely)
            return self.request(model, [text], ignored)
        turn = OllamaTurn(role="user", content=self.prompt, images=self.images)
        turns = [turn] if not self.system else [OllamaTurn(role="system", content=self.system), turn]
        chat = Chat(id=0, messages=_messages(turns), form=self.form, top_logprobs=likely)
        return self.request(model, [chat], ignored, [f"images[{place}]" for place in range(len(self.images or ()))])


def _messages(turns: Sequence[OllamaTurn]) -> list[protocol.Message]:
    """Return the turns as messages. Calls without ids get one, and results get the ids of the calls they answer."""
    found: list[protocol.Message] = []
    open_calls: list[FunctionCall] = []
    for at, turn in enumerate(turns):
        calls: list[FunctionCall] = []
        for place, call in enumerate(turn.tool_calls or ()):
            arguments = call.function.arguments
            call_id = call.id or f"call_{at}_{place}"
            calls.append(FunctionCall(call_id, call.function.name, "" if arguments is None else arguments))
        open_calls += calls
        answers = turn.tool_call_id
        if turn.role == "tool" and answers is None:
            answers = _answered(open_calls, turn.tool_name)
        open_calls = [call for call in open_calls if call.id != answers]
        # Ollama puts the images of a message before its text.
        parts: list[protocol.Part] = [protocol.ImagePart(_data_url(image)) for image in turn.images or ()]
        if turn.content:
            parts.append(TextPart(turn.content))
        content: str | list[protocol.Part] = parts if turn.images else turn.content or ""
        name = turn.tool_name if turn.role == "tool" else None
        found.append(
            protocol.Message(turn.role, content, name=name, reasoning=turn.thinking, calls=calls, call_id=answers)
        )
    return found


def _answered(calls: Sequence[FunctionCall], name: str | None) -> str | None:
    """Return the id of the call that a result without an id answers: the first of its tool, otherwise the first."""
    named = [call for call in calls if call.name == name] or calls
    return named[0].id if named else None


def _data_url(image: str) -> str:
    """Return an image as a data: URL with its type, which Ollama's clients do not send."""
    beginning = base64.b64decode(image[:16] + "=" * (-len(image[:16]) % 4))
    kind = next((kind for mark, kind in _IMAGES if beginning.startswith(mark)), "png")
    return f"data:image/{kind};base64,{image}"
