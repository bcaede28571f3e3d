"""The matrix of families: real vocabularies and templates, and what holds for each. The documents show the result."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.families.catalogue import FAMILIES, build
from tests.families.matrix import COLUMNS, FAILED, Matrix
from tests.families.sources import templates, vocabularies
from tests.made_once import folder_of_the_run

if TYPE_CHECKING:
    from tests.conftest import Made

DOCUMENT = Path(__file__).parents[2] / "docs/chat.md"


def matrix_of(name: str, made: Made, fetched: Path) -> Matrix:
    family = FAMILIES[name]
    raw = vocabularies(fetched / "vocabularies", {family.vocabulary})
    own = not family.template or family.template.startswith("@")
    found = None if own else templates(fetched / "templates")
    folder = re.sub(r"\W+", "-", name)
    return Matrix(made(f"family-{folder}", lambda draft: build(family, raw, found, draft)))


def test_every_check_holds_for_each_family(
    family_name: str, made: Made, tmp_path_factory: pytest.TempPathFactory, fetched: Path | None
) -> None:
    matrix = matrix_of(family_name, made, fetched or folder_of_the_run(tmp_path_factory) / "families")

    results = matrix.results()

    assert FAILED not in results.values(), results
    row = f"| {family_name} | `{matrix.recognised.tools}` | " + " | ".join(results[column] for column in COLUMNS) + " |"
    print(row)
    shown = [line for line in DOCUMENT.read_text("utf-8").splitlines() if line.startswith(f"| {family_name} |")]
    assert shown in ([], [row])
