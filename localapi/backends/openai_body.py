"""Requests in the form of OpenAI's API, for a server that has it: JSON, and forms with a file.

Parameters that nobody has set stay unset.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import secrets
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any, Final

import msgspec

from localapi.images.header import read_header
from localapi.worker.protocol import (
    AudioPart,
    Chat,
    Complete,
    ImagePart,
    JsonObject,
    JsonSchema,
    Lark,
    Message,
    Part,
    Regex,
    TextPart,
)


def body_of(request: Chat | Complete, model: str | None) -> dict[str, Any]:
    """Return the body to send. A request that the client wrote in OpenAI's form is sent on unchanged.

    All others are streamed. Without a name for the model, the other server uses its default.
    """
    if request.original is not None:
        return {**without_model(request.original), **named_model(model)}
    body: dict[str, Any] = named_model(model)
    body |= _chat(request) if isinstance(request, Chat) else _completion(request)
    body |= _parameters(request)
    body["stream"] = True
    return body


def named_model(model: str | None) -> dict[str, Any]:
    """Return the field that names the model, if it has a name on the other server."""
    return {} if model is None else {"model": model}


def without_model(body: dict[str, Any]) -> dict[str, Any]:
    """Return a client's body without its name for the model."""
    return {name: value for name, value in body.items() if name != "model"}


def _parameters(request: Chat | Complete) -> dict[str, Any]:
    sampling: dict[str, Any] = msgspec.to_builtins(request.sampling)
    bias = request.sampling.logit_bias
    sampling["logit_bias"] = None if bias is None else {str(token): odds for token, odds in bias.items()}
    body = {name: value for name, value in sampling.items() if value is not None}
    if request.max_tokens is not None:
        body["max_tokens"] = request.max_tokens
    if request.stop:
        body["stop"] = request.stop
    if request.n > 1:
        body["n"] = request.n
    match request.form:
        case JsonSchema(schema=schema, strict=strict):
            named = {"name": "answer", "schema": json.loads(schema), "strict": strict}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        case JsonObject():
            body["response_format"] = {"type": "json_object"}
        case Regex(pattern=pattern):
            body["regex"] = pattern
        case Lark(text=text):
            body["grammar"] = text
    return body


def _completion(request: Complete) -> dict[str, Any]:
    body: dict[str, Any] = {"prompt": request.prompt}
    if request.echo:
        body["echo"] = True
    if request.top_logprobs is not None:
        body["logprobs"] = request.top_logprobs
    return body


def _chat(request: Chat) -> dict[str, Any]:
    body: dict[str, Any] = {"messages": [message_of(message) for message in request.messages]}
    if request.tools:
        body["tools"] = [{"type": "function", "function": msgspec.to_builtins(tool)} for tool in request.tools]
        if request.tool_name is not None:
            body["tool_choice"] = {"type": "function", "function": {"name": request.tool_name}}
        elif request.tool_choice != "auto":
            body["tool_choice"] = request.tool_choice
        if not request.parallel_tool_calls:
            body["parallel_tool_calls"] = False
    if request.top_logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    variables = dict(request.template_options)
    if "reasoning_effort" in variables:
        body["reasoning_effort"] = variables.pop("reasoning_effort")
    if variables:
        body["chat_template_kwargs"] = variables
    if request.continues:
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    return body


def message_of(message: Message) -> dict[str, Any]:
    """Return a turn of a conversation."""
    content: str | list[dict[str, Any]] | None = message.text
    if not isinstance(message.content, str) and any(not isinstance(part, TextPart) for part in message.content):
        content = [_part(part) for part in message.content]
    turn: dict[str, Any] = {"role": message.role, "content": content}
    if message.name is not None:
        turn["name"] = message.name
    if message.reasoning:
        turn["reasoning_content"] = message.reasoning
    if message.call_id is not None:
        turn["tool_call_id"] = message.call_id
    if message.calls:
        turn["content"] = content or None
        turn["tool_calls"] = []
        for call in message.calls:
            arguments = call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)
            function = {"name": call.name, "arguments": arguments}
            turn["tool_calls"].append({"id": call.id, "type": "function", "function": function})
    return turn


def _part(part: Part) -> dict[str, Any]:
    match part:
        case TextPart(text=text):
            return {"type": "text", "text": text}
        case ImagePart(url=url, detail=detail, data=data):
            if data is not None:
                url = f"data:{read_header(data).media_type};base64,{base64.b64encode(data).decode()}"
            image = {"url": url} if detail is None else {"url": url, "detail": detail}
            return {"type": "image_url", "image_url": image}
        case AudioPart(data=data, format=form):
            sound = {"data": base64.b64encode(data).decode(), "format": form}
            return {"type": "input_audio", "input_audio": sound}


FILE_FIELD: Final = "file"
_READ_BYTES: Final = 256 * 1024
_NOT_IN_HEADERS: Final = re.compile(r"[\x00-\x1f\x7f]")


class FormBody:
    """Body of a form. Values of fields are strings, or lists of strings, each sent as its own field."""

    def __init__(self, fields: Mapping[str, Any], path: str, *, name: str, content_type: str) -> None:
        """Create a body; `name` is sent as the file's name."""
        self._path = path
        self._boundary = f"localapi-{secrets.token_hex(16)}"
        parts: list[bytes] = []
        for field, value in fields.items():
            values = value if isinstance(value, list) else [value]
            parts += [f"{self._head(field)}\r\n{each}\r\n".encode() for each in values]
        head = f'{self._head(FILE_FIELD)[:-2]}; filename="{_quoted(name)}"\r\n'
        head += f"Content-Type: {_NOT_IN_HEADERS.sub('', content_type)}\r\n\r\n"
        self._before = b"".join([*parts, head.encode()])
        self._after = f"\r\n--{self._boundary}--\r\n".encode()

    def _head(self, name: str) -> str:
        return f'--{self._boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"\r\n'

    def headers(self) -> dict[str, str]:
        """Return the headers that describe the body. Blocks."""
        length = len(self._before) + os.path.getsize(self._path) + len(self._after)
        return {"Content-Type": f"multipart/form-data; boundary={self._boundary}", "Content-Length": str(length)}

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes. Blocks."""
        yield self._before
        with open(self._path, "rb") as file:
            while data := file.read(_READ_BYTES):
                yield data
        yield self._after

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the bytes."""
        blocks = self.blocks()
        while (data := await asyncio.to_thread(next, blocks, None)) is not None:
            yield data


def _quoted(name: str) -> str:
    """Return a name for a header, as browsers write it."""
    return _NOT_IN_HEADERS.sub("", name).replace('"', "%22")
