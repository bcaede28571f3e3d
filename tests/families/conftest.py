"""Families that a run checks: a few, or all of them with --long."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.families.catalogue import FAMILIES


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "family_name" in metafunc.fixturenames:
        every = metafunc.config.getoption("--long")
        metafunc.parametrize("family_name", [name for name, family in FAMILIES.items() if every or family.everyday])


@pytest.fixture
def fetched() -> Path | None:
    """Return the folder that keeps vocabularies and templates for later runs, if there is one."""
    given = os.environ.get("LOCALAPI_FAMILIES")
    return Path(given) if given else None
