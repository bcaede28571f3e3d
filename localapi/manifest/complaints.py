"""Translate pydantic's errors into plain sentences with their place in the manifest."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from localapi.backends.options import EntryOptions
from localapi.errors import MOST_SHOWN, Problem, shown
from localapi.kinds import KINDS
from localapi.manifest.hidden import is_hidden
from localapi.manifest.interpolation import mentions_variables
from localapi.manifest.origin import Items, KeyPath, Node, Origin, Scalar, Table, follow, noun, plain

Model = TypeVar("Model", bound=BaseModel)

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "literal_error": "{expected}",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "finite_number": "a finite number",
    "string_too_short": "text that is not empty",
    "string_too_long": "text of at most {max_length} characters",
    "too_long": "a list of at most {max_length} items",
    "too_short": "a list that is not empty",
    "string_pattern_mismatch": "text on one line, without leading or trailing spaces",
}
"""Expected value for each type of error (https://docs.pydantic.dev/latest/errors/validation_errors/)."""


@dataclass(frozen=True)
class Place:
    """Table to check, and its key."""

    node: Table
    origin: Origin
    """Origin of the key, at which missing values are reported."""
    path: KeyPath


def check(model: type[Model], place: Place, problems: list[Problem]) -> Model | None:
    """Return the table as a value of `model`, or None if it has problems, which are added to the list."""
    try:
        return model.model_validate(plain(place.node))
    except ValidationError as error:
        problems.extend(_sentences(model, place, error.errors(include_url=False)))
        return None


def suggestion(name: str, known: Collection[str], *, what: str = "known") -> str:
    """Return the end of a message about an unknown name: the nearest known name, and all names."""
    near = difflib.get_close_matches(name[:MOST_SHOWN], known, n=1)
    return f"{f'; did you mean {near[0]!r}?' if near else ''} ({what}: {', '.join(known)})"


def expectation(complaint: ErrorDetails) -> str:
    """Return what was expected, to follow the words "should be"."""
    context: Mapping[str, Any] = complaint.get("ctx", {})
    if complaint["type"] == "value_error":
        return str(context["error"]).removeprefix("should be ")
    form = _EXPECTED.get(complaint["type"])
    whole = {name: int(at) if isinstance(at, float) and at.is_integer() else at for name, at in context.items()}
    return form.format_map(whole) if form else complaint["msg"]


def _sentences(model: type[BaseModel], place: Place, errors: Iterable[ErrorDetails]) -> Iterable[Problem]:
    """Yield one problem per place; errors from members of a union are combined."""
    wrong: dict[KeyPath, list[ErrorDetails]] = {}
    for error in errors:
        path, key_origin, _ = _follow(place, error["loc"])
        if error["type"] == "extra_forbidden":
            yield key_origin.problem(_unknown_key(model, place, error["loc"]), path)
        elif error["type"] == "missing":
            name = str(error["loc"][-1])
            yield key_origin.problem(_missing_key(model, place, name), (*path, name))
        else:
            wrong.setdefault(path, []).append(error)
    for path, complaints in wrong.items():
        _, _, node = _follow(place, complaints[0]["loc"])
        deeper = any(other[: len(path)] == path and len(other) > len(path) for other in wrong)
        if not (deeper and isinstance(node, Items | Table)):
            yield node.origin.problem(_should_be(complaints, node, path), path)


def _follow(place: Place, location: tuple[int | str, ...]) -> tuple[KeyPath, Origin, Node]:
    """Return the path, the origin of the last key, and the value for a location in pydantic's errors.

    Locations also name members of unions and missing keys; both are skipped.
    """
    path, origin = place.path, place.origin
    node: Node = place.node
    for key, found, value in follow(place.node, location):
        path, origin, node = (*path, key), found, value
    return path, origin, node


def _should_be(complaints: list[ErrorDetails], node: Node, path: KeyPath) -> str:
    expected = " or ".join(dict.fromkeys(expectation(complaint) for complaint in complaints))
    should = expected if expected.startswith("should ") else f"should be {expected}"  # or "should have", "should end"
    if is_hidden(path):
        return should
    message = f"{should}; found {noun(node)}"
    wants_text = any(complaint["type"] in ("string_type", "literal_error") for complaint in complaints)
    if wants_text and isinstance(node, Scalar) and node.value is not None and not isinstance(node.value, str):
        return f'{message}: put it in quotes, "{node.text}"'
    if not wants_text and isinstance(node, Scalar) and isinstance(node.value, str) and mentions_variables(node.text):
        return f"{message}: a reference in quotes is always text; remove the quotes"
    return message


def _unknown_key(model: type[BaseModel], place: Place, location: tuple[int | str, ...]) -> str:
    *parents, last = location
    key = str(last)
    model = _model_at(model, parents)
    defaults = model.model_fields.get("defaults")
    if defaults is not None and key in getattr(defaults.annotation, "model_fields", {}):
        return f"unknown key {shown(key)}; request parameters belong under defaults: `defaults: {{{key}: ...}}`"
    backend = place.node.get("backend")
    if issubclass(model, EntryOptions) and isinstance(backend, Scalar):
        others = [name for name, options in KINDS[model.section].backends.items() if key in options.model_fields]
        if others:
            return f"the backend {backend.text!r} has no option {shown(key)}; backends with it: {', '.join(others)}"
    own_first = sorted(model.model_fields, key=lambda name: (name in EntryOptions.model_fields, name == "defaults"))
    return f"unknown key {shown(key)}{suggestion(key, own_first)}"


def _model_at(model: type[BaseModel], parents: Sequence[int | str]) -> type[BaseModel]:
    """Return the model at a path of keys, through fields and through maps whose values are models."""
    found: Any = model
    for parent in parents:
        found = get_args(found)[1] if get_origin(found) is dict else found.model_fields[str(parent)].annotation
        while get_origin(found) is Annotated:
            found = get_args(found)[0]
    assert isinstance(found, type)  # noqa: S101  # only models forbid keys
    assert issubclass(found, BaseModel), found  # noqa: S101
    return found


def _missing_key(model: type[BaseModel], place: Place, name: str) -> str:
    backend = place.node.get("backend")
    who = f" by the backend {backend.text!r}" if isinstance(backend, Scalar) else ""
    said = model.model_fields[name].description if name in model.model_fields else None
    return f"is missing, but required{who}{f': {said}' if said else ''}"
