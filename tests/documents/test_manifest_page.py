"""docs/manifest.md is what the code says now, and what it says of each option is short and right."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from localapi.backends.parameters import ChatParameters, SpeechParameters
from localapi.backends.place import ClusterOptions, Place
from localapi.backends.speech import MappedVoice
from localapi.kinds import KINDS
from localapi.manifest import markdown, reference
from localapi.manifest.entries import Entry
from localapi.manifest.keys import KeyOptions
from localapi.manifest.server_options import ServerOptions, document
from tests.documents.pages import cells, page, quoted

LONGEST = 150
"""Characters of a description, which editors show in a small window."""
ENTRIES = [(kind.name, name, options) for kind in KINDS.values() for name, options in kind.backends.items()]
OTHERS: list[type[BaseModel]] = [
    *(ServerOptions, KeyOptions, ClusterOptions, Place, ChatParameters, MappedVoice, SpeechParameters),
]
PLACES = [(f"{kind}-{name}", options) for kind, name, options in ENTRIES] + [(each.__name__, each) for each in OTHERS]
OPTIONS = [
    pytest.param(model, field, id=f"{place}-{field}")
    for place, model in PLACES
    for field in model.model_fields
    if field != "backend"
]


def test_the_page_is_what_the_code_says() -> None:
    assert page("manifest.md").text == markdown(), f"run: {reference.COMMAND}"


def valid(model: type[BaseModel], name: str) -> dict[str, Any]:
    """Options that say this one, as its example has it, and what must be said with it."""
    required = [each for each, field in model.model_fields.items() if field.is_required()]
    values = {each: reference.example_of(model, each) for each in {*required, name}}
    return {"env": "KEY", **values} if model is KeyOptions and name != "file" else values


@pytest.mark.parametrize(("model", "name"), OPTIONS)
def test_each_option_is_described_shortly_and_its_example_is_valid(model: type[BaseModel], name: str) -> None:
    field = model.model_fields[name]
    description = field.description or ""
    assert description.endswith(".")
    assert len(description) <= LONGEST
    assert getattr(model.model_validate(valid(model, name)), name) != field.default


@pytest.mark.parametrize(("kind", "name", "options"), ENTRIES)
def test_what_is_said_to_change_in_place_does(kind: str, name: str, options: Any) -> None:
    manifest = page("manifest.md")
    of_kind = [f"Every {kind} model"] if issubclass(options, KINDS[kind].options) else []  # a pool has none of these
    titles = ["Every model", *of_kind, f"{kind}: {name}"]
    if "It has the same options as" in manifest.section(titles[-1]):
        titles[-1] = f"{kind}: {quoted_link(manifest.section(titles[-1]))}"
    rows = [row for title in titles for row in cells(manifest.section(title))[1:]]
    assert {quoted(row[0])[0] for row in rows} == set(options.model_fields) - {"backend"}
    required = {each: stand_in(field) for each, field in options.model_fields.items() if field.is_required()}
    usual = options.model_validate({**required, "backend": name})
    for row in rows:
        (field,) = quoted(row[0])
        changed = options.model_validate({**required, "backend": name, field: reference.example_of(options, field)})
        before, after = (Entry.of("x", each, server=ServerOptions()) for each in (usual, changed))
        assert (before.identity == after.identity) == (row[3] == "in place"), field


def stand_in(field: FieldInfo) -> Any:
    """A valid value that is not the example: the second example, if not every text is valid."""
    return field.examples[1] if field.examples and len(field.examples) > 1 else "x"


def quoted_link(text: str) -> str:
    return text.partition("[")[2].partition("]")[0]


def test_every_top_level_key_is_described() -> None:
    assert [key for key, field in document().model_fields.items() if not field.description] == []
