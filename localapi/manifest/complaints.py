"""What pydantic found wrong, in plain sentences and at the place that said it."""

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
from localapi.manifest.origin import Items, KeyPath, Node, Origin, Scalar, Table, noun, plain

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
    "string_pattern_mismatch": "text on one line that neither begins nor ends with a blank",
}
"""What each of pydantic's errors says should be there (https://docs.pydantic.dev/latest/errors/validation_errors/)."""


SECRET: KeyPath = ("server", "api_keys")
"""What is found below this key is never shown."""


@dataclass(frozen=True)
class Place:
    """A table to check, and the key that holds it."""

    node: Table
    origin: Origin
    """Of the key; problems with something that is not there are shown here."""
    path: KeyPath


def check(model: type[Model], place: Place, problems: list[Problem]) -> Model | None:
    """The table as a value of `model`; None where it has problems, which are added to the list."""
    try:
        return model.model_validate(plain(place.node))
    except ValidationError as error:
        problems.extend(_sentences(model, place, error.errors(include_url=False)))
        return None


def suggestion(name: str, known: Collection[str], *, what: str = "known") -> str:
    """The end of a message about an unknown name: the nearest known one, and all of them."""
    near = difflib.get_close_matches(name[:MOST_SHOWN], known, n=1)
    return f"{f'; did you mean {near[0]!r}?' if near else ''} ({what}: {', '.join(known)})"


def expectation(complaint: ErrorDetails) -> str:
    """What should be there, after the words "should be"."""
    context: Mapping[str, Any] = complaint.get("ctx", {})
    if complaint["type"] == "value_error":
        return str(context["error"]).removeprefix("should be ")
    form = _EXPECTED.get(complaint["type"])
    whole = {name: int(at) if isinstance(at, float) and at.is_integer() else at for name, at in context.items()}
    return form.format_map(whole) if form else complaint["msg"]


def _sentences(model: type[BaseModel], place: Place, errors: Iterable[ErrorDetails]) -> Iterable[Problem]:
    """One problem for each place: the members of a union complain one by one, and mean "either ... or"."""
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
    """Where a location of pydantic's leads: the path, the place of its last key, and the value.

    Locations also name the members of unions, and keys that are not there; both are passed over.
    """
    path, origin = place.path, place.origin
    current: Node = place.node
    for step in location:
        if isinstance(current, Table) and step in current.members:
            member = current.members[str(step)]
            origin, current = member.origin, member.node
        elif isinstance(current, Items) and isinstance(step, int) and step < len(current.nodes):
            current = current.nodes[step]
            origin = current.origin
        else:
            continue
        path = (*path, step)
    return path, origin, current


def _should_be(complaints: list[ErrorDetails], node: Node, path: KeyPath) -> str:
    expected = list(dict.fromkeys(expectation(complaint) for complaint in complaints))
    if path[: len(SECRET)] == SECRET:
        return f"should be {' or '.join(expected)}"
    message = f"should be {' or '.join(expected)}; found {noun(node)}"
    wants_text = any(complaint["type"] in ("string_type", "literal_error") for complaint in complaints)
    if wants_text and isinstance(node, Scalar) and node.value is not None and not isinstance(node.value, str):
        return f'{message}: put it in quotes, "{node.text}"'
    return message


def _unknown_key(model: type[BaseModel], place: Place, location: tuple[int | str, ...]) -> str:
    *parents, last = location
    key = str(last)
    model = _model_at(model, parents)
    defaults = model.model_fields.get("defaults")
    if defaults is not None and key in getattr(defaults.annotation, "model_fields", {}):
        return f"unknown key {shown(key)} here; request parameters go under defaults: write `defaults: {{{key}: ...}}`"
    backend = place.node.get("backend")
    if issubclass(model, EntryOptions) and isinstance(backend, Scalar):
        others = [name for name, options in KINDS[model.section].backends.items() if key in options.model_fields]
        if others:
            return f"the backend {backend.text!r} has no {shown(key)}; these have: {', '.join(others)}"
    own_first = sorted(model.model_fields, key=lambda name: (name in EntryOptions.model_fields, name == "defaults"))
    return f"unknown key {shown(key)}{suggestion(key, own_first)}"


def _model_at(model: type[BaseModel], parents: Sequence[int | str]) -> type[BaseModel]:
    """The model that the keys lead to: through fields, and through maps whose values are models."""
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
    who = f"the backend {backend.text!r} needs it" if isinstance(backend, Scalar) else "it is needed"
    said = model.model_fields[name].description if name in model.model_fields else None
    return f"is missing, and {who}{f': {said}' if said else ''}"
