"""Read a JSON body into a pydantic model, with errors that name the parameter.

Known fields are checked strictly. Unknown ones are accepted, because clients add undocumented fields; the reply header
`x-ignored-params` names them, so nothing is ignored silently.
"""

from __future__ import annotations

import asyncio
import codecs
import logging
import re
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema
from quart import Response, request

from localapi.errors import InvalidRequest
from localapi.http import request_context
from localapi.http.encodings import decode, encoding_of

log = logging.getLogger(__name__)

IGNORED_HEADER: Final = "x-ignored-params"
"""Header that names fields without effect."""
LOCKED_HEADER: Final = "x-locked-params"
"""Header that names parameters overruled by the manifest's `locked`."""
RELAXED_HEADER: Final = "x-relaxed-params"
"""Header that names constraints on the response's form that are not enforced."""
UNSUPPORTED_HEADER: Final = "x-unsupported-params"
"""Header that names parameters that the backend does not honour."""
_decode = msgspec.json.Decoder().decode
_TELL_NO_VALUE: Final = frozenset({
    "bool_type", "dict_type", "float_type", "int_type", "list_type", "string_type", "model_type",
    "model_attributes_type", "finite_number", "int_from_float", "literal_error", "greater_than", "greater_than_equal",
    "less_than", "less_than_equal", "too_long", "too_short", "string_too_long", "string_too_short",
})  # fmt: skip
"""Types of pydantic errors whose messages do not contain the value."""
MOST_FIELDS: Final = 1000
_SHOWN: Final = 80
_SHOWN_NAME: Final = 200
_MOST_NAMES: Final = 20
_OF_PYDANTIC: Final = re.compile(r"^Value error, |^(?:Input|List|String|Dictionary) (?=should )| after validation")
"""Words of pydantic's messages that do not help a client."""
_NOT_IN_HEADERS = re.compile(r"[^\x20-\x7e]")
BODY_SECONDS: Final = 60
"""Time limit for a body to arrive."""
Body = TypeVar("Body", bound=BaseModel)


class RequestBody(BaseModel):
    """Base of a body. Unknown fields are kept in `model_extra`, for the reply to name."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, defer_build=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema, whose lists are checked up to their first bad item.

        With millions of bad items, an error for each of them would take minutes and gigabytes.
        """
        schema = handler(source)
        _fail_fast(schema)
        return schema


def _fail_fast(schema: object) -> None:
    """Change all lists of a schema."""
    if isinstance(schema, list | tuple):
        for part in schema:
            _fail_fast(part)
    elif isinstance(schema, dict):
        if schema.get("type") == "list":
            schema["fail_fast"] = True
        for part in schema.values():
            _fail_fast(part)


async def read_object() -> dict[str, Any]:
    """Return the request's JSON object without its nulls, which mean unset.

    Raise InvalidRequest, RequestTooLarge and UnsupportedEncoding.
    """
    encoding = encoding_of(",".join(request.headers.getlist("Content-Encoding")))
    try:
        # Quart's BODY_TIMEOUT is not used: its asyncio.wait_for loses the news that the client has left (before
        # Python 3.12).
        async with asyncio.timeout(BODY_SECONDS):
            raw: bytes = await request.get_data(cache=True, as_text=False, parse_form_data=False)
    except TimeoutError as error:
        raise InvalidRequest(f"The request body did not arrive within {BODY_SECONDS} s.") from error
    if raw and encoding is not None:
        raw = await asyncio.to_thread(decode, raw, encoding, request.max_content_length or 0)
    raw = raw.removeprefix(codecs.BOM_UTF8)
    if not raw.strip():
        raise InvalidRequest("The request has no body. Send a JSON object.")
    try:
        content = _decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}", code="invalid_json") from error
    except RecursionError as error:
        raise InvalidRequest("The body is nested too deeply.", code="invalid_json") from error
    if not isinstance(content, dict):
        raise InvalidRequest(f"The body must be a JSON object; found {_described(content)}.")
    if len(content) > MOST_FIELDS:
        raise InvalidRequest(f"The body has {len(content)} fields; the limit is {MOST_FIELDS}.")
    return {key: value for key, value in content.items() if value is not None}


def parse(model: type[Body], content: dict[str, Any]) -> Body:
    """Check known fields. Raise InvalidRequest for the first invalid one."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise _first_problem(error, content) from None


def in_header(names: Sequence[str]) -> str:
    """Return names chosen by a client as a header value."""
    shown = [_NOT_IN_HEADERS.sub("?", name)[:_SHOWN_NAME] for name in names[:_MOST_NAMES]]
    return " ".join(", ".join(shown).split())


def name_in_reply(reply: Response, header: str, names: Sequence[str], what: str, level: int = logging.INFO) -> None:
    """Name fields of the request in a reply header and in the log; `what` says why they are named."""
    if names:
        reply.headers[header] = in_header(names)
        log.log(level, "%s: %s: %s", request_context.current().id, what, reply.headers[header])


def name_ignored(names: Sequence[str], reply: Response) -> Response:
    """Name the fields without effect in the reply and in the log."""
    name_in_reply(reply, IGNORED_HEADER, names, "ignored unknown parameters")
    return reply


def _first_problem(error: ValidationError, content: dict[str, Any]) -> InvalidRequest:
    """Return the most specific problem of the first invalid field: a union reports one for each of its types."""
    problems = [(_keys(p["loc"], content, missing=p["type"] == "missing"), p) for p in error.errors(include_url=False)]
    first = problems[0][0]
    of_list = len(first) > 1 and isinstance(first[1], int)
    field = first[: 2 if of_list else 1]  # in a list, the first invalid item
    keys, problem = min(
        (found for found in problems if found[0][: len(field)] == field),
        key=lambda found: (found[1]["type"].endswith("_type"), -len(found[0])),
    )
    param = _param(keys)
    if problem["type"] == "missing":
        missing = f"Missing required parameter: '{param}'."
        return InvalidRequest(missing, param=param, code="missing_required_parameter", loggable=missing)
    message = _OF_PYDANTIC.sub("", problem["msg"])
    invalid = f"Invalid '{param}': {message}"
    return InvalidRequest(
        f"{invalid}; found {_described(problem['input'])}.",
        param=param,
        code="invalid_value",
        loggable=invalid if problem["type"] in _TELL_NO_VALUE else None,
    )


def _keys(place: tuple[int | str, ...], content: object, *, missing: bool) -> tuple[int | str, ...]:
    """Return the keys of pydantic's location, which also contains types of unions.

    If `missing`, the last part is a missing field.
    """
    keys: list[int | str] = []
    for at, part in enumerate(place):
        if (
            isinstance(content, dict)
            and isinstance(part, str)
            and (part in content or (missing and at == len(place) - 1))
        ):
            keys.append(part)
            content = content.get(part)
        elif isinstance(content, list) and isinstance(part, int):
            keys.append(part)
            content = content[part]
    return tuple(keys)


def _param(keys: tuple[int | str, ...]) -> str:
    """Return the path in OpenAI's notation, such as `messages[0].content`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


def _described(value: object) -> str:
    """Return a value with its type, shortened if it is long: `the string "hot"`."""
    text = msgspec.json.encode(value, enc_hook=repr).decode()
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    match value:
        case None | bool():
            return shown
        case int() | float():
            return f"the number {shown}"
        case str():
            return f"the string {shown}"
        case list():
            return f"the array {shown}"
        case _:
            return f"the object {shown}"
