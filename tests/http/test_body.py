"""Bodies with millions of mistakes are refused for the first one, as an error for each would take gigabytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import pytest
from pydantic import BaseModel, Field, ValidationError

from localapi.api import openapi
from localapi.api.operation import JSON
from localapi.errors import InvalidRequest
from localapi.http.body import RequestBody, parse

pytestmark = pytest.mark.everyday


class Part(RequestBody):
    number: int


class Sample(RequestBody):
    parts: list[int | Part]


class Bounded(RequestBody):
    texts: Annotated[list[str], Field(min_length=1)]


def lists_of(schema: object) -> Iterator[dict[str, object]]:
    if isinstance(schema, dict):
        if schema.get("type") == "list":
            yield schema
        for part in schema.values():
            yield from lists_of(part)
    elif isinstance(schema, list | tuple):
        for part in schema:
            yield from lists_of(part)


def test_a_list_is_checked_up_to_its_first_bad_item() -> None:
    with pytest.raises(ValidationError) as refused:
        Sample.model_validate({"parts": [1, {"number": 1}, *["bad"] * 1000]})
    assert {problem["loc"][:2] for problem in refused.value.errors()} == {("parts", 2)}


def bodies() -> dict[str, type[BaseModel]]:
    """Return the bodies of endpoints that clients use. Editing the manifest is for operators."""
    found = {}
    for (_, path), operation in openapi.operations().items():
        if operation.body is not None and operation.body_type == JSON and not path.startswith("/admin"):
            found[operation.body.__name__] = operation.body
    return found


@pytest.mark.parametrize("body", bodies().values(), ids=list(bodies()))
def test_every_list_of_every_body_is_checked_so(body: type[BaseModel]) -> None:
    body.model_rebuild(force=True)
    for schema in lists_of(body.__pydantic_core_schema__):
        assert schema.get("fail_fast"), schema


@pytest.mark.parametrize("texts", [[], "a", [1]], ids=["too short", "not a list", "an item of another type"])
def test_an_error_has_no_words_about_the_validation(texts: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(Bounded, {"texts": texts})
    assert refused.value.message.startswith(("Invalid 'texts': should ", "Invalid 'texts[0]': should "))
    assert "validation" not in refused.value.message
